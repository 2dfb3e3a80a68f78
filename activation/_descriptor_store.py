"""A service manager's file descriptor store: what a service leaves with FDSTORE=1 and finds again when it restarts."""

from __future__ import annotations

import ctypes
import logging
import os
import select
from collections.abc import Iterable
from typing import Final, Self

import attrs
import trio

from ._receiver import Notification

_LOG: Final = logging.getLogger("activation")

_LONGEST_NAME: Final = 255


@attrs.frozen
class _Stored:
    name: str
    fd: int


@attrs.define(eq=False)
class DescriptorStore:
    """Descriptors with names, kept as FileDescriptorStoreMax= of systemd.service(5) has it.

    Attributes:
        maximum: how many it keeps; more are closed with a warning to the logger ``activation``.
    """

    maximum: int
    _stored: list[_Stored] = attrs.field(factory=list, init=False)
    # With no events asked for, an epoll tells of EPOLLHUP and EPOLLERR alone.
    _hung_up: select.epoll = attrs.field(factory=select.epoll, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._stored)

    def take(self, notification: Notification) -> bool:
        """Do what a message says of the store: FDSTORE=1 or FDSTOREREMOVE=1, with FDNAME= and FDPOLL=. sd_notify(3).

        Returns:
            Whether it says anything of it. Its descriptors are then the store's, or closed.
        """
        name = notification.get("FDNAME")
        if name is not None and not is_name(name):
            _LOG.warning("FDNAME=%s of pid %d is no descriptor's name; ignored", name, notification.pid)
            name = None
        if "FDSTOREREMOVE=1" in notification.assignments:
            notification.close()
            if name is None:
                _LOG.warning("FDSTOREREMOVE=1 of pid %d goes without a valid FDNAME=; ignored", notification.pid)
            else:
                self.remove(name)
        elif "FDSTORE=1" in notification.assignments:
            poll = "FDPOLL=0" not in notification.assignments
            fds, notification.fds = notification.fds, []
            self.add(fds, "stored" if name is None else name, poll=poll)
        else:
            return False
        return True

    def add(self, fds: Iterable[int], name: str = "stored", *, poll: bool = True) -> int:
        """Keep the descriptors, which become the store's own.

        One that is stored already (the same open file, whatever its number) is closed, and so is one too many.

        Args:
            name: of all of them; any number may have the same.
            poll: drop them when the other side hangs up.

        Returns:
            How many were new and kept.
        """
        kept = 0
        for fd in fds:
            if any(same_file(fd, other.fd) for other in self._stored):
                os.close(fd)
            elif fault := self._fault(fd, poll=poll):
                os.close(fd)
                _LOG.warning("the descriptor %r was dropped: %s", name, fault)
            else:
                self._stored.append(_Stored(name, fd))
                kept += 1
        return kept

    def _fault(self, fd: int, *, poll: bool) -> str | None:
        """Why it cannot be kept; None if it can, and is watched."""
        if len(self._stored) >= self.maximum:
            return f"the store has its {self.maximum}"
        try:
            if poll:
                self._hung_up.register(fd, 0)
        except PermissionError:
            pass  # a file cannot hang up
        except OSError as error:
            return error.strerror
        return None

    def remove(self, name: str) -> int:
        """Close what has this name; return how many that were."""
        return self._drop([stored for stored in self._stored if stored.name == name])

    def clear(self) -> int:
        """Close everything that is kept; return how many that were."""
        return self._drop(list(self._stored))

    def files(self) -> list[tuple[str, int]]:
        """What is kept, oldest first, as :func:`activation.open_process` takes it: after the sockets."""
        self.drop_hung_up()
        return [(stored.name, stored.fd) for stored in self._stored]

    def drop_hung_up(self) -> int:
        """Close what the other side has left, unless it came with FDPOLL=0; return how many that were."""
        if not self._stored:
            return 0
        numbers = {fd for fd, _ in self._hung_up.poll(0)}
        return self._drop([stored for stored in self._stored if stored.fd in numbers])

    async def watch(self) -> None:
        """Drop what hangs up, as soon as it does, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._hung_up)
            self.drop_hung_up()

    def close(self) -> None:
        """Close everything; no :meth:`watch` may run any more."""
        self.clear()
        self._hung_up.close()

    def _drop(self, dropped: list[_Stored]) -> int:
        for stored in dropped:
            self._stored.remove(stored)
            try:
                self._hung_up.unregister(stored.fd)
            except OSError:
                pass  # it was not watched
            os.close(stored.fd)
        return len(dropped)


def is_name(name: str) -> bool:
    """Whether it can be in LISTEN_FDNAMES: printable ASCII without spaces and colons, at most 255."""
    return len(name) <= _LONGEST_NAME and all("!" <= character <= "~" and character != ":" for character in name)


_KCMP_CALL: Final = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "s390x": 343, "ppc64le": 354}
_KCMP_FILE: Final = 0


def same_file(one: int, other: int) -> bool:
    """Whether two descriptors are of the same open file, as after dup(2). kcmp(2)."""
    status, other_status = os.fstat(one), os.fstat(other)
    if (status.st_dev, status.st_ino, status.st_mode) != (
        other_status.st_dev,
        other_status.st_ino,
        other_status.st_mode,
    ):
        return False
    machine = os.uname().machine
    if machine in _KCMP_CALL:
        pid = os.getpid()
        order = ctypes.CDLL(None).syscall(_KCMP_CALL[machine], pid, pid, _KCMP_FILE, one, other)
        if order >= 0:
            return bool(order == 0)
    # Forbidden or unknown here: what has the same inode counts as the same, as it is for every socket.
    return True
