"""The least that echoes datagrams with trio."""

import socket

import trio


async def main() -> None:
    sock = trio.socket.from_stdlib_socket(socket.socket(fileno=3))
    while True:
        data, client = await sock.recvfrom(65536)
        await sock.sendto(data, client)


trio.run(main)
