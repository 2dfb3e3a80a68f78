"""The daemon's side of the descriptor store: what is left with the manager, and found again."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import activation
from activation import _store
from activation._files import passed_before
from tests.children import no_leak, output

if TYPE_CHECKING:
    from collections.abc import Iterator

STORED = "activation.stored_state('state')"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[activation.NotifyReceiver]:
    with activation.NotifyReceiver() as receiver:
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
        yield receiver
    for memfd in _store._states.values():
        os.close(memfd)
    _store._states.clear()
    passed_before().clear()


def told(receiver: activation.NotifyReceiver) -> tuple[tuple[str, ...], list[int]]:
    message = receiver.receive_nowait()
    assert message
    return message.assignments, message.fds


def stored(receiver: activation.NotifyReceiver) -> int:
    """The descriptor of the one message that the manager got."""
    (_, (fd,)) = told(receiver)
    assert receiver.receive_nowait() is None
    return fd


def test_descriptors_go_under_a_name(receiver: activation.NotifyReceiver) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert activation.store("session 1", ours, theirs.fileno())
        words, fds = told(receiver)
        assert words == ("FDSTORE=1", "FDNAME=session 1")
        assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(end.fileno()).st_ino for end in (ours, theirs)]
        for fd in fds:
            os.close(fd)


def test_what_hangs_up_is_kept_if_the_manager_is_not_to_poll_it(receiver: activation.NotifyReceiver) -> None:
    with socket.socket() as sock:
        assert activation.store("x", sock, poll=False)
    words, (fd,) = told(receiver)
    os.close(fd)
    assert words == ("FDSTORE=1", "FDNAME=x", "FDPOLL=0")


def test_more_than_fit_in_a_message_go_in_several(receiver: activation.NotifyReceiver) -> None:
    with socket.socket() as sock:
        assert activation.store("x", *[sock] * 600)
    counts = []
    for _ in range(3):
        words, fds = told(receiver)
        assert words == ("FDSTORE=1", "FDNAME=x")
        counts.append(len(fds))
        for fd in fds:
            os.close(fd)
    assert counts == [253, 253, 94]
    assert receiver.receive_nowait() is None


def test_what_is_not_wanted_any_more_is_told_by_name(receiver: activation.NotifyReceiver) -> None:
    assert activation.unstore("x")
    assert told(receiver) == (("FDSTOREREMOVE=1", "FDNAME=x"), [])


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "é", "x" * 256, "\x7f"])
def test_a_name_that_the_manager_would_change_is_an_error(receiver: activation.NotifyReceiver, name: str) -> None:
    for call in (
        lambda: activation.store(name, 0),
        lambda: activation.unstore(name),
        lambda: activation.store_state(name, b""),
        lambda: activation.stored_state(name),
    ):
        with pytest.raises(ValueError, match="printable ASCII"):
            call()
    assert receiver.receive_nowait() is None


def test_nothing_cannot_be_stored() -> None:
    with pytest.raises(ValueError, match="no descriptors"):
        activation.store("x")


def test_without_a_manager_nothing_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with no_leak():
        assert not activation.store("x", 0)
        assert not activation.unstore("x")
        assert not activation.store_state("x", b"data")
        assert activation.stored_state("x") is None


def test_a_state_is_stored_once_and_written_anew(receiver: activation.NotifyReceiver) -> None:
    assert activation.stored_state("state") is None
    assert activation.store_state("state", b"first")
    memfd = stored(receiver)
    assert activation.stored_state("state") == b"first"
    for data in (b"second", b"", b"x" * 100_000, b"last"):
        assert activation.store_state("state", data)
        assert activation.stored_state("state") == data
        assert output(f"activation.files(unset_env=False); print({STORED})", [memfd], named("state")) == str(data)
    assert receiver.receive_nowait() is None
    os.close(memfd)


def test_a_state_can_be_neither_shortened_nor_grown(receiver: activation.NotifyReceiver) -> None:
    activation.store_state("state", b"data")
    memfd = stored(receiver)
    assert fcntl.fcntl(memfd, fcntl.F_GET_SEALS) & (fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    with pytest.raises(PermissionError):
        os.ftruncate(memfd, 0)
    os.close(memfd)


def test_the_next_start_goes_on_with_the_same_memfd(receiver: activation.NotifyReceiver) -> None:
    activation.store_state("state", b"1")
    memfd = stored(receiver)
    code = """
