"""A manager's end of sd_notify: what it receives, from whom, and what it does not take."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel
import trio.testing

import activation
from activation import NotifyReceiver
from tests.children import no_leak
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifyReceiver]:
    with no_leak(), NotifyReceiver() as receiver:
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
        yield receiver


def send(receiver: NotifyReceiver, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message, "\0" + receiver.address[1:])


async def test_it_receives_what_notify_tells_and_from_whom(receiver: NotifyReceiver) -> None:
    activation.notify("READY=1", "STATUS=two words", "STATUS=again")
    told = await receiver.receive()
    assert told.assignments == ("READY=1", "STATUS=two words", "STATUS=again")
    assert (told.pid, told.uid, told.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert (told.get("STATUS"), told.get("STAT"), told.fds) == ("two words", None, [])


async def test_it_waits_and_keeps_the_order(receiver: NotifyReceiver) -> None:
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            for number in range(9):
                assert (await receiver.receive()).assignments == (f"X={number}",)

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        for number in range(9):
            activation.notify(f"X={number}")


async def test_another_process_is_told_apart(receiver: NotifyReceiver) -> None:
    with subprocess.Popen([sys.executable, "-c", "import activation; activation.notify('READY=1')"]) as child:
        told = await receiver.receive()
    assert told.pid == child.pid


def test_without_a_message_there_is_none(receiver: NotifyReceiver) -> None:
    assert receiver.receive_nowait() is None


def test_descriptors_arrive_and_are_closed_with_the_message(receiver: NotifyReceiver) -> None:
    with socket.socket() as sock:
        activation.notify("FDSTORE=1", fds=[sock, 0])
        told = receiver.receive_nowait()
        assert told
        assert os.path.sameopenfile(told.fds[0], sock.fileno())
        assert not os.get_inheritable(told.fds[0])
        told.close()
        assert told.fds == []


def test_the_most_descriptors_of_one_message(receiver: NotifyReceiver) -> None:
    activation.notify("FDSTORE=1", fds=[0] * 253)
    told = receiver.receive_nowait()
    assert told
    assert len(told.fds) == 253
    told.close()


async def test_a_barrier_is_answered_by_closing_it(receiver: NotifyReceiver) -> None:
    answered = False
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            nonlocal answered
            answered = await activation.notify_barrier(10)

        nursery.start_soon(wait)
        told = await receiver.receive()
        assert told.is_barrier
        await trio.testing.wait_all_tasks_blocked()
        assert not answered
        told.close()
    assert answered


def test_a_barrier_with_something_else_is_none(receiver: NotifyReceiver) -> None:
    send(receiver, b"BARRIER=1\nREADY=1")
    told = receiver.receive_nowait()
    assert told
    assert not told.is_barrier


@pytest.mark.parametrize(
    ("message", "why"),
    [(b"STATUS=" + b"x" * 4090, "4096 bytes"), (b"READY=1\0STATUS=x", "null character")],
    ids=["too long", "null"],
)
def test_what_systemd_drops_is_dropped_with_a_warning(
    receiver: NotifyReceiver, message: bytes, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    send(receiver, message)
    send(receiver, b"READY=1\0")
    told = receiver.receive_nowait()
    assert told
    assert told.assignments == ("READY=1",)
    assert why in caplog.text
    assert str(os.getpid()) in caplog.text


def test_no_flag_asks_for_the_length_of_what_is_too_long(
    receiver: NotifyReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket315:
        """A socket as of Python 3.15, where recvmsg() does not take a length above its buffer's."""

        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def recvmsg(self, size: int, ancillary_size: int, flags: int) -> object:
            if flags & socket.MSG_TRUNC:
                raise ValueError("the length is above the size of the buffer")
            return self._sock.recvmsg(size, ancillary_size, flags)

    monkeypatch.setattr(receiver, "_socket", Socket315(receiver._socket))
    send(receiver, b"x" * 5000)
    send(receiver, b"READY=1")
    told = receiver.receive_nowait()
    assert told
    assert told.assignments == ("READY=1",)
    monkeypatch.undo()


