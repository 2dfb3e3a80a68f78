"""What the tests of durable daemons share: a handler that counts lines, and a way to tell the test what it does."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

import activation
from activation.testing import activated
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from activation import DurableStream
    from activation.testing import Daemon


async def count(stream: DurableStream) -> None:
    while line := await stream.receive_until(b"\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)


def serving(handler: Callable[[Any], Awaitable[object]], **options: Any) -> Callable[[], Awaitable[object]]:
    return partial(activation.serve, handler, **{"durable": True, **options})


async def line(client: trio.SocketStream, size: int = 1000) -> bytes:
    """What comes up to a newline, or the end."""
    said = b""
    with trio.fail_after(LIMIT):
        while not said.endswith(b"\n") and (more := await client.receive_some(size)):
            said += more
    return said


async def answer(client: trio.SocketStream, said: bytes) -> bytes:
    await client.send_all(said)
    return await line(client)


class Kit:
    """What a handler and its test share."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.wants_durable = True
        self._went = trio.Event()
        self._noted = trio.lowlevel.ParkingLot()

    @asynccontextmanager
    async def running(self, handler: Callable[[Any], Awaitable[object]], **options: Any) -> AsyncIterator[Daemon]:
        async with activated(serving(handler, **options), {"main": "unix"}, store=3) as daemon:
            await daemon.ready()
            yield daemon

    def note(self, *words: Any) -> None:
        self.notes.append(words)
        self._noted.unpark_all()

    async def noted(self, count: int) -> None:
        with trio.fail_after(LIMIT):
            while len(self.notes) < count:
                await self._noted.park()

    async def wait(self) -> None:
        await self._went.wait()

    def go(self) -> None:
        self._went.set()
