"""A chat with two protocols in one daemon: "chat" for everybody, and "admin" for whoever may stop it.

    socket-activate -l 2000 -l /tmp/admin.sk --fdname chat:admin -- python examples/chat.py

Everybody reads what anybody writes, line by line. The admin may say "who" and "stop". When the daemon is told to stop,
by the admin or by SIGTERM, it says goodbye.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

import activation

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

LONGEST_LINE = 1000
MOST_UNREAD = 100

people: dict[trio.SocketStream, trio.MemorySendChannel[bytes]] = {}


async def lines(stream: trio.SocketStream) -> AsyncGenerator[bytes, None]:
    """The lines that come, without the newline. A line that is too long ends them."""
    buffer = bytearray()
    async for data in stream:
        buffer += data
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            yield bytes(line)
        if len(buffer) > LONGEST_LINE:
            return


async def chat(stream: trio.SocketStream) -> None:
    """Let one guest read and write, until the guest or the daemon leaves."""
    sender, receiver = trio.open_memory_channel[bytes](MOST_UNREAD)
    people[stream] = sender
    try:
        with activation.until_stopping() as until:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, stream, receiver, nursery.cancel_scope)
                async for line in lines(stream):
                    broadcast(line)
                nursery.cancel_scope.cancel()
    finally:
        del people[stream]
    if until.cancelled_caught:
        await stream.send_all(b"* The server restarts. Goodbye!\n")


async def write(stream: trio.SocketStream, receiver: trio.MemoryReceiveChannel[bytes], guest: trio.CancelScope) -> None:
    """Send what the others say. A guest who was given up, for reading too slowly, leaves."""
    async for line in receiver:
        await stream.send_all(line + b"\n")
    guest.cancel()


def broadcast(line: bytes) -> None:
    """Say it to everybody, and give up who has not read what was said before."""
    for sender in people.values():
        try:
            sender.send_nowait(line)
        except trio.WouldBlock:
            sender.close()
        except trio.ClosedResourceError:
            pass


async def admin(stream: trio.SocketStream) -> None:
    """Obey the admin."""
    async with aclosing(lines(stream)) as commands:
        async for command in commands:
            match command:
                case b"who":
                    await stream.send_all(b"%d guests\n" % len(people))
                case b"stop":
                    activation.stop()
                    return
                case _:
                    await stream.send_all(b"Say who, or stop.\n")


async def main() -> None:
    """Serve both protocols, for as long as there is somebody."""
    await activation.serve(
        {"chat": chat, "admin": admin},
        idle_timeout=600,
        drain_timeout=5,
        status=lambda count: f"{len(people)} guests, {count} connections",
    )


if __name__ == "__main__":
    trio.run(main)
