from __future__ import annotations

import hashlib
import signal
from typing import TYPE_CHECKING

import trio

from activation.testing import activated
from tests.commands import LIMIT

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Started


async def test_no_job_that_was_confirmed_is_lost_by_restarts(started: Started, tmp_path: Path) -> None:
    results = tmp_path / "results"
    confirmed: list[bytes] = []
    async with activated(started("worker", str(results)), {"jobs": "seqpacket"}) as daemon:
        with trio.fail_after(LIMIT):
            for turn in range(3):
                if turn:
                    await daemon.start()
                await daemon.ready()
                channel = await daemon.connect("jobs")
                try:
                    for number in range(60):
                        await channel.send(b"job %d of %d" % (number, turn))
                        if number == 30:
                            confirmed.append(await channel.receive())
                            daemon.send_signal(signal.SIGTERM)
                    async for word in channel:
                        confirmed.append(word)  # noqa: PERF401
                except trio.BrokenResourceError:
                    pass  # it has not read all that was sent
                await channel.aclose()
                assert await daemon.wait_exited() == 0
    done = dict(item.rsplit(b" ", 1) for item in results.read_bytes().splitlines())
    assert len(confirmed) >= 3
    for word in confirmed:
        text = word.removeprefix(b"queued ")
        assert done[text] == hashlib.sha256(text).hexdigest().encode()
