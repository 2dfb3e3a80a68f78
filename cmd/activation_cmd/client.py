"""client: connect to an echo daemon, send it standard input and print what comes back."""

from __future__ import annotations

import argparse
import os
import select
import sys
from typing import TYPE_CHECKING

import trio

from ._addresses import FORMS, Address, connect, parse
from ._stdio import open_missing, reason, say

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 65536


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 for a server that is absent or goes away, 2 for its usage."""
    parser = argparse.ArgumentParser(
        prog="client",
        description="Connect to an echo daemon, send it the lines of standard input and print what comes back.",
        epilog="Exit status: 0 at the end of input; 1 if the server is absent or goes away; 2 for wrong usage.",
    )
    parser.add_argument("address", nargs="?", default="/run/foobar.sk", metavar="ADDR", help=f"{FORMS} (%(default)s)")
    arguments = parser.parse_args(argv)
    try:
        address = parse(arguments.address)
    except ValueError as error:
        parser.error(str(error))
    open_missing()
    status = 0
    try:
        trio.run(run, address)
    except* (OSError, trio.BrokenResourceError) as group:
        say("client", reason(group))
        status = 1
    except* KeyboardInterrupt:
        status = 130
    return status


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
    """Send standard input and print what comes back, both at once, until the server has closed its half too.

    Raises:
        trio.BrokenResourceError: the server went away.
    """
    sent_all = False

    async def send() -> None:
        nonlocal sent_all
        # In a thread: standard input may be a terminal that others use too, so it has to stay blocking.
        while data := await trio.to_thread.run_sync(read_in, abandon_on_cancel=True):
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                return  # what the server still said is worth printing; receiving then finds the end
        sent_all = True
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        try:
            async for data in stream:
                await trio.to_thread.run_sync(write_out, data)
        except trio.BrokenResourceError:
            sent_all = False
        if not sent_all:
            raise trio.BrokenResourceError(f"the server at {address.text} went away")
        nursery.cancel_scope.cancel()


def read_in() -> bytes:
    """Read some of standard input; nothing at its end."""
    while True:
        try:
            return os.read(0, CHUNK)
        except BlockingIOError:  # another program has left the terminal or the pipe so
            select.select([0], [], [])


def write_out(data: bytes | bytearray) -> None:
    """Write all of it to standard output."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(1, rest) :]
        except BlockingIOError:
            select.select([], [1], [])


if __name__ == "__main__":
    sys.exit(main())
