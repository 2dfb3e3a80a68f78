"""The calls that the README has for special descriptors, in a daemon that is passed real ones."""

from __future__ import annotations

import os
import signal
import socket
import sys
import uuid
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import TYPE_CHECKING

import trio
from activation_cmd.common import message_queue
from activation_cmd.socket_activate.sockets.making import MadeSockets
from activation_cmd.socket_activate.sockets.options import AF_NETLINK
from activation_cmd.socket_activate.units.model import Listen, SocketUnit

import activation
from tests.children import no_leak
from tests.commands import LIMIT
from tests.examples.test_examples import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from activation_cmd.socket_activate.sockets.making import Made
    from activation_cmd.socket_activate.units.model import Kind

NETLINK_USERSOCK = 2  # the family that processes may talk to each other with


@asynccontextmanager
async def passed(kind: Kind, text: str, name: str) -> AsyncIterator[tuple[Made, Callable[[bytes], Awaitable[None]]]]:
    """Run the example with it; gives what was passed, and a function that waits for a line of the example."""
    with no_leak(), MadeSockets() as sockets, trio.fail_after(LIMIT):
        (made,) = sockets.make(SocketUnit(name="a.socket", listen=[Listen(kind, text, "")]))
        command = [sys.executable, str(EXAMPLES / "special_files.py")]
        process = await activation.open_process(command, [(name, made)], stdout=PIPE)
        assert process.stdout
        output = b""

        async def printed(line: bytes) -> None:
            nonlocal output
            while line + b"\n" not in output:
                assert process.stdout
                data = await process.stdout.receive_some()
                assert data, f"it ended without {line!r}: {output!r}"
                output += data

        try:
            yield made, printed
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            await process.stdout.aclose()


async def test_a_fifo_is_a_stream_without_an_end(tmp_path: Path) -> None:
    async with passed("fifo", str(tmp_path / "fifo"), "fifo") as (_, printed):
        for word in (b"first", b"second"):
            (tmp_path / "fifo").write_bytes(word)
            await printed(b"fifo b'%s'" % word)


async def test_a_device_is_a_stream() -> None:
    master, slave = os.openpty()
    try:
        async with passed("special", os.ttyname(slave), "device") as (_, printed):
            os.write(master, b"typed\n")
            await printed(rb"device b'typed\n'")
    finally:
        os.close(master)
        os.close(slave)


async def test_a_regular_file_is_a_file() -> None:
    with open("/proc/version", "rb") as file:
        version = file.read()
    async with passed("special", "/proc/version", "regular-file") as (_, printed):
        await printed(b"regular-file %r" % version)


async def test_a_netlink_socket_is_a_socket() -> None:
    async with passed("netlink", f"{NETLINK_USERSOCK}", "netlink") as (made, printed):
        with (
            socket.socket(fileno=os.dup(made.descriptor)) as sock,
            socket.socket(AF_NETLINK, socket.SOCK_RAW, NETLINK_USERSOCK) as client,
        ):
            client.sendto(b"a word", sock.getsockname())
            await printed(b"netlink b'a word'")


async def test_a_message_queues_messages_come_one_by_one_in_their_order() -> None:
    name = f"/activation-{uuid.uuid4()}"
    async with passed("mqueue", name, "message-queue") as (_, printed):
        queue = message_queue.open(name, os.O_WRONLY)
        try:
            for word in (b"first", b"", bytes(8192), b"last"):
                assert message_queue.library().mq_send(queue, word, len(word), 0) == 0
                await printed(b"message-queue %r" % word)
        finally:
            os.close(queue)
