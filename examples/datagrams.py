"""TCP and UDP from one socket unit: connections are serve()'s, datagrams a task beside it.

Try it: socket-activate cannot pass datagram sockets yet, systemd can: units/foobar-inet.socket with this as ExecStart=.
"""

from __future__ import annotations

import trio

import activation


async def echo(stream: trio.SocketStream) -> None:
    """Answer on one connection."""
    async for data in stream:
        await stream.send_all(data)


async def answer(conn: trio.socket.SocketType) -> None:
    """Answer every datagram."""
    while True:
        data, sender = await conn.recvfrom(65536)
        await conn.sendto(data, sender)


async def main() -> None:
    """Live until a signal."""
    passed = activation.files()
    async with trio.open_nursery() as nursery:
        for conn in activation.packet_conns(passed):
            if conn:
                nursery.start_soon(answer, conn)
        await activation.serve(echo, activation.listeners(passed))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
