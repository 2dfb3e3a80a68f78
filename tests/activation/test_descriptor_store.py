"""A manager's store: what is kept, under which name, and what drops out."""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import activation
from activation import DescriptorStore, Notification, _same_file
from activation._occasional import INTERVAL
from tests.children import no_leak, open_descriptors
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store() -> Iterator[DescriptorStore]:
    with no_leak(), DescriptorStore(4) as store:
        yield store


def pair() -> tuple[socket.socket, int]:
    """A socket, and the descriptor of its other side."""
    ours, theirs = socket.socketpair()
    return ours, theirs.detach()


def names(store: DescriptorStore) -> list[str]:
    return [name for name, _ in store.files()]


def told(*assignments: str, fds: list[int] | None = None) -> Notification:
    return Notification(assignments, fds or [], os.getpid(), 0, 0)


def test_it_keeps_descriptors_in_order_under_their_names(store: DescriptorStore) -> None:
    one, two = pair(), pair()
    with one[0], two[0]:
        assert store.add([one[1]], "one") == 1
        assert store.add([two[1]]) == 1
        assert store.files() == [("one", one[1]), ("stored", two[1])]
        assert len(store) == 2


def test_the_same_open_file_is_kept_once(store: DescriptorStore) -> None:
    ours, theirs = pair()
    with ours:
        assert store.add([theirs, os.dup(theirs)], "a") == 1
        assert store.add([os.dup(theirs)], "b") == 0
        assert names(store) == ["a"]


