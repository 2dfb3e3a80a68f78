from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
import trio

import activation
from activation import _notify_socket
from tests.children import no_leak, open_descriptors, tcp_listener
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket at which a service manager hears notifications."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path if request.param == "path" else f"\0{path}")
        sock.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", path if request.param == "path" else f"@{path}")
        yield sock


def test_assignments_come_in_one_message(manager: socket.socket) -> None:
    with no_leak():
        assert activation.notify(activation.READY, "STATUS=Grüße", "MAINPID=7") is True
    assert manager.recv(1000) == "READY=1\nSTATUS=Grüße\nMAINPID=7".encode()


def test_the_constants_are_the_assignments_of_the_protocol() -> None:
    constants = (activation.READY, activation.STOPPING, activation.RELOADING, activation.WATCHDOG)
    assert constants == ("READY=1", "STOPPING=1", "RELOADING=1", "WATCHDOG=1")


def test_descriptors_go_with_a_message(manager: socket.socket) -> None:
    with no_leak(), tcp_listener() as tcp:
        assert activation.notify("FDSTORE=1", "FDNAME=web", fds=[tcp, 0])
        message, numbers, _, _ = socket.recv_fds(manager, 1000, 10)
        assert message == b"FDSTORE=1\nFDNAME=web"
        assert [os.fstat(number).st_ino for number in numbers] == [os.fstat(tcp.fileno()).st_ino, os.fstat(0).st_ino]
        for number in numbers:
            os.close(number)


def test_as_many_descriptors_as_the_kernel_takes_fit_and_no_more(manager: socket.socket) -> None:
    with no_leak():
        assert activation.notify("FDSTORE=1", fds=[0] * 253)
        _, numbers, _, _ = socket.recv_fds(manager, 1000, 300)
        assert len(numbers) == 253
        for number in numbers:
            os.close(number)
        with pytest.raises(ValueError, match="254 descriptors are too many"):
            activation.notify("FDSTORE=1", fds=[0] * 254)


@pytest.mark.parametrize("assignment", ["STATUS=two\nlines", "READY=1\n", "nothing", "=1", "", "\nA=1"])
def test_what_would_be_another_message_is_refused_and_nothing_is_sent(manager: socket.socket, assignment: str) -> None:
    with pytest.raises(ValueError, match="cannot be told; expected NAME=value without a newline"):
        activation.notify("READY=1", assignment)
    with pytest.raises(ValueError, match="nothing to tell"):
        activation.notify()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_without_a_manager_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert activation.notify("READY=1") is False
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    assert activation.notify("READY=1") is False


def test_an_unreachable_manager_is_an_error_that_names_the_address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for address in (f"{tmp_path}/none", f"@{tmp_path}", f"{tmp_path}/{'x' * 200}"):
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        with no_leak(), pytest.raises(OSError, match="cannot tell the service manager") as caught:
            activation.notify("READY=1")
        assert caught.value.filename == address


