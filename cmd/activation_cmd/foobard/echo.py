"""What foobard does: echo on everything that it was passed."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import trio

import activation
from activation_cmd.common.stdio import say

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_DATAGRAM = 1 << 18
HOW_TO_START = (
    "no sockets were passed, so there is nobody to serve; start it by socket activation "
    "(systemctl start foobar.socket, or: socket-activate -l /tmp/foobar.sk foobard), "
    "or let it make its own: foobard --listen /tmp/foobar.sk"
)


async def run(addresses: Sequence[Any], options: dict[str, Any]) -> int:
    """Echo on what was passed and on what is to be made, until a signal or idleness ends it."""
    passed = activation.files()
    listeners = activation.listeners(passed)
    connections = activation.streams(passed)
    packet_conns = [conn for conn in activation.packet_conns(passed) if conn]
    for file in passed:
        if file.fileno() >= 0:
            say("foobard", f"descriptor {file.fileno()} ({file.name}) is no stream or datagram socket; left alone")
    with ExitStack() as stack:
        if addresses:
            from activation_cmd.common.addresses import ListeningSockets

            made = stack.enter_context(ListeningSockets())
            for address in addresses:
                made.listen(address)
            listeners += [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in made.sockets]
        has_streams = any(listeners) or any(connections)
        if not has_streams and not packet_conns:
            say("foobard", HOW_TO_START)
            return 2
        if not has_streams:
            for option in ("idle_timeout", "max_connections"):
                if options.pop(option, None) is not None:
                    say("foobard", f"there are no connections for --{option.replace('_', '-')} here, only datagrams")
        from activation_cmd.common.journal import log_to_stderr

        log_to_stderr("foobard")
        async with trio.open_nursery() as nursery:
            for conn in packet_conns:
                nursery.start_soon(echo_datagrams, conn)
            await activation.serve(echo if has_streams else None, listeners, connections=connections, **options)
            nursery.cancel_scope.cancel()
    return 0


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
