"""Processes, as /proc shows them. Standard library only, because the executor uses it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


_CHUNK = 1 << 14


class Process(NamedTuple):
    """One line of /proc/PID/stat, proc(5)."""

    pid: int
    state: str
    parent: int
    session: int


def process(pid: int) -> Process | None:
    """Look a process up; None if it is gone."""
    try:
        status = _read(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name stands in parentheses and may have any character itself.
    state, parent, _, session = status[status.rindex(b")") + 2 :].split()[:4]
    return Process(pid, state.decode(), int(parent), int(session))


def _read(path: str) -> bytes:
    """Read a file of /proc, without the calls that open() makes on every file: each end of a service reads several."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _CHUNK), b""))
    finally:
        os.close(descriptor)


def running() -> Iterator[Process]:
    """All processes except zombies."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return  # /proc is not mounted, or no descriptor is left
    for name in names:
        if name.isdecimal() and (found := process(int(name))) and found.state not in "ZX":
            yield found


def descendants(ancestor: int, without: Collection[int] = ()) -> Iterator[Process]:
    """The children of a process, their children, and so on. Zombies are left out, but not their children.

    Args:
        without: leave out these processes and their descendants.
    """
    for pid in _children(ancestor):
        if pid not in without and (found := process(pid)):
            if found.state not in "ZX":
                yield found
            yield from descendants(pid, without)


def _children(parent: int) -> list[int]:
    try:
        found: list[int] = []
        for thread in os.listdir(f"/proc/{parent}/task"):
            found += map(int, _read(f"/proc/{parent}/task/{thread}/children").split())
        return found
    except OSError:
        # It is gone, or the kernel was built without these lists.
        return [other.pid for other in running() if other.parent == parent]


def belongs(pid: int, ancestor: int) -> bool:
    """Whether a process is in the session of another one, or a descendant of it."""
    while pid > 1 and (found := process(pid)):
        if ancestor in (pid, found.session):
            return True
        pid = found.parent
    return False


def environment(pid: int) -> frozenset[bytes]:
    """The variables that a process was started with, each ``NAME=value``; nothing if they cannot be read."""
    try:
        return frozenset(_read(f"/proc/{pid}/environ").split(b"\0")) - {b""}
    except OSError:
        return frozenset()


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone. A stopped process is continued, so that it gets the signal."""
    try:
        os.kill(pid, number)
        if number not in (signal.SIGKILL, signal.SIGCONT):
            os.kill(pid, signal.SIGCONT)
    except OSError:
        pass  # it is gone, or belongs to another user now
