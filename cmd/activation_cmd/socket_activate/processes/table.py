"""What the kernel tells of processes, in /proc. Standard library only: the executor lives in this."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


class Process(NamedTuple):
    """One line of /proc/PID/stat, proc(5)."""

    pid: int
    state: str
    parent: int
    session: int


def process(pid: int) -> Process | None:
    """What there is to know of a process; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            status = file.read()
    except OSError:
        return None
    # The name stands in parentheses and may have any character itself.
    state, parent, _, session = status[status.rindex(b")") + 2 :].split()[:4]
    return Process(pid, state.decode(), int(parent), int(session))


def running() -> Iterator[Process]:
    """All processes but those that have ended and only wait to be reaped."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return  # there is none, or no descriptor is left to look
    for name in names:
        if name.isdecimal() and (found := process(int(name))) and found.state not in "ZX":
            yield found


def descendants(ancestor: int, without: Collection[int] = ()) -> Iterator[Process]:
    """The processes that one has started, and theirs; those that have ended are left out, but not what they started.

    Args:
        without: leave these out, and what they started.
    """
    for pid in _children(ancestor):
        if pid not in without and (found := process(pid)):
            if found.state not in "ZX":
                yield found
            yield from descendants(pid, without)


def _children(parent: int) -> list[int]:
    try:
        found = []
        for thread in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                found += [int(pid) for pid in file.read().split()]
        return found
    except OSError:
        # It is gone, or the kernel was built without these lists.
        return [other.pid for other in running() if other.parent == parent]


def belongs(pid: int, ancestor: int) -> bool:
    """Whether a process is of another one's session, or started by it, at whatever distance."""
    while pid > 1 and (found := process(pid)):
        if ancestor in (pid, found.session):
            return True
        pid = found.parent
    return False


def environment(pid: int) -> frozenset[bytes]:
    """What a process was started with, each ``NAME=value``; nothing where that may not be known."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return frozenset(file.read().split(b"\0")) - {b""}
    except OSError:
        return frozenset()


def send(pid: int, number: int) -> None:
    """Send a signal, to a process that may be gone. One that was stopped goes on, or it would not hear it."""
    try:
        os.kill(pid, number)
        if number not in (signal.SIGKILL, signal.SIGCONT):
            os.kill(pid, signal.SIGCONT)
    except OSError:
        pass  # it is, or has become another user's
