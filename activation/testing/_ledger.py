"""Who has opened which descriptor, and who has begun which task, among the daemons that run inside one test.

The instrument looks before and after each step of a task for the lowest number that is free. A descriptor that is
opened takes that number, so as long as it stays the same, nobody has opened anything. Only when it changes are all
descriptors listed, and the new ones are the running task's daemon's.
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
    """What one run of a daemon has opened and begun."""

    descriptors: dict[int, tuple[int, int]] = attrs.field(factory=dict)
    _files: set[int] = attrs.field(factory=set)
    tasks: set[trio.lowlevel.Task] = attrs.field(factory=set)

    def own(self, numbers: Iterable[int]) -> None:
        """Take these descriptors as the daemon's."""
        for number in numbers:
            try:
                status = os.fstat(number)
            except OSError:
                continue
            self.descriptors[number] = status.st_dev, status.st_ino
            if not (stat.S_ISSOCK(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
                self._files.add(number)

    def forget_closed_files(self) -> None:
        """Forget files that the daemon's step has closed: unlike a socket, another may open the same one again."""
        for number in [number for number in self._files if _identity(number) != self.descriptors[number]]:
            self._files.discard(number)
            del self.descriptors[number]

    def still_open(self) -> list[int]:
        """Those of the daemon's descriptors that are open, and not another's under the same number."""
        return [number for number, identity in self.descriptors.items() if _identity(number) == identity]

    def cut(self) -> None:
        """Close the daemon's descriptors as the kernel does when a process dies, in the middle of whatever.

        Objects of the daemon that hold the numbers find something dead there, which they may close: a socket without
        another end, or /dev/null.
        """
        dead, other = socket.socketpair()
        other.close()
        dead.setblocking(False)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number in self.still_open():
            mode = os.fstat(number).st_mode
            if stat.S_IFMT(mode) == 0:
                continue  # an epoll, a pidfd: nobody outside sees it
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
        self._known: set[int] = set()
        self._lowest = -1
        self._probe = -1
        self._users = 0

    def open(self, task: trio.lowlevel.Task) -> Account:
        """Begin an account with the daemon's main task."""
        if not self._users:
            self._probe = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            trio.lowlevel.add_instrument(self)
            self._lowest = -1
        self._users += 1
        self._look(None)
        self._owners[task] = account = Account()
        return account

    def close(self, account: Account) -> None:
        """End the account; what is in it stays as it was."""
        for task in [task for task, owner in self._owners.items() if owner is account]:
            del self._owners[task]
        self._users -= 1
        if not self._users:
            trio.lowlevel.remove_instrument(self)
            os.close(self._probe)
            _notify_socket.close()

    def disown(self, numbers: Iterable[int]) -> None:
        """See these descriptors, which were opened on the way of the daemon's own step, as the test's."""
        self._known.update(numbers)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """A task of a daemon's task is the daemon's, in whichever nursery."""
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
        """What was opened since the last step is nobody's here: another thread's."""
        self._look(None)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """What was opened in this step is the task's."""
        owner = self._owners.get(task)
        self._look(owner)
        if owner is not None:
            owner.forget_closed_files()

    def settle(self) -> None:
        """See what the running step has opened until now."""
        if self._users:
            try:
                self.after_task_step(trio.lowlevel.current_task())
            except RuntimeError:
                pass  # no task is running

    def _look(self, owner: Account | None) -> None:
        try:
            lowest = fcntl.fcntl(self._probe, fcntl.F_DUPFD_CLOEXEC, 0)
        except OSError:
            return  # none is free, so nobody opens one
        os.close(lowest)
        if lowest == self._lowest:
            return
        self._lowest = lowest
        known = set(map(int, os.listdir(_FOLDER))) - {lowest}  # that one has listed the folder
        if owner is not None:
            # The socket that notifications take is the process's, whoever has opened it.
            owner.own(known - self._known - _notify_socket.kept())
        self._known = known


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