def test_two_openings_of_one_file_are_two(store: DescriptorStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert store.add([os.open(tmp_path / "file", os.O_RDONLY) for _ in range(2)], "file") == 2


def test_both_ends_of_a_pipe_are_two(store: DescriptorStore) -> None:
    assert store.add(os.pipe(), "pipe", poll=False) == 2


def test_more_than_the_maximum_is_closed_with_a_warning(
    store: DescriptorStore, caplog: pytest.LogCaptureFixture
) -> None:
    sockets = [pair() for _ in range(6)]
    assert store.add([theirs for _, theirs in sockets], "many") == 4
    assert len(store) == 4
    assert "'many' is not kept: the store is full with 4" in caplog.text
    for ours, _ in sockets[4:]:
        assert ours.recv(1) == b""
    for ours, _ in sockets:
        ours.close()


def test_a_full_store_warns_once_a_minute_and_says_how_often_it_did_not(
    store: DescriptorStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([os.eventfd(0) for _ in range(100)], "many")
    for _ in range(50):
        store.take(told("FDSTORE=1", "FDNAME=a:b", fds=[os.eventfd(0)]))
    assert len(store) == 4
    assert len(caplog.messages) == 2  # one of each kind
    later = time.monotonic() + INTERVAL
    monkeypatch.setattr(time, "monotonic", lambda: later)
    store.add([os.eventfd(0)], "one")
    assert caplog.messages[2] == "the descriptor 'one' is not kept: the store is full with 4; 145 more like this before"


def test_thousands_of_descriptors_of_one_inode_take_no_more_than_a_few_comparisons_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    comparisons, real = 0, _same_file._order

    def order(one: int, other: int) -> int:
        nonlocal comparisons
        comparisons += 1
        return real(one, other)

    monkeypatch.setattr(_same_file, "_order", order)
    with no_leak(), DescriptorStore(3000) as store:
        fds = [os.eventfd(0) for _ in range(3000)]
        random.shuffle(fds)
        assert store.add(fds) == 3000
        copies = [os.dup(fd) for fd in fds]
        assert store.add(copies) == 0
        assert store.files() == [("stored", fd) for fd in fds]
        assert comparisons < 6000 * 13
        assert store.remove("stored") == 3000


def test_where_files_cannot_be_compared_sockets_are_and_nothing_else_is_dropped(
    store: DescriptorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_same_file, "_KCMP_CALL", None)
    ours, theirs = pair()
    with ours:
        assert store.add([theirs, os.dup(theirs)], "socket") == 1
        assert store.add([os.eventfd(0), os.eventfd(0)], "event") == 2


def test_what_was_removed_can_be_stored_again(store: DescriptorStore) -> None:
    fd = os.eventfd(0)
    for _ in range(3):
        assert store.add([os.dup(fd)], "again") == 1
        assert store.remove("again") == 1
    os.close(fd)


def test_remove_closes_all_of_that_name(store: DescriptorStore) -> None:
    one, two, three = pair(), pair(), pair()
    store.add([one[1], two[1]], "a")
    store.add([three[1]], "b")
    assert store.remove("a") == 2
    assert store.remove("a") == 0
    assert names(store) == ["b"]
    assert one[0].recv(1) == b""
    for ours, _ in (one, two, three):
        ours.close()


async def test_what_hangs_up_drops_out_while_it_is_watched(store: DescriptorStore, nursery: trio.Nursery) -> None:
    leaving, staying = pair(), pair()
    store.add([leaving[1], staying[1]], "connection")
    nursery.start_soon(store.watch)
    await trio.testing.wait_all_tasks_blocked()
    leaving[0].close()
    with trio.fail_after(LIMIT):
        while len(store) > 1:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert store.files() == [("connection", staying[1])]
    nursery.cancel_scope.cancel()
    staying[0].close()


def test_what_hung_up_is_never_given_back(store: DescriptorStore) -> None:
    ours, theirs = pair()
    store.add([theirs], "connection")
    ours.close()
    assert store.files() == []


def test_poll_false_keeps_what_hangs_up(store: DescriptorStore) -> None:
    ours, theirs = pair()
    store.add([theirs], "connection", poll=False)
    ours.close()
    assert names(store) == ["connection"]


def test_a_file_cannot_hang_up(store: DescriptorStore, tmp_path: Path) -> None:
    store.add([os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)], "file")
    assert names(store) == ["file"]


@pytest.mark.parametrize(
    ("assignments", "name"),
    [
        (["FDSTORE=1", "FDNAME=x"], "x"),
        (["FDNAME=x", "READY=1", "FDSTORE=1"], "x"),
        (["FDSTORE=1", "FDNAME=a b"], "a b"),
        (["FDSTORE=1"], "stored"),
        (["FDSTORE=1", "FDNAME=a:b"], "stored"),
        (["FDSTORE=1", "FDNAME=" + "x" * 256], "stored"),
    ],
)
def test_a_message_stores_its_descriptors(store: DescriptorStore, assignments: list[str], name: str) -> None:
    ours, theirs = pair()
    with ours:
        message = told(*assignments, fds=[theirs])
        assert store.take(message)
        assert (message.fds, store.files()) == ([], [(name, theirs)])


def test_a_message_keeps_what_hangs_up_if_it_says_so(store: DescriptorStore) -> None:
    ours, theirs = pair()
    assert store.take(told("FDSTORE=1", "FDPOLL=0", fds=[theirs]))
    ours.close()
    assert names(store) == ["stored"]


def test_a_message_removes_by_name(store: DescriptorStore, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = pair()
    store.add([theirs], "x")
    assert store.take(told("FDSTOREREMOVE=1"))
    assert "without a valid FDNAME" in caplog.text
    assert names(store) == ["x"]
    assert store.take(told("FDSTOREREMOVE=1", "FDNAME=x"))
    assert names(store) == []
    ours.close()


def test_another_message_is_not_taken(store: DescriptorStore) -> None:
    ours, theirs = pair()
    message = told("READY=1", fds=[theirs])
    assert not store.take(message)
    assert message.fds == [theirs]
    message.close()
    ours.close()


def test_a_store_of_nothing_keeps_nothing(caplog: pytest.LogCaptureFixture) -> None:
    before = open_descriptors()
    with DescriptorStore(0) as store:
        ours, theirs = pair()
        assert store.add([theirs]) == 0
        ours.close()
    assert open_descriptors() == before


async def test_what_a_daemon_stores_comes_back_at_its_next_start(store: DescriptorStore) -> None:
    storing = "import activation; activation.notify('FDSTORE=1', 'FDNAME=state', fds=[3])"
    using = "import activation, os; [file] = activation.files(); os.write(file.fileno(), file.name.encode())"
    ours, theirs = pair()
    with activation.NotifyReceiver() as receiver, ours:
        env = {**os.environ, "NOTIFY_SOCKET": receiver.address}
        process = await activation.open_process([sys.executable, "-c", storing], [("passed", theirs)], env=env)
        os.close(theirs)
        assert await process.wait() == 0
        message = receiver.receive_nowait()
        assert message
        assert store.take(message)
        process = await activation.open_process([sys.executable, "-c", using], store.files())
        assert await process.wait() == 0
        assert ours.recv(100) == b"state"
