"""Reloads at SIGHUP."""

from __future__ import annotations

import logging
import os
import re
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import activation
from activation.testing import activated
from tests.commands import LIMIT

from .serving import SpecialError, echo, echoes, serving

if TYPE_CHECKING:
    from .serving import Manager

pytestmark = pytest.mark.usefixtures("no_manager")


@pytest.mark.parametrize("kind", ["function", "coroutine function", "one that raises"])
async def test_a_hangup_reloads_between_reloading_and_ready(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    def function() -> None:
        nonlocal calls
        calls += 1
        if kind == "one that raises":
            raise SpecialError("bad configuration")

    async def coroutine_function() -> None:
        await trio.lowlevel.checkpoint()
        function()

    reload = coroutine_function if kind == "coroutine function" else function
    async with activated(partial(activation.serve, echo, reload=reload), {"a": "unix"}) as daemon:
        await daemon.ready()
        for number in (1, 2):
            before = len(daemon.told)
            await daemon.reload()
            said = daemon.told[before:]
            assert said[0] == "RELOADING=1"
            assert re.fullmatch(r"MONOTONIC_USEC=\d+", said[1])
            assert said[2:] == ["EXTEND_TIMEOUT_USEC=15000000", "READY=1"]
            assert calls == number
        assert await echoes(await daemon.connect("a"))
    assert ("bad configuration" in caplog.text) is (kind == "one that raises")


async def test_a_reload_that_hangs_does_not_keep_it_from_ending() -> None:
    async with activated(partial(activation.serve, echo, reload=trio.sleep_forever), {"a": "unix"}) as daemon:
        await daemon.ready()
        daemon.send_signal(signal.SIGHUP)
        await daemon.wait_told("RELOADING=1")
        assert await daemon.stop() == 0
        assert daemon.told.count("READY=1") == 1


async def test_a_hangup_before_it_accepts_is_a_reload_after_it(manager: Manager) -> None:
    calls = 0

    def reload() -> None:
        nonlocal calls
        calls += 1
        assert manager.heard()[0] == "READY=1"

    own = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(partial(activation.serve, echo, listeners, reload=reload))
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(LIMIT):
                while not calls:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, own)


async def test_without_reload_a_managed_daemon_lives_and_says_that_it_has_reloaded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with activated(partial(activation.serve, echo), {"a": "unix"}) as daemon:
        stream = await daemon.connect("a")
        for _ in range(2):
            await daemon.reload()
        assert await echoes(stream)
    assert [line for line in caplog.messages if "nothing to reload" in line] == [caplog.messages[0]] * 2


async def test_a_service_of_a_type_without_notifications_is_managed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
    async with serving() as daemon, await daemon.connect() as stream:
        os.kill(os.getpid(), signal.SIGHUP)
        assert await echoes(stream)


async def test_without_a_manager_and_reload_a_hangup_has_its_usual_effect() -> None:
    got: list[int] = []
    own = signal.signal(signal.SIGHUP, lambda number, _: got.append(number))
    try:
        async with serving():
            os.kill(os.getpid(), signal.SIGHUP)
            assert got == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, own)


async def test_several_in_one_process_reload_as_one(manager: Manager) -> None:
    reloaded = []
    go = trio.Event()

    async def slow() -> None:
        await go.wait()
        reloaded.append("slow")

    async with (
        serving(reload=lambda: reloaded.append("quick")),
        serving(reload=slow),
        serving(),
        serving(reload=trio.sleep_forever) as leaves,
    ):
        manager.heard()
        os.kill(os.getpid(), signal.SIGHUP)
        await manager.hear("RELOADING=1")
        await trio.testing.wait_all_tasks_blocked()
        assert reloaded == ["quick"]
        for _ in range(3):  # one more reload, once this one is over
            os.kill(os.getpid(), signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
        assert "READY=1" not in manager.heard()
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert reloaded == ["quick", "slow"]
        assert "READY=1" not in manager.heard()
        leaves.scope.cancel()  # the reload of one that is gone is over
        said = await manager.hear("RELOADING=1")
        said += await manager.hear("READY=1")
        await trio.testing.wait_all_tasks_blocked()
        said += manager.heard()
        assert [line for line in said if line in ("RELOADING=1", "READY=1")] == ["READY=1", "RELOADING=1", "READY=1"]
        assert sorted(reloaded[2:]) == ["quick", "slow"]


async def test_more_time_is_asked_for_while_a_reload_lasts(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock

    async def reload() -> None:
        await trio.sleep(12)

    async with activated(partial(activation.serve, echo, reload=reload), {"a": "unix"}) as daemon:
        await daemon.reload()
        await trio.sleep(100)
        # At once, after 0.1 s, 0.3, 0.7, 1.5, 3.1, 6.3 and 11.3.
        assert daemon.told.count("EXTEND_TIMEOUT_USEC=15000000") == 8
