from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from activation.testing import activated
from tests.commands import LIMIT

if TYPE_CHECKING:
    from activation.testing import Daemon

    from .conftest import Started

SOCKETS: dict[str, Literal["tcp", "unix"]] = {"chat": "tcp", "admin": "unix"}


async def line(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(LIMIT):
        while not received.endswith(b"\n") and (more := await stream.receive_some(1)):
            received += more
    return received


async def guests(daemon: Daemon, stack: AsyncExitStack, count: int) -> list[trio.SocketStream]:
    return [await stack.enter_async_context(await daemon.connect("chat")) for _ in range(count)]


async def test_everybody_reads_what_anybody_says(started: Started) -> None:
    async with activated(started("chat"), SOCKETS) as daemon, AsyncExitStack() as stack:
        await daemon.ready()
        people = await guests(daemon, stack, 3)
        admin = await stack.enter_async_context(await daemon.connect("admin"))
        # Somebody whom the daemon has not accepted yet would not hear it.
        await daemon.wait_status("3 guests, 4 connections")
        assert await ask(admin, b"who") == b"3 guests\n"
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
async def test_it_says_goodbye_to_everybody(started: Started, who: str) -> None:
    async with activated(started("chat"), SOCKETS) as daemon, AsyncExitStack() as stack:
        await daemon.ready()
        people = await guests(daemon, stack, 20)
        admin = await stack.enter_async_context(await daemon.connect("admin"))
        await daemon.wait_status("20 guests, 21 connections")
        if who == "the admin":
            await admin.send_all(b"stop\n")
        else:
            daemon.send_signal(15)
        for stream in people:
            assert await line(stream) == b"* The server restarts. Goodbye!\n"
            assert await line(stream) == b""
        await admin.aclose()
        assert await daemon.wait_exited() == 0
