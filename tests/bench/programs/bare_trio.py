"""The least that echoes with trio: no protocol, no errors, no options."""

import socket

import trio


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def main() -> None:
    sock = trio.socket.from_stdlib_socket(socket.socket(fileno=3))
    await trio.serve_listeners(echo, [trio.SocketListener(sock)])


trio.run(main)