passed = activation.files()
count = int(activation.stored_state("state"))
assert activation.store_state("state", b"%d" % (count + 1))
assert activation.listeners(passed) == activation.streams(passed) == activation.packet_conns(passed) == [None]
assert [file.name for file in passed] == ["state"]
"""
    for _ in range(3):
        output(code, [memfd], {**named("state"), "NOTIFY_SOCKET": receiver.address})
    assert activation.stored_state("state") == b"4"
    assert receiver.receive_nowait() is None  # nobody had to store anything
    os.close(memfd)


def test_a_state_that_was_removed_is_gone(receiver: activation.NotifyReceiver) -> None:
    with no_leak():
        activation.store_state("state", b"data")
        os.close(stored(receiver))
        activation.unstore("state")
        assert activation.stored_state("state") is None
        told(receiver)
    activation.store_state("state", b"new")
    os.close(stored(receiver))


def test_too_large_a_state_is_refused_and_the_old_one_stays(receiver: activation.NotifyReceiver) -> None:
    largest = bytes(16 << 20)
    activation.store_state("state", largest)
    os.close(stored(receiver))
    with pytest.raises(ValueError, match="16777217 bytes; at most 16777216"):
        activation.store_state("state", largest + b"x")
    assert activation.stored_state("state") == largest


def test_another_descriptor_of_that_name_is_no_state(receiver: activation.NotifyReceiver) -> None:
    code = """
for call in (lambda: activation.stored_state("state"), lambda: activation.store_state("state", b"")):
    try:
        call()
    except activation.ActivationError as error:
        print(error)
"""
    with socket.socket() as sock:
        printed = output(code, [sock], named("state")).splitlines()
    assert len(printed) == 2
    assert all("came under the name 'state' and is no stored state" in line for line in printed)


def test_a_layout_of_another_version_is_refused(receiver: activation.NotifyReceiver) -> None:
    activation.store_state("state", b"data")
    memfd = stored(receiver)
    os.pwrite(memfd, b"\x02", 8)
    code = f"""
try:
    {STORED}
except activation.ActivationError as error:
    print(error)
"""
    assert "has layout 2, and this version reads layout 1 only" in output(code, [memfd], named("state"))
    os.close(memfd)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=10))
def test_what_is_read_is_what_was_written_last(states: list[bytes]) -> None:
    memfd = _store._new_memfd("test")
    try:
        assert _store._read(memfd) == b""
        for data in states:
            _store._write(memfd, data)
            assert _store._read(memfd) == data
    finally:
        os.close(memfd)


# Each state is a number and so many bytes of it: half of an old one and half of a new one would not fit.
WRITE = """
import activation
number = int((activation.stored_state("state") or b"0").split(b" ")[0])
while True:
    number += 1
    activation.store_state("state", b"%d %s" % (number, bytes([number % 251]) * (number * 7919 % 200_000)))
"""


def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new_one(receiver: activation.NotifyReceiver) -> None:
    activation.store_state("state", b"0 ")
    memfd = stored(receiver)
    seen: list[int] = []
    for round_ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", EXEC + WRITE, str(memfd)],
            pass_fds=[memfd],
            env={**os.environ, "NOTIFY_SOCKET": receiver.address},
        )
        number = seen[-1] if seen else 0
        while int((activation.stored_state("state") or b"").split(b" ")[0]) < number + 3:
            time.sleep(0.001)
        time.sleep(round_ * 0.0007)
        process.send_signal(signal.SIGKILL)
        process.wait()
        head, _, rest = (activation.stored_state("state") or b"").partition(b" ")
        assert rest == bytes([int(head) % 251]) * (int(head) * 7919 % 200_000)
        seen.append(int(head))
    assert seen == sorted(set(seen))
    os.close(memfd)


EXEC = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="state")
"""


def named(name: str) -> dict[str, str]:
    return {"LISTEN_PID": "self", "LISTEN_FDS": "1", "LISTEN_FDNAMES": name}
