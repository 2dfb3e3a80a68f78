"""What the service manager hears of a daemon."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio

import activation
from activation.testing import activated
from tests.commands import LIMIT

from .serving import SpecialError, echo, echoes, serving

if TYPE_CHECKING:
    from pathlib import Path

    from .serving import Manager

pytestmark = pytest.mark.usefixtures("no_manager")


async def test_ready_is_said_once_it_accepts_and_stopping_when_it_leaves() -> None:
    async with activated(partial(activation.serve, echo), {"a": "unix"}) as daemon:
        await daemon.ready()
        assert daemon.told == ["READY=1", "STATUS=0 connections open"]
        stream = await daemon.connect("a")
        assert await echoes(stream)
        daemon.send_signal(signal.SIGTERM)
        await daemon.wait_told("EXTEND_TIMEOUT_USEC=15000000")
        assert "STOPPING=1" in daemon.told
        assert daemon.told.count("READY=1") == 1
        await stream.aclose()
        assert await daemon.wait_exited() == 0


async def test_leaving_when_idle_is_stopping_but_being_cancelled_is_not(manager: Manager) -> None:
    async with serving(idle_timeout=0) as daemon:
        await daemon.end()
    more_time = "EXTEND_TIMEOUT_USEC=15000000"  # for what the program does after it
    assert manager.heard() == ["READY=1", "STATUS=0 connections open", "STOPPING=1", more_time]
    async with serving():
        pass
    assert "STOPPING=1" not in manager.heard()


async def test_the_first_connection_is_in_the_status_at_once() -> None:
    for _ in range(3):
        async with activated(partial(activation.serve, echo), {"a": "unix"}) as daemon:
            await daemon.ready()
            assert daemon.status == "0 connections open"
            client = await daemon.connect("a")
            await client.send_all(b"!")
            assert daemon.status == "1 connection open"


async def test_the_status_says_how_many_connections_are_open_at_most_once_a_second(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    told: list[tuple[float, str]] = []

    async with serving() as daemon:
        began = trio.current_time()
        manager.heard()
        streams: list[trio.SocketStream] = []
        while trio.current_time() < began + 20:
            if len(streams) < 5:
                streams.append(await daemon.connect())
                assert await echoes(streams[-1])
            elif trio.current_time() > began + 10:
                for stream in streams[:4]:
                    await stream.aclose()
            await trio.sleep(0.05)
            told += [(trio.current_time(), line) for line in manager.heard()]
        await streams[4].aclose()
    assert all(line.startswith("STATUS=") for _, line in told)
    times = [time for time, _ in told]
    assert all(later - earlier > 0.94 for earlier, later in pairwise(times))  # looked at each 0.05 s
    assert "STATUS=5 connections open" in [line for _, line in told]
    assert told[-1][1] == "STATUS=1 connection open"
    assert len(told) < 6


async def test_several_in_one_process_tell_one_status(manager: Manager) -> None:
    async with serving() as one, serving() as two:
        async with await one.connect() as first, await two.connect() as second:
            assert await echoes(first)
            assert await echoes(second)
            await manager.hear("STATUS=2 connections open")


async def test_the_watchdog_is_petted_twice_to_three_times_in_its_time(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    times = []
    async with serving():
        for _ in range(3000):
            times += [trio.current_time() for line in manager.heard() if line == "WATCHDOG=1"]
            await trio.sleep(0.01)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) > 15
    assert all(0.98 <= gap <= 1.52 for gap in gaps)


async def test_a_manager_that_cannot_be_reached_is_logged_once_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    async with serving() as daemon, await daemon.connect() as stream:
        await trio.sleep(0.2)
        assert await echoes(stream)
    assert len(caplog.messages) == 1
    assert f"{tmp_path}/none: cannot tell the service manager" in caplog.text


async def test_a_manager_that_does_not_read_keeps_it_from_nothing(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    async with serving(drain_timeout=1000) as daemon, await daemon.connect() as stream:
        with trio.fail_after(LIMIT):
            while "Resource temporarily unavailable" not in caplog.text:
                await trio.sleep(0.01)
            assert await echoes(stream)
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep(0.05)
            assert await echoes(stream)
        # What must not be lost is told as soon as the manager listens.
        assert "STOPPING=1" in await manager.hear("STOPPING=1")
    assert len([line for line in caplog.messages if "serving all the same" in line]) == 1


async def test_more_time_is_asked_for_only_while_the_drain_lasts(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock

    async def stubborn(stream: trio.SocketStream) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    async with activated(partial(activation.serve, stubborn, drain_timeout=7), {"a": "unix"}, timeout=200) as daemon:
        await daemon.ready()
        await daemon.connect("a")
        assert await daemon.stop() == 0
        assert daemon.told.count("EXTEND_TIMEOUT_USEC=15000000") == 2


async def test_the_status_says_how_much_is_busy(manager: Manager) -> None:
    async with serving() as daemon:
        with activation.busy():
            await manager.hear("STATUS=1 busy")
            async with await daemon.connect() as stream:
                assert await echoes(stream)
                with activation.busy():
                    await manager.hear("STATUS=1 connection open, 2 busy")
        await manager.hear("STATUS=0 connections open")


async def test_a_function_gives_the_status_of_connections_and_busy_work(manager: Manager) -> None:
    async with serving(status=lambda count: f"{count} guests\nin the house") as daemon:
        await manager.hear("STATUS=0 guests in the house")
        async with await daemon.connect() as stream:
            assert await echoes(stream)
            with activation.busy():
                await manager.hear("STATUS=2 guests in the house")


async def test_a_status_function_that_fails_costs_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def status(count: int) -> str:
        raise SpecialError("no words")

    async with activated(partial(activation.serve, echo, status=status), {"a": "unix"}) as daemon:
        await daemon.ready()
        await daemon.connect("a")
        await daemon.wait_status("1 connection open")
    assert len(caplog.records) == 1
    assert "no words" in caplog.text


async def test_a_status_that_the_program_tells_is_not_overwritten(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    async with serving() as daemon:
        activation.notify("STATUS=as I say")
        manager.heard()
        async with await daemon.connect() as stream:
            assert await echoes(stream)
            await trio.sleep(10)
        await trio.sleep(10)
        activation.stop()
        await daemon.end()
    assert not [line for line in manager.heard() if line.startswith("STATUS=")]


async def test_a_status_that_was_asked_for_goes_on_beside_what_the_program_tells(manager: Manager) -> None:
    activation.notify("STATUS=as I say")
    async with serving(status=str) as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        await manager.hear("STATUS=1")


async def test_it_tells_nobody_if_it_is_not_to(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    async with serving(notify=False, reload=print) as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        os.kill(os.getpid(), signal.SIGHUP)
        await trio.sleep(0.1)
        activation.stop()
    assert manager.heard() == []


async def test_beside_one_that_tells_nobody_another_tells(manager: Manager) -> None:
    async with serving(notify=False):
        await trio.testing.wait_all_tasks_blocked()
        async with serving() as daemon:
            assert manager.heard()[0] == "READY=1"
            async with await daemon.connect() as stream:
                assert await echoes(stream)
                await manager.hear("STATUS=1 connection open")


async def test_a_process_that_is_not_the_services_own_does_not_speak_for_the_service(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getppid()))
    async with serving(reload=lambda: None) as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        os.kill(os.getpid(), signal.SIGHUP)
        said = await manager.hear("READY=1") + await manager.hear("READY=1")
        await trio.sleep(1.1)
        activation.stop()
        said += manager.heard()
    assert {line.partition("=")[0] for line in said} == {
        *("READY", "RELOADING", "MONOTONIC_USEC", "EXTEND_TIMEOUT_USEC")
    }
    assert len([line for line in caplog.messages if "SYSTEMD_EXEC_PID" in line]) == 1


async def test_ready_is_said_once_by_several_in_one_process(manager: Manager) -> None:
    async with serving(), serving():
        assert manager.heard().count("READY=1") == 1
