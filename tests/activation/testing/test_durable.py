"""Durable connections outlive the crash of a function as they outlive that of a process."""

from __future__ import annotations

import random

import trio

from activation.testing import activated
from tests.activation.testing import daemons
from tests.children import no_leak
from tests.commands import LIMIT


async def numbered(client: trio.SocketStream, number: int) -> None:
    """Send a line, and have it back with this number."""
    await client.send_all(b"line\n")
    answer = b""
    while not answer.endswith(b"\n"):
        answer += await client.receive_some() or b"the end\n"
    assert answer == b"%d line\n" % number


async def test_each_line_is_numbered_once_however_often_it_crashes() -> None:
    done = False

    async def talk(client: trio.SocketStream) -> None:
        number = 0
        while not done:
            number += 1
            await numbered(client, number)

    with no_leak(), trio.fail_after(LIMIT):
        async with activated(daemons.durable, {"a": "unix", "b": "tcp"}, store=16) as daemon:
            await daemon.ready()
            clients = [await daemon.connect(name) for name in ("a", "b", "a", "b")]
            async with trio.open_nursery() as nursery:
                for client in clients:
                    nursery.start_soon(talk, client)
                for turn in range(100):
                    for _ in range(random.randrange(40)):
                        await trio.lowlevel.checkpoint()
                    await daemon.crash()
                    if turn % 10 == 0:
                        await daemon.restart()
                done = True
            assert await daemon.stop() == 0
