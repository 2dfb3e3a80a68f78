from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from activation_cmd.socket_activate.processes import table
from activation_cmd.socket_activate.processes.executor import Executor
from activation_cmd.socket_activate.processes.forker import Forker
from activation_cmd.socket_activate.processes.start import IDENTITY, Start

from tests.children import open_descriptors
from tests.commands import LIMIT, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from activation_cmd.socket_activate.processes.executor import Forked


_others: set[int] = set()
"""What this process had as children before, of other tests."""


@pytest.fixture
def executor() -> Iterator[Executor]:
    _others.clear()
    _others.update(children())
    with Executor() as executor:
        yield executor
        executor.end_ahead()
        for pid in {*children()} - _others - {executor.pid}:
            os.waitpid(pid, 0)


def children() -> list[int]:
    lists = [file.read_text() for file in Path("/proc/self/task").glob("*/children")]
    return [int(number) for text in lists for number in text.split()]


def start(*command: str, triggers: list[int] | None = None) -> Start:
    return Start(command[0], command, {**os.environ, IDENTITY: os.urandom(4).hex()}, triggers=triggers or [])


def end(forked: Forked) -> tuple[int, bytes]:
    """The status of a child that has ended, and what it said of its start."""
    with forked.channel:
        forked.channel.settimeout(LIMIT)
        try:
            message = forked.channel.recv(1000)
        except ConnectionResetError:
            message = b""
    os.close(forked.memory)
    _, status = os.waitpid(forked.pid, 0)
    return os.waitstatus_to_exitcode(status), message


def ahead(executor: Executor, *, waiting: bool = True) -> int:
    """The number of the child that is forked ahead, as soon as there is one, or as soon as it waits."""
    found: list[int] = []

    def is_there() -> bool:
        mine = [each for pid in {*children()} - _others - {executor.pid} if (each := table.process(pid))]
        found[:] = [each.pid for each in mine if each.state != "Z"]
        return bool(found)

    eventually(is_there, "a child is forked ahead")
    (pid,) = found
    if not waiting:
        return pid
    # Where the executor has its socket, the child has its channel. Before it waits, it has more.
    eventually(
        lambda: len(open_descriptors(pid)) == len(open_descriptors(executor.pid)), "it has closed what is not its own"
    )
    return pid


def test_a_start_gets_the_child_that_was_forked_ahead(executor: Executor) -> None:
    assert end(executor.fork([start("true")], at_once=True)) == (0, b"")
    for _ in range(3):
        before = ahead(executor)
        forked = executor.fork([start("false")], at_once=True)
        assert forked.pid == before
        assert end(forked) == (1, b"")


def test_the_child_ahead_ends_when_it_is_not_needed_any_more(executor: Executor) -> None:
    end(executor.fork([start("true")], at_once=True))
    pid = ahead(executor)
    executor.end_ahead()
    assert os.waitpid(pid, 0) == (pid, 0)
    assert end(executor.fork([start("false")], at_once=True)) == (1, b"")


@pytest.mark.parametrize("reaped", [True, False])
def test_a_child_ahead_that_was_killed_is_passed_over(executor: Executor, reaped: bool) -> None:
    for _ in range(20):
        end(executor.fork([start("true")], at_once=True))
        killed = ahead(executor)
        os.kill(killed, signal.SIGKILL)
        os.waitid(os.P_PID, killed, os.WEXITED if reaped else os.WEXITED | os.WNOWAIT)
        forked = executor.fork([start("false")], at_once=True)
        assert forked.pid != killed
        assert end(forked) == (1, b"")
        if not reaped:
            os.waitpid(killed, 0)


def test_a_child_that_is_killed_at_any_moment_starts_or_does_not_and_the_next_one_does(executor: Executor) -> None:
    chance = random.Random(7)
    statuses: list[int] = []
    for _ in range(100):
        end(executor.fork([start("true")], at_once=True))
        pid = ahead(executor, waiting=False)
        with killed_after(pid, chance.uniform(0, 0.004)):
            threading.Event().wait(chance.uniform(0, 0.004))
            forked = executor.fork([start("true")], at_once=True)
            status, message = end(forked)
            assert message == b""
            statuses.append(status)
            assert status == (0 if forked.pid != pid else status)
        if forked.pid != pid:
            os.waitpid(pid, 0)
        assert end(executor.fork([start("false")], at_once=True)) == (1, b"")
    assert set(statuses) <= {0, -signal.SIGKILL}


@contextmanager
def killed_after(pid: int, seconds: float) -> Iterator[None]:
    over = threading.Event()

    def kill() -> None:
        over.wait(seconds)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # its number may be another's by now
        except ProcessLookupError:
            pass

    pidfd = os.pidfd_open(pid)
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join(LIMIT)
        os.close(pidfd)


def test_without_the_executor_nothing_starts_though_a_child_is_ahead(executor: Executor) -> None:
    end(executor.fork([start("true")], at_once=True))
    pid = ahead(executor)
    os.kill(executor.pid, signal.SIGKILL)
    os.waitpid(executor.pid, 0)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        executor.fork([start("false")], at_once=True)
    assert os.waitpid(pid, 0) == (pid, 0)


@pytest.mark.parametrize("last", [False, True])
def test_a_start_may_have_more_descriptors_than_a_message(executor: Executor, last: bool) -> None:
    with ExitStack() as stack:
        pairs = [stack.enter_context(both) for _ in range(300) for both in socket.socketpair()]
        forked = executor.fork([start("true", triggers=[sock.fileno() for sock in pairs[::2]])], at_once=False)
        pairs[-1 if last else 1].send(b"x")
        assert end(forked) == (0, b"")


def test_a_start_with_too_many_descriptors_fails_and_says_so() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, limits[1]))
        try:
            executor = stack.enter_context(Executor())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        pairs = [stack.enter_context(both) for _ in range(100) for both in socket.socketpair()]
        forked = executor.fork([start("true", triggers=[sock.fileno() for sock in pairs])], at_once=False)
        assert end(forked) == (203, b"cannot start: Too many open files")
        assert end(executor.fork([start("false")], at_once=True)) == (1, b"")


def test_a_child_that_has_not_begun_its_session_yet_is_one_to_end() -> None:
    orders, other = socket.socketpair()
    with orders, other, subprocess.Popen(["sleep", "1000"]) as child:
        executor = Forker(orders)
        executor._sessions[child.pid] = frozenset()
        try:
            assert executor._members() == {child.pid}
        finally:
            child.kill()
