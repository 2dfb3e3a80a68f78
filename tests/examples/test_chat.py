from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from activation.testing import activated
from tests.commands import LIMIT

from .test_examples import EXAMPLES

if TYPE_CHECKING:
    from activation.testing import Daemon

COMMAND = (sys.executable, str(EXAMPLES / "chat.py"))
SOCKETS: dict[str, Literal["tcp", "unix"]] = {"chat": "tcp", "admin": "unix"}


async def line(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(LIMIT):
        while not received.endswith(b"\n") and (more := await stream.receive_some(1)):
            received += more
    return received


async def guests(daemon: Daemon, stack: AsyncExitStack, count: int) -> list[trio.SocketStream]:
    return [await stack.enter_async_context(await daemon.connect("chat")) for _ in range(count)]


async def test_everybody_reads_what_anybody_says() -> None:
    async with activated(COMMAND, SOCKETS) as daemon, AsyncExitStack() as stack:
        await daemon.ready()
        people = await guests(daemon, stack, 3)
        admin = await stack.enter_async_context(await daemon.connect("admin"))
        # Somebody whom the daemon has not accepted yet would not hear it.
        while await ask(admin, b"who") != b"3 guests\n":
            pass
        await people[0].send_all(b"hello\n")
        for stream in people:
            assert await line(stream) == b"hello\n"
        assert await ask(admin, b"what") == b"Say who, or stop.\n"
        await people[1].send_all(bytes(2000))
        assert await line(people[1]) == b""
        await daemon.wait_status("2 guests, 3 connections")


async def ask(stream: trio.SocketStream, command: bytes) -> bytes:
    await stream.send_all(command + b"\n")
    return await line(stream)


@pytest.mark.parametrize("who", ["the admin", "the manager"])
async def test_it_says_goodbye_to_everybody(who: str) -> None:
    async with activated(COMMAND, SOCKETS) as daemon, AsyncExitStack() as stack:
        await daemon.ready()
        people = await guests(daemon, stack, 20)
        admin = await stack.enter_async_context(await daemon.connect("admin"))
        while await ask(admin, b"who") != b"20 guests\n":
            pass
        if who == "the admin":
            await admin.send_all(b"stop\n")
        else:
            daemon.send_signal(15)
        for stream in people:
            assert await line(stream) == b"* The server restarts. Goodbye!\n"
            assert await line(stream) == b""
        await admin.aclose()
        assert await daemon.wait_exited() == 0
