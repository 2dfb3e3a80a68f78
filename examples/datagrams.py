"""TCP and UDP from one socket unit: connections are serve()'s, datagrams a task beside it.

Try it with units/foobar-inet.socket, and a service unit of its name that has this as its ExecStart=.
"""

from __future__ import annotations

import trio

import activation


async def echo(stream: trio.SocketStream) -> None:
    """Answer on one connection."""
    async for data in stream:
        await stream.send_all(data)


async def answer(conn: trio.socket.SocketType) -> None:
    """Answer every datagram from the address that it was sent to."""
    while True:
        data, client = await activation.receive_datagram(conn)
        activation.send_datagram(conn, data, client)


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
