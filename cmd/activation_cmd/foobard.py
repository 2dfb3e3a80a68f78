"""foobard: an echo daemon behind foobar.socket. It echoes on everything that it was passed."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from typing import TYPE_CHECKING

import trio

import activation

from ._addresses import FORMS, Address, ListeningSockets, parse
from ._errors import reason, say

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_DATAGRAM = 1 << 18

HOW_TO_START = (
    "no sockets were passed, so there is nobody to serve; start it by socket activation "
    "(systemctl start foobar.socket, or: socket-activate -l /tmp/foobar.sk foobard), "
    "or let it make its own: foobard --listen /tmp/foobar.sk"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 for a failure, 2 for wrong usage or nothing to serve."""
    parser = argparse.ArgumentParser(
        prog="foobard", description="Echo on the sockets passed by socket activation: streams and datagrams."
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDR",
        help=f"not activated: make a listening socket here; may be repeated; {FORMS}",
    )
    arguments = parser.parse_args(argv)
    try:
        addresses = [parse(text) for text in arguments.listen]
    except ValueError as error:
        parser.error(str(error))
    status = 0
    try:
        status = trio.run(run, addresses)
    except* (OSError, activation.ActivationError) as group:
        say("foobard", reason(group))
        status = 1
    except* KeyboardInterrupt:
        status = 130
    return status


async def run(addresses: Sequence[Address]) -> int:
    """Echo on what was passed and on what is to be made."""
    passed = activation.files()
    listeners = [listener for listener in activation.listeners(passed) if listener]
    streams = [stream for stream in activation.streams(passed) if stream]
    packet_conns = [conn for conn in activation.packet_conns(passed) if conn]
    for file in passed:
        if file.fileno() >= 0:
            say("foobard", f"descriptor {file.fileno()} ({file.name}) is no stream or datagram socket; left alone")
    if not (listeners or streams or packet_conns or addresses):
        say("foobard", HOW_TO_START)
        return 2
    with ListeningSockets() as own:
        for address in addresses:
            own.listen(address)
        listeners += [trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup())) for sock in own.sockets]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(connection, stream)
            for conn in packet_conns:
                nursery.start_soon(echo_datagrams, conn)
            if listeners:
                nursery.start_soon(trio.serve_listeners, connection, listeners)
    return 0


async def connection(stream: trio.SocketStream) -> None:
    """Echo on one connection; a client that breaks it ends nothing else."""
    try:
        async with stream:
            await echo(stream)
    except trio.BrokenResourceError:
        pass


async def echo(stream: trio.SocketStream) -> None:
    """Send back what comes, until its end. Nothing is read while the client does not read."""
    async for data in stream:
        await stream.send_all(data)


async def echo_datagrams(conn: trio.socket.SocketType) -> None:
    """Send every datagram back to where it came from; one that its sender has no room for is dropped, as by UDP."""
    buffer = memoryview(bytearray(LARGEST_DATAGRAM))
    # Sending does not wait: that would be waiting for one client, in the way of all others.
    with conn, socket.socket(fileno=os.dup(conn.fileno())) as sender:
        sender.setblocking(False)
        while True:
            try:
                size, client = await conn.recvfrom_into(buffer)
            except OSError:  # an earlier datagram's fault
                await trio.lowlevel.checkpoint()
                continue
            if client:
                try:
                    sender.sendto(buffer[:size], client)
                except OSError:
                    pass


if __name__ == "__main__":
    sys.exit(main())
