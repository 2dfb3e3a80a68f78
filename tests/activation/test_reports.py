"""What a daemon tells its manager while descriptors, memory or room in the manager's queue are short."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from activation import _notify_socket
from activation._reports import LAST_WORDS, Reports
from tests.commands import LIMIT, connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAEMON = """
import os, sys, trio, activation

async def echo(stream):
    async for data in stream:
        await stream.send_all(data)

async def main():
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(sys.argv[1])
    sock.listen(200)
    await activation.serve(echo, [trio.SocketListener(sock)], drain_timeout=0)

trio.run(main)
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket at which a service manager hears notifications."""
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with bound(tmp_path) as sock:
        yield sock


def bound(folder: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(folder / "notify"))
    sock.settimeout(LIMIT)
    return sock


def fill(sock: socket.socket) -> int:
    """Send until the manager's queue is full; return how many messages that took."""
    count = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        while True:
            try:
                sender.sendto(b"X=1", sock.getsockname())
            except BlockingIOError:
                return count
            count += 1


async def heard(sock: socket.socket, count: int) -> list[str]:
    """Receive so many messages."""
    messages: list[str] = []
    with trio.fail_after(LIMIT):
        while len(messages) < count:
            await trio.lowlevel.wait_readable(sock)
            messages.append(sock.recv(4096).decode())
    return messages


@pytest.mark.parametrize("imports", ["normal", "all"])
def test_the_watchdog_and_the_end_are_told_when_clients_have_taken_every_descriptor(
    manager: socket.socket, tmp_path: Path, imports: str
) -> None:
    path = tmp_path / "sock"
    command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-c", DAEMON, str(path)]
    # Imports that Python 3.15 puts off until they are needed could not be made then.
    env = {**os.environ, "WATCHDOG_USEC": "1000000", "PYTHON_LAZY_IMPORTS": imports}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE) as daemon, ExitStack() as stack:
        try:
            while not manager.recv(4096).startswith(b"READY=1"):
                pass
            for _ in range(80):
                stack.enter_context(connect(path))
            # What the daemon said before it ran out is read away; from then on three more in time.
            assert daemon.stderr
            assert b"cannot accept: Too many open files" in daemon.stderr.readline()
            manager.setblocking(False)
            try:
                while True:
                    manager.recv(4096)
            except BlockingIOError:
                manager.settimeout(LIMIT)
            beats = 0
            while beats < 3:
                beats += manager.recv(4096) == b"WATCHDOG=1"
            daemon.terminate()
            while manager.recv(4096) != b"STOPPING=1":
                pass
            assert daemon.wait(LIMIT) == 0
        finally:
            daemon.kill()


async def test_the_watchdog_is_told_soon_after_the_queue_was_full(manager: socket.socket) -> None:
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        count = fill(manager)
        nursery.start_soon(reports.pet_watchdog, 3600.0)  # the next period is never
        await trio.testing.wait_all_tasks_blocked()
        assert (await heard(manager, count + 1))[-1] == "WATCHDOG=1"
        nursery.cancel_scope.cancel()


async def test_what_must_arrive_arrives_in_order_and_what_was_replaced_does_not(manager: socket.socket) -> None:
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        count = fill(manager)
        reports.insist("READY=1", "STATUS=0")
        for number in range(100):
            reports.mention(f"STATUS={number}")
            reports.insist("RELOADING=1", f"MONOTONIC_USEC={number}")
            reports.insist("READY=1")
        reports.insist("STOPPING=1")
        messages = (await heard(manager, count + 5))[count:]
        assert messages == ["READY=1\nSTATUS=0", "RELOADING=1\nMONOTONIC_USEC=99", "READY=1", "STOPPING=1", "STATUS=99"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM, errno.ENFILE])
async def test_a_shortage_in_the_kernel_makes_a_message_late_and_not_lost(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    # Nothing that a test may do makes the kernel answer so on demand.
    real, failures = _notify_socket.send, [error] * 3

    def send(*arguments: object) -> None:
        if failures:
            raise OSError(failures.pop(), "short")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(_notify_socket, "send", send)
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        reports.insist("READY=1")
        assert await heard(manager, 1) == ["READY=1"]
        nursery.cancel_scope.cancel()


async def test_a_manager_that_binds_its_address_again_is_told_what_it_missed(
    manager: socket.socket, tmp_path: Path
) -> None:
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        reports.insist("READY=1")
        assert await heard(manager, 1) == ["READY=1"]
        manager.close()
        reports.insist("STOPPING=1")
        (tmp_path / "notify").unlink()
        reports.mention("STATUS=leaving")
        with bound(tmp_path) as again:
            assert await heard(again, 2) == ["STOPPING=1", "STATUS=leaving"]
        nursery.cancel_scope.cancel()


async def test_last_words_wait_for_room_in_the_queue(manager: socket.socket) -> None:
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        count = fill(manager)
        reports.insist("STOPPING=1")
        assert manager.recv(100) == b"X=1"
        await reports.last_words()
        assert (await heard(manager, count))[-1] == "STOPPING=1"
        nursery.cancel_scope.cancel()


async def test_last_words_do_not_wait_long_for_a_manager_that_does_not_read(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        fill(manager)
        reports.insist("STOPPING=1")
        began = trio.current_time()
        await reports.last_words()
        assert trio.current_time() - began == LAST_WORDS
        nursery.cancel_scope.cancel()


async def test_last_words_to_nobody_are_not_waited_for(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    manager.close()
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        reports.insist("STOPPING=1")
        began = trio.current_time()
        await reports.last_words()
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def test_a_silent_host_at_a_vsock_address_does_not_hold_up_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    # A connection there is given up after two seconds.
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock-stream:1:4000")
    reports = Reports()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports.deliver)
        reports.insist("READY=1")
        reports.mention("WATCHDOG=1")
        for _ in range(100):
            turn = time.monotonic()
            await trio.sleep(0.001)
            assert time.monotonic() - turn < 1.5
        leaving = time.monotonic()
        nursery.cancel_scope.cancel()
    assert time.monotonic() - leaving < 1.5


async def test_messages_over_vsock_streams_arrive_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel here may have no vsock loopback, so Unix stream sockets stand in for the connections.
    class Substitute(socket.socket):
        def __init__(self, *_: object) -> None:
            super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)

        def connect(self, address: object) -> None:
            assert address == (2, 1)
            super().connect(str(tmp_path / "stream"))

    monkeypatch.setenv("NOTIFY_SOCKET", "vsock-stream:2:1")
    monkeypatch.setattr(_notify_socket, "_opened", Substitute)
    monkeypatch.setattr(_notify_socket, "_kept_socket", lambda *_: None)
    monkeypatch.setattr(_notify_socket, "_keep", lambda _, __, sock: sock.close())
    reports = Reports()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "stream"))
        listener.listen(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reports.deliver)
            reports.insist("READY=1")
            reports.insist("STOPPING=1")
            reports.mention("STATUS=x")
            for message in (b"READY=1\n", b"STOPPING=1\n", b"STATUS=x\n"):
                with trio.fail_after(LIMIT):
                    await trio.lowlevel.wait_readable(listener)
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(LIMIT)
                    assert connection.recv(100) + connection.recv(100) == message
            nursery.cancel_scope.cancel()


async def test_a_forked_child_tells_nothing(manager: socket.socket) -> None:
    reports = Reports()
    reports.insist("READY=1")
    child = os.fork()
    if not child:
        status = 1
        try:
            status = reports.insist("STOPPING=1")
            reports.mention("STATUS=child")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert manager.recv(100) == b"READY=1"
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
