"""What foobard does: echo on everything that it was passed."""

from __future__ import annotations

import gc
import os
import socket
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import trio

import activation
from activation_cmd.common.stdio import say

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_DATAGRAM = 1 << 18
"""Bytes: a Unix datagram is no longer, unless the host allows that (net.core.wmem_default)."""
STORED = "activation.connections"
"""What serve() has stored, and takes back itself."""
EXAMPLES = (
    "for example: systemctl start foobar.socket, or socket-activate -l /tmp/foobar.sk foobard; "
    "foobard --listen /tmp/foobar.sk makes a socket of its own"
)


async def run(addresses: Sequence[Any], options: dict[str, Any]) -> int:
    """Echo on what was passed and on what is to be made, until a signal or idleness ends it."""
    passed = activation.files() or ([] if addresses else standard_input())
    listeners = activation.listeners(passed)
    connections = activation.streams(passed)
    packet_conns = [conn for conn in activation.packet_conns(passed) if conn]
    for file in passed:
        if file.fileno() >= 0 and not file.name.startswith(STORED):
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
            reason = "" if passed else f": {activation.why_nothing_was_passed()}"
            say("foobard", f"there is nobody to serve{reason}; {EXAMPLES}")
            return 2
        if not has_streams:
            for option in ("idle_timeout", "max_connections"):
                if options.pop(option, None) is not None:
                    say("foobard", f"there are no connections for --{option.replace('_', '-')} here, only datagrams")
        from activation_cmd.common.journal import log_to_stderr

        log_to_stderr("foobard")
        if has_streams and os.environ.get("NOTIFY_SOCKET"):
            # FileDescriptorStoreMax= of the unit decides whether connections outlive this process.
            options["durable"] = activation.Durable(optional=True)
        gc.freeze()
        gc.enable()
        async with trio.open_nursery() as nursery:
            for conn in packet_conns:
                nursery.start_soon(echo_datagrams, conn)
            if has_streams:
                await activation.serve(echo, listeners, connections=connections, **options)
            else:
                await activation.serve(None, **options)
            nursery.cancel_scope.cancel()
    return 0


def standard_input() -> list[activation.File]:
    """The socket that is standard input, where it is one: StandardInput=socket of systemd.exec(5), and inetd."""
    status = os.fstat(0)
    if not stat.S_ISSOCK(status.st_mode):
        return []
    served = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        # Standard output and error mostly are the socket, too, and a client is not to find the log in its echo.
        if os.path.samestat(os.fstat(number), status):
            os.dup2(null, number)
    os.close(null)
    return [activation.File(served, "stdin")]


async def echo(stream: trio.SocketStream | activation.DurableStream) -> None:
    """Send back what comes, until its end. Nothing is read while the client does not read."""
    async for data in stream:
        await stream.send_all(data)


async def echo_datagrams(conn: trio.socket.SocketType) -> None:
    """Send every datagram back to where it came from; one for which there is no room is lost, as with UDP."""
    with conn:
        if conn.family == socket.AF_UNIX:
            await echo_unix_datagrams(conn)
        while True:
            activation.send_datagram(conn, *await activation.receive_datagram(conn))


async def echo_unix_datagrams(conn: trio.socket.SocketType) -> None:
    """Do it for a Unix socket, whose datagrams may be long, and have one address to be answered from."""
    from .unread import UnreadAnswers

    buffer = memoryview(bytearray(LARGEST_DATAGRAM))
    answers = UnreadAnswers(conn)
    while True:
        size, address = await conn.recvfrom_into(buffer)
        answers.send(buffer[:size], activation.DatagramClient(address))
