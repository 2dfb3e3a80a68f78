"""The examples of durable connections, restarted and killed."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import trio

from activation.testing import activated
from tests.commands import LIMIT

if TYPE_CHECKING:
    from pathlib import Path

    from activation.testing import Daemon

    from .conftest import Started


async def answer(client: trio.SocketStream, said: bytes) -> bytes:
    await client.send_all(said)
    received = b""
    with trio.fail_after(LIMIT):
        while not received.endswith(b"\n") and (more := await client.receive_some()):
            received += more
    return received


async def test_the_count_goes_on(started: Started) -> None:
    async with activated(started("durable_counter"), {"main": "unix"}, store=3) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        for number in range(1, 7):
            assert await answer(client, b"line\n") == b"%d line\n" % number
            await (daemon.crash() if number % 2 else daemon.restart())


async def test_each_line_is_in_the_database_once(started: Started, tmp_path: Path) -> None:
    path = tmp_path / "lines.db"
    lines = [b"line %d\n" % number for number in range(150)]

    async def crash(daemon: Daemon) -> None:
        for _ in range(3):
            await daemon.crash()

    async with activated(started("durable_inserts", str(path)), {"main": "unix"}, store=3) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        received = b""
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, b"".join(lines))
                nursery.start_soon(crash, daemon)
                while received.count(b"\n") < len(lines):
                    received += await client.receive_some()
        assert received.splitlines() == [b"written: " + line.rstrip() for line in lines]
    database = sqlite3.connect(path)
    rows = database.execute("SELECT number, line FROM lines ORDER BY number").fetchall()
    database.close()
    assert rows == [(number, f"line {number}") for number in range(len(lines))]
