"""Which descriptors and which tasks belong to which daemon, among several daemons and a test in one process.

Before and after each step of a task, the ledger looks which descriptor number is the lowest free one. Opening a
descriptor takes that number. As long as it stays the same, the ledger takes it that none was opened: it does not notice
the only one that a step opens in the place of one that it closed. When the number changes, the ledger lists all
descriptors. Those that are new, or another file under a number that it knows, belong to the daemon whose task made the
step.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

import attrs
import trio

from activation import _notify_socket

if TYPE_CHECKING:
    from collections.abc import Iterable

_FOLDER = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


@attrs.define(eq=False)
class Account:
    """What one run of a daemon has opened and started.

    Attributes:
        descriptors: each number, with the device and the inode that it had.
        tasks: the tasks, except for the first.
    """

    descriptors: dict[int, tuple[int, int]] = attrs.field(factory=dict)
    _files: set[int] = attrs.field(factory=set)
    tasks: set[trio.lowlevel.Task] = attrs.field(factory=set)

    def own(self, numbers: Iterable[int]) -> None:
        """Note that these descriptors belong to the daemon."""
        for number in numbers:
            try:
                status = os.fstat(number)
            except OSError:
                continue
            self.descriptors[number] = status.st_dev, status.st_ino
            if not (stat.S_ISSOCK(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
                self._files.add(number)

    def forget_closed_files(self) -> None:
        """Forget the files that a step of the daemon closed. Unlike a socket, the test may open the same one again."""
        for number in [number for number in self._files if _identity(number) != self.descriptors[number]]:
            self._files.discard(number)
            del self.descriptors[number]

    def still_open(self) -> list[int]:
        """Return the daemon's descriptors that are still open, and still the same."""
        return [number for number, identity in self.descriptors.items() if _identity(number) == identity]

    def cut(self) -> None:
        """Close the daemon's descriptors as the kernel does when a process dies.

        The daemon's Python objects still have the numbers and close them later. So something dead takes their place: a
        socket without another end, or /dev/null.
        """
        dead, other = socket.socketpair()
        other.close()
        dead.setblocking(False)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in self.still_open():
            mode = os.fstat(number).st_mode
            if stat.S_IFMT(mode) == 0:
                continue  # an epoll or a pidfd, which has no effect on anybody else
            trio.lowlevel.notify_closing(number)
            os.dup2(dead.fileno() if stat.S_ISSOCK(mode) else null, number, inheritable=False)
        self.descriptors.clear()
        self._files.clear()
        dead.close()
        os.close(null)


class Ledger(trio.abc.Instrument):
    """The accounts of all daemons in this run of trio."""

    def __init__(self) -> None:
        self._owners: dict[trio.lowlevel.Task, Account] = {}
        self._known: dict[int, tuple[int, int] | None] = {}
        self._lowest = -1
        self._probe = -1
        self._users = 0

    def open(self, task: trio.lowlevel.Task) -> Account:
        """Begin an account for the daemon whose first task this is."""
        if not self._users:
            self._probe = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            trio.lowlevel.add_instrument(self)
            self._lowest = -1
        self._users += 1
        self._look(None)
        self._owners[task] = account = Account()
        return account

    def close(self, account: Account) -> None:
        """End an account. It keeps what is in it."""
        for task in [task for task, owner in self._owners.items() if owner is account]:
            del self._owners[task]
        self._users -= 1
        if not self._users:
            trio.lowlevel.remove_instrument(self)
            os.close(self._probe)
            _notify_socket.close()

    def disown(self, numbers: Iterable[int]) -> None:
        """Note that these descriptors belong to the test, although they were opened during a step of the daemon."""
        self._known.update({number: _identity(number) for number in numbers})

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Note that a task belongs to the daemon whose task started it, whatever nursery it runs in."""
        try:
            owner = self._owners.get(trio.lowlevel.current_task())
        except RuntimeError:
            return
        if owner is not None:
            self._owners[task] = owner
            owner.tasks.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget the task."""
        owner = self._owners.pop(task, None)
        if owner is not None:
            owner.tasks.discard(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        """Give what another thread opened since the last step to nobody."""
        self._look(None)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Give what was opened during the step to the daemon that the task belongs to."""
        owner = self._owners.get(task)
        self._look(owner)
        if owner is not None:
            owner.forget_closed_files()

    def settle(self) -> None:
        """Do the same for the step that is still running."""
        if self._users:
            try:
                self.after_task_step(trio.lowlevel.current_task())
            except RuntimeError:
                pass  # no task is running

    def _look(self, owner: Account | None) -> None:
        try:
            lowest = fcntl.fcntl(self._probe, fcntl.F_DUPFD_CLOEXEC, 0)
        except OSError:
            return  # no number is free, so nothing was opened
        os.close(lowest)
        if lowest == self._lowest:
            return
        self._lowest = lowest
        numbers = set(map(int, os.listdir(_FOLDER))) - {lowest}  # the descriptor that listed the folder
        known = {number: _identity(number) for number in numbers}
        if owner is not None:
            new = {number for number, identity in known.items() if self._known.get(number) != identity}
            # The socket for notifications belongs to the process, whoever opened it.
            owner.own(new - _notify_socket.kept())
        self._known = known


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
