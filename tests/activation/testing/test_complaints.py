"""Each complaint of the kit, provoked once: what went wrong, what the daemon had told, its last lines."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import activation
from activation.testing import activated
from tests.activation.testing import daemons
from tests.children import no_leak
from tests.commands import LIMIT, command_line

if TYPE_CHECKING:
    from pathlib import Path

    from tests.activation.testing.conftest import Starts


async def test_it_ends_before_it_is_ready(started: Starts) -> None:
    with no_leak(), pytest.raises(AssertionError) as caught:
        async with activated(started("failing"), {"a": "unix"}) as daemon:
            await daemon.ready()
    message = str(caught.value)
    assert message.startswith(
        "the daemon ended with status 1 and did not tell READY=1\nit told: nothing\nits last lines:\n"
    )
    assert "RuntimeError: no such luck" in message


async def test_its_own_exception_is_the_complaints_cause() -> None:
    with pytest.raises(AssertionError) as caught:
        async with activated(daemons.failing, {"a": "unix"}) as daemon:
            await daemon.ready()
    assert isinstance(caught.value.__cause__, RuntimeError)


async def test_it_ends_before_it_is_ready_and_nobody_has_asked(started: Starts) -> None:
    with pytest.raises(AssertionError, match=r"ended with status 1 and did not tell READY=1\n(.*\n)*.*no such luck"):
        async with activated(started("failing"), {"a": "unix"}):
            pass


async def test_it_is_not_ready_in_time(started: Starts) -> None:
    with (
        no_leak(),
        pytest.raises(AssertionError, match=r"the daemon did not tell READY=1 within 0.5 seconds\nit told: "),
    ):
        async with activated(started("never_ready"), {"a": "unix"}, timeout=0.5) as daemon:
            await daemon.ready()


async def test_it_is_not_ready_at_the_end_of_the_test(autojump_clock: trio.testing.MockClock) -> None:
    with (
        no_leak(),
        pytest.raises(AssertionError, match=r"^the daemon did not tell READY=1 within 30 seconds(.*\n)*.*warming up"),
    ):
        async with activated(daemons.never_ready, {"a": "unix"}):
            pass


async def test_it_does_not_tell_what_is_waited_for(started: Starts) -> None:
    with pytest.raises(
        AssertionError, match=r"did not tell STATUS=blue within 0\.1 seconds\nit told: READY=1, STATUS=0 conn"
    ):
        async with activated(started("echoing"), {"a": "unix"}) as daemon:
            await daemon.ready()
            daemon._manager.timeout = 0.1  # its start takes as long as it takes
            await daemon.wait_told("STATUS=blue")


async def test_it_ends_before_it_tells_what_is_waited_for(started: Starts) -> None:
    with pytest.raises(AssertionError, match="the daemon ended with status 0 and did not tell STATUS=blue"):
        async with activated(started("leaving"), {"a": "unix"}) as daemon:
            await daemon.wait_told("STATUS=blue")


async def test_it_says_nothing_to_the_watchdog(started: Starts) -> None:
    with (
        no_leak(),
        pytest.raises(AssertionError, match=r"missed its watchdog (once|\d times).*WATCHDOG=1 within 0.1 s"),
    ):
        async with activated(started("silent"), {}, watchdog=0.1) as daemon:
            await daemon.ready()
            with trio.fail_after(LIMIT):
                while not daemon.watchdog_missed:
                    await trio.sleep(0.01)
    assert daemon.watchdog_missed >= 1


async def test_it_does_not_end_in_time() -> None:
    with no_leak(), pytest.raises(AssertionError, match=r"the daemon did not end after SIGTERM within 0\.1 seconds"):
        async with activated([sys.executable, "-c", DEAF], {}) as daemon:
            await daemon.ready()
            daemon._manager.timeout = 0.1
            await daemon.stop()
    assert daemon.exited == -signal.SIGKILL


DEAF = """
import signal, activation
signal.signal(signal.SIGTERM, signal.SIG_IGN)
activation.notify("READY=1")
while True:
    signal.pause()
"""


async def test_it_ends_with_another_status_than_0(started: Starts) -> None:
    with pytest.raises(AssertionError, match="the daemon ended with status 7\n"):
        async with activated(started("exiting"), {"a": "unix"}):
            pass
    with pytest.raises(AssertionError, match="ended with status 7 when the test restarted it; expected 0"):
        async with activated(started("exiting"), {"a": "unix"}) as daemon:
            await daemon.ready()
            await daemon.restart()


async def test_it_fails_when_it_has_been_ready() -> None:
    async def fail(stream: trio.SocketStream) -> None:
        raise SystemExit(5)

    with pytest.raises(AssertionError, match="the daemon ended with status 1\n"):
        async with activated(partial(activation.serve, fail), {"a": "unix"}) as daemon:
            await daemon.connect("a")
            await trio.testing.wait_all_tasks_blocked()


async def test_a_reload_that_no_manager_can_use() -> None:
    end = """
import os, signal, activation
def reload(*_):
    activation.notify("RELOADING=1", activation.monotonic_usec())
    os._exit(3)
signal.signal(signal.SIGHUP, reload)
activation.notify("READY=1")
while True:
    signal.sigtimedwait([], 0.05)
"""
    with pytest.raises(AssertionError, match="ended with status 3 and did not tell READY=1 after RELOADING=1"):
        async with activated([sys.executable, "-c", end], {}) as daemon:
            await daemon.ready()
            await daemon.reload()
    tell = """
import signal, activation
signal.signal(signal.SIGHUP, lambda *_: activation.notify("RELOADING=1") and activation.notify("READY=1"))
activation.notify("READY=1")
while True:
    signal.sigtimedwait([], 0.05)