@pytest.mark.parametrize(
    "address",
    [
        "relative/path",
        "@",
        "/",
        "vsock:",
        "vsock:2",
        "vsock:x:1",
        "vsock:4294967295:1",
        "vsock-raw:2:1",
        "tcp:1",
        "x" * 999,
    ],
)
def test_an_address_of_no_known_form_is_named(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(activation.ActivationError, match=r"NOTIFY_SOCKET is .*; expected a path from /, @abstract"):
        activation.notify("READY=1")


@pytest.mark.parametrize("kind", ["vsock", "vsock-stream", "vsock-dgram", "vsock-seqpacket"])
def test_vsock_addresses_are_tried_as_the_kind_they_say(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    # There is nobody at port 1 of the host: it is the attempt that can be seen, and that it names the address.
    monkeypatch.setenv("NOTIFY_SOCKET", f"{kind}:2:1")
    with no_leak(), pytest.raises(OSError, match="cannot tell the service manager") as caught:
        activation.notify("READY=1")
    assert caught.value.filename == f"{kind}:2:1"
    with pytest.raises(ValueError, match="only a Unix socket carries them"):
        activation.notify("READY=1", fds=[0])


def test_a_message_over_a_vsock_stream_ends_with_a_newline(monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel here may have no vsock loopback, so a Unix stream socket stands in for the connection.
    ours, theirs = socket.socketpair()
    theirs_number = theirs.detach()
    monkeypatch.setenv("NOTIFY_SOCKET", "vsock-stream:2:1")
    monkeypatch.setattr("activation._notify_socket._opened", lambda *_: _Connected(theirs_number))
    assert activation.notify("READY=1", "STATUS=x")
    with ours:
        assert ours.recv(100) == b"READY=1\nSTATUS=x\n"


class _Connected(socket.socket):
    def __init__(self, number: int) -> None:
        super().__init__(fileno=number)

    def connect(self, address: object) -> None:
        assert address == (2, 1)


@pytest.mark.parametrize("unset", [True, False])
def test_the_variable_is_unset_only_on_demand_and_then_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, unset: bool
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/none")
    with pytest.raises(OSError, match="cannot tell"):
        activation.notify("READY=1", unset_env=unset)
    assert ("NOTIFY_SOCKET" in os.environ) is not unset
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/none")
    with pytest.raises(ValueError, match="cannot be told"):
        activation.notify("bad", unset_env=unset)
    assert ("NOTIFY_SOCKET" in os.environ) is not unset


def test_monotonic_usec_is_the_time_of_now() -> None:
    before = time.monotonic_ns() // 1000
    name, _, value = activation.monotonic_usec().partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 30.0),
        ("1500000", "self", 1.5),
        ("1500000", "1", None),
        (None, "nonsense", None),
        (None, None, None),
        (None, "self", None),
    ],
)
def test_the_watchdogs_time_is_in_seconds(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, seconds: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert activation.watchdog_enabled() == seconds
    assert activation.watchdog_enabled(unset_env=True) == seconds
    assert "WATCHDOG_USEC" not in os.environ
    assert "WATCHDOG_PID" not in os.environ


@pytest.mark.parametrize(
    ("name", "value"),
    [("WATCHDOG_USEC", v) for v in ("0", "-1", "1s", " 1", "", str((1 << 64) - 1))] + [("WATCHDOG_PID", "x")],
)
def test_a_watchdog_variable_that_cannot_be_true_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setenv(name, value)
    with pytest.raises(activation.ActivationError, match=f"{name} is {value!r}; expected"):
        activation.watchdog_enabled(unset_env=True)
    assert "WATCHDOG_USEC" not in os.environ


@pytest.mark.parametrize("value", ["0", "nonsense"])
def test_a_bad_watchdog_time_is_an_error_for_another_process_too(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", value)
    monkeypatch.setenv("WATCHDOG_PID", "1")
    with pytest.raises(activation.ActivationError, match=f"WATCHDOG_USEC is {value!r}; expected"):
        activation.watchdog_enabled()


async def test_a_barrier_ends_when_the_manager_has_come_to_it(manager: socket.socket) -> None:
    with no_leak():
        done = False

        async def barrier() -> None:
            nonlocal done
            done = await activation.notify_barrier(10)

        activation.notify("STATUS=before")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(barrier)
            await trio.testing.wait_all_tasks_blocked()
            assert manager.recv(100) == b"STATUS=before"
            message, numbers, _, _ = socket.recv_fds(manager, 100, 10)
            assert (message, len(numbers)) == (b"BARRIER=1", 1)
            await trio.testing.wait_all_tasks_blocked()
            assert not done
            os.close(numbers[0])
        assert done


async def test_a_barrier_that_nobody_answers_ends_in_time(manager: socket.socket) -> None:
    assert activation.notify("A=1")  # opens the socket to the manager, which stays
    assert manager.recv(100) == b"A=1"
    before = open_descriptors()
    assert await activation.notify_barrier(0.01) is False
    assert open_descriptors() == before
    assert manager.recv(100) == b"BARRIER=1"


async def test_a_barrier_without_a_manager_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with no_leak():
        assert await activation.notify_barrier(10) is False


def test_telling_loads_neither_trio_nor_attrs() -> None:
    code = """
import sys, activation
activation.notify(activation.READY); activation.watchdog_enabled(); activation.monotonic_usec()
print({"trio", "attr", "attrs"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


# The socket that is kept


@pytest.fixture
def nothing_kept() -> Iterator[None]:
    _notify_socket.close()
    yield
    _notify_socket.close()


def kept() -> list[int]:
    return [number for (pid, _, _), (number, _, _) in _notify_socket._kept.items() if pid == os.getpid()]


def test_one_socket_serves_all_messages_and_is_closed_on_exec(nothing_kept: None, manager: socket.socket) -> None:
    for number in range(5):
        activation.notify(f"X={number}")
    (descriptor,) = kept()
    assert not os.get_inheritable(descriptor)
    assert [manager.recv(100) for _ in range(5)] == [f"X={number}".encode() for number in range(5)]


def test_it_tells_although_no_descriptor_can_be_opened(nothing_kept: None, manager: socket.socket) -> None:
    activation.notify("READY=1")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            socket.socket()
        assert activation.notify("WATCHDOG=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [manager.recv(100) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]


def test_a_manager_that_binds_its_address_again_is_reached(
    nothing_kept: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(3):
        path = str(tmp_path / f"notify{number // 2}")
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(path)
            activation.notify(f"X={number}")
            assert sock.recv(100) == f"X={number}".encode()
        os.unlink(path)


def test_a_number_that_has_become_another_files_is_left_alone(nothing_kept: None, manager: socket.socket) -> None:
    activation.notify("X=1")
    (descriptor,) = kept()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        os.dup2(ours.fileno(), descriptor)  # as after os.closerange()
        try:
            activation.notify("X=2")
            assert kept() != [descriptor]
            assert [manager.recv(100) for _ in range(2)] == [b"X=1", b"X=2"]
            theirs.setblocking(False)
            with pytest.raises(BlockingIOError):
                theirs.recv(100)
        finally:
            os.close(descriptor)


def test_a_forked_child_opens_its_own(nothing_kept: None, manager: socket.socket) -> None:
    activation.notify("X=parent")
    parents = kept()
    child = os.fork()
    if not child:
        status = 1
        try:
            activation.notify("X=child")
            status = int(kept() == parents)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert kept() == parents
    assert [manager.recv(100) for _ in range(2)] == [b"X=parent", b"X=child"]


def test_it_does_not_stay_where_a_standard_stream_belongs(manager: socket.socket) -> None:
    code = """
import os, activation
os.close(0)
activation.notify("X=1")
try:
    os.fstat(0)
except OSError:
    activation.notify("X=free")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=LIMIT)
    assert [manager.recv(100) for _ in range(2)] == [b"X=1", b"X=free"]


def test_unset_env_closes_it(nothing_kept: None, manager: socket.socket) -> None:
    activation.notify("X=1", unset_env=True)
    assert kept() == []


def test_nothing_is_said_of_it_at_the_interpreters_end(manager: socket.socket) -> None:
    code = "import activation; activation.notify('X=1')"
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], check=True, timeout=LIMIT, capture_output=True)
    assert done.stderr == b""


def test_threads_share_it(nothing_kept: None, manager: socket.socket) -> None:
    threads = [threading.Thread(target=activation.notify, args=(f"X={number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    assert {manager.recv(100) for _ in threads} == {f"X={number}".encode() for number in range(8)}
    for thread in threads:
        thread.join()
    (descriptor,) = kept()
    assert list(open_descriptors().values()).count(open_descriptors()[descriptor]) == 1
