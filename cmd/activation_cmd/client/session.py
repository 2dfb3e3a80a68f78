"""The client's session: it sends standard input to the server and prints the answers."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import trio

from activation_cmd.common.addresses import connect
from activation_cmd.common.stdio import reason

if TYPE_CHECKING:
    from activation_cmd.common.addresses import Address

CHUNK = 65536


async def run(address: Address) -> None:
    """Connect, say so, and hold the session."""
    try:
        stream = await connect(address)
    except OSError as error:
        raise OSError(f"cannot connect to {address.text}: {reason(error)}") from error
    async with stream:
        write_out(b"connect success !\n")
        await session(stream, address)


async def session(stream: trio.SocketStream, address: Address) -> None:
    """Send standard input and print what comes back, both at once, until both sides have closed.

    Raises:
        ConnectionError: the server went away.
    """
    sent_all = False

    async def send() -> None:
        nonlocal sent_all
        try:
            # In a thread: others may share standard input, a terminal perhaps, so it has to stay blocking.
            while data := await trio.to_thread.run_sync(read_in, abandon_on_cancel=True):
                await stream.send_all(data)
            await stream.send_eof()
            sent_all = True
        except trio.BrokenResourceError:
            pass  # what the server has sent is still printed; the receiver sees the end

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            async for data in stream:
                await trio.to_thread.run_sync(write_out, data)
        except trio.BrokenResourceError:
            sent_all = False
        if not sent_all:
            raise ConnectionError(f"the server at {address.text} went away")
        nursery.cancel_scope.cancel()


def read_in() -> bytes:
    """Read some of standard input; nothing at its end."""
    while True:
        try:
            return os.read(0, CHUNK)
        except BlockingIOError:  # another program has made the terminal or pipe non-blocking
            select.select([0], [], [])


def write_out(data: bytes | bytearray) -> None:
    """Write all of it to standard output."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            select.select([], [1], [])