"""
    with pytest.raises(
        AssertionError, match=r"told RELOADING=1 without MONOTONIC_USEC=; see activation.monotonic_usec"
    ):
        async with activated([sys.executable, "-c", tell], {}) as daemon:
            await daemon.ready()
            await daemon.reload()


# What is left behind


async def test_it_leaves_a_descriptor_behind() -> None:
    left: list[int] = []

    async def daemon() -> None:
        left.append(os.open(os.devnull, os.O_RDONLY))
        await daemons.echoing()

    with pytest.raises(AssertionError, match=r"ended and left behind: descriptor \d+ \(/dev/null\)\nit told: READY"):
        async with activated(daemon, {"a": "unix"}):
            pass
    os.close(left[0])


async def test_it_leaves_a_passed_socket_open() -> None:
    left: list[int] = []

    async def daemon() -> None:
        one, other = activation.files()
        left.append(other.detach())
        await activation.serve(daemons.echo, activation.listeners([one]))

    with pytest.raises(AssertionError, match=r"ended and left behind: descriptor \d+ \(socket:"):
        async with activated(daemon, {"a": "unix", "b": "tcp"}):
            pass
    os.close(left[0])


async def test_what_the_test_itself_has_open_is_no_fault_of_the_daemon() -> None:
    async with activated(daemons.echoing, {"a": "unix"}) as daemon:
        await daemon.ready()
        other = await trio.open_unix_socket(daemon.address("a"))
        await other.send_all(b"word")
        assert await other.receive_some() == b"word"
        # A thread opens something while the daemon works.
        kept = await trio.to_thread.run_sync(socket.socketpair)
        assert await daemon.stop() == 0
    assert await other.receive_some() == b""
    await other.aclose()
    for sock in kept:
        sock.close()


async def test_it_leaves_a_task_behind() -> None:
    async with trio.open_nursery() as nursery:

        async def daemon() -> None:
            nursery.start_soon(trio.sleep_forever, name="the forgotten one")
            await daemons.echoing()

        with pytest.raises(AssertionError, match="ended and left behind: the task the forgotten one\n"):
            async with activated(daemon, {"a": "unix"}):
                pass
        nursery.cancel_scope.cancel()


async def test_it_leaves_a_process_behind() -> None:
    code = """
import subprocess, activation
child = subprocess.Popen(["sleep", "1000"])
activation.notify("READY=1", f"X_CHILD={child.pid}")
"""
    with no_leak(), pytest.raises(AssertionError, match=r"left behind: a process that it started \(now killed\)"):
        async with activated([sys.executable, "-c", code], {}) as daemon:
            assert await daemon.wait_exited() == 0
            child = int((await daemon.wait_told("X_CHILD=")).partition("=")[2])
    with trio.fail_after(LIMIT):
        while command_line(child):
            await trio.sleep(0.01)


async def test_it_leaves_a_socket_of_its_own_behind(started: Starts, tmp_path: Path) -> None:
    path = str(tmp_path / "own.sk")
    with pytest.raises(AssertionError, match=f"ended and left behind: the socket {re.escape(path)}\n"):
        async with activated(started("binding"), {}, env={"OWN": path}) as daemon:
            await daemon.ready()


async def test_it_leaves_something_among_the_managers_sockets(started: Starts) -> None:
    with pytest.raises(AssertionError, match=r"ended and left behind: the path .*/pid\n"):
        async with activated(started("writing"), {"a": "unix"}) as daemon:
            path = daemon.address("a")
    assert not os.path.exists(os.path.dirname(path))


async def test_it_removes_a_path_of_the_manager(started: Starts) -> None:
    with pytest.raises(AssertionError, match=r"removed a path that belongs to the service manager.*\.sk\n"):
        async with activated(started("unlinking"), {"a": "unix"}) as daemon:
            assert await daemon.wait_exited() == 0


async def test_several_complaints_come_together(started: Starts) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(AssertionError, match="removed a path"),
        pytest.RaisesExc(AssertionError, match="missed its watchdog"),
    ):
        async with activated(started("unlinking_silently"), {"a": "unix"}, watchdog=0.05) as daemon:
            await daemon.wait_exited()


# The test's own failures


async def test_a_failure_of_the_test_is_told_as_it_is_with_what_the_daemon_told(started: Starts) -> None:
    with no_leak(), pytest.raises(ZeroDivisionError) as caught:
        async with activated(started("echoing"), {"a": "unix"}) as daemon:
            await daemon.ready()
            await daemon.connect("a")
            1 / 0  # noqa: B018
    assert "it told: READY=1, STATUS=0 connections open" in caught.value.__notes__[0]


async def test_a_test_that_is_cancelled_leaves_nothing(started: Starts) -> None:
    with no_leak():
        with trio.CancelScope() as scope:
            async with activated(started("echoing"), {"a": "unix"}) as daemon:
                await daemon.connect("a")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert daemon.exited is not None


async def test_a_command_that_cannot_be_started_is_an_os_error() -> None:
    with no_leak(), pytest.raises(FileNotFoundError):
        async with activated(["/no/such/program"], {"a": "unix"}):
            pass


async def test_messages_of_other_processes_are_not_the_daemons() -> None:
    code = """
import subprocess, sys, activation
subprocess.run([sys.executable, "-c", "import activation; activation.notify('READY=1')"])
"""
    with pytest.raises(AssertionError, match=r"process \d+ told READY=1; only the main process may: NotifyAccess=main"):
        async with activated([sys.executable, "-c", code], {}) as daemon:
            await daemon.ready()