async def test_senders_without_end_hold_up_neither_the_loop_nor_the_log(
    receiver: NotifyReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    flood = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.connect(chr(0) + sys.argv[1][1:])
    while True:
        try:
            sock.send(b"x" * 5000)
        except ConnectionError:
            break
"""
    senders = [subprocess.Popen([sys.executable, "-c", flood, receiver.address]) for _ in range(3)]
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.receive)
            with trio.fail_after(LIMIT):
                while not caplog.messages:  # they have begun
                    await trio.sleep(0.01)
                for _ in range(100):
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert len(caplog.messages) == 1
    finally:
        for sender in senders:
            sender.kill()
            sender.wait()


def test_one_call_drops_what_a_queue_holds_and_no_more(
    receiver: NotifyReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless:
        """A socket at which bad messages arrive as fast as they are received."""

        count = 0

        def recvmsg(self, *_: object) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
            self.count += 1
            return b"x", [], socket.MSG_TRUNC, None

    endless = Endless()
    monkeypatch.setattr(receiver, "_socket", endless)
    assert receiver.receive_nowait() is None
    assert endless.count == 513
    monkeypatch.undo()


@pytest.mark.parametrize("message", [b"STATUS=" + b"x" * 4089, b"", b"\n\n", b"\xff\xfe", b"no assignment"])
def test_odd_messages_are_the_callers_to_judge(receiver: NotifyReceiver, message: bytes) -> None:
    send(receiver, message)
    told = receiver.receive_nowait()
    assert told
    assert os.fsencode("".join(told.assignments)) == message.strip(b"\n")


def test_a_path_may_be_written_by_every_user_and_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    with NotifyReceiver(str(path)) as receiver:
        assert receiver.address == str(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
        assert activation.notify("READY=1")
        assert receiver.receive_nowait()
    assert not path.exists()
    receiver.close()


def test_a_bound_socket_can_be_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "notify"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    with NotifyReceiver(fileno=sock.detach()) as receiver:
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
        activation.notify("READY=1")
        told = receiver.receive_nowait()
        assert told
        assert told.pid == os.getpid()
    assert path.is_socket()


def test_a_path_and_a_descriptor_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a path and a descriptor to receive at; expected one of them"):
        NotifyReceiver(str(tmp_path / "notify"), fileno=0)


@pytest.mark.parametrize("kind", ["a file", "a stream", "an unbound socket", "an internet socket", "none"])
def test_what_cannot_be_received_at_stays_the_callers(kind: str) -> None:
    made = {
        "a file": lambda: os.open(os.devnull, os.O_RDONLY),
        "a stream": lambda: socket.socket(socket.AF_UNIX).detach(),
        "an unbound socket": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
        "an internet socket": lambda: socket.socket(type=socket.SOCK_DGRAM).detach(),
        "none": lambda: 1 << 20,
    }
    number = made[kind]()
    with pytest.raises(ValueError, match=f"descriptor {number} cannot be received at; expected a bound Unix socket"):
        NotifyReceiver(fileno=number)
    if kind != "none":
        os.close(number)


def test_it_can_be_waited_for_and_shown(receiver: NotifyReceiver) -> None:
    with select.epoll() as poll:
        poll.register(receiver, select.EPOLLIN)
        assert poll.poll(0) == []
        activation.notify("READY=1")
        assert poll.poll(0) == [(receiver.fileno(), select.EPOLLIN)]
    assert repr(receiver.receive_nowait()) == f"<Notification ('READY=1',) fds=[] of pid {os.getpid()}>"


def test_a_path_that_cannot_be_bound_leaks_nothing(tmp_path: Path) -> None:
    with no_leak(), pytest.raises(OSError, match="No such file"):
        NotifyReceiver(str(tmp_path / "missing" / "notify"))


def test_descriptors_beyond_the_limit_are_dropped_and_not_leaked() -> None:
    code = """
import os, resource, activation
with activation.NotifyReceiver() as receiver:
    os.environ["NOTIFY_SOCKET"] = receiver.address
    activation.notify("FDSTORE=1", fds=[0] * 20)
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))
    activation.notify("READY=1")
    told = receiver.receive_nowait()
    assert told.assignments == ("READY=1",), told
    assert os.open("/dev/null", 0) < 8
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    assert "ulimit -n" in done.stderr


def test_receiving_needs_no_trio_before_it_waits() -> None:
    code = """
import sys, os, activation
with activation.NotifyReceiver() as receiver:
    os.environ["NOTIFY_SOCKET"] = receiver.address
    activation.notify("READY=1")
    assert receiver.receive_nowait()
assert not {"trio", "attr", "attrs"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], timeout=LIMIT, check=True)
