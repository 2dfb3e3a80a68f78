from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from activation.testing import activated
from tests.commands import run

from .test_examples import EXAMPLES

if TYPE_CHECKING:
    from .conftest import Started

COMMAND = (sys.executable, str(EXAMPLES / "anyio_echo.py"))


async def test_clients_are_served_and_those_that_are_connected_finish_after_a_stop(started: Started) -> None:
    async with activated(started("anyio_echo"), {"a": "tcp"}) as daemon:
        await daemon.ready()
        clients = [await daemon.connect("a"), await daemon.connect("a")]
        for client in clients:
            await client.send_all(b"hello")
            assert await client.receive_some() == b"hello"
        daemon.send_signal(signal.SIGTERM)
        await daemon.wait_told("STOPPING=1")
        late = await daemon.connect("a")  # waits in the queue for the next start
        await late.send_all(b"late")
        for client in clients:
            await client.send_all(b"still here")
            assert await client.receive_some() == b"still here"
            await client.aclose()
        assert await daemon.wait_exited() == 0
        await daemon.start()
        assert await late.receive_some() == b"late"


def test_without_sockets_it_says_how_to_start_it() -> None:
    done = run(*COMMAND)
    assert done.returncode == 1
    assert b"no sockets were passed" in done.stderr
