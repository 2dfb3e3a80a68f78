"""A service manager's file descriptor store: what a service leaves with FDSTORE=1 and finds again when it restarts."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from typing import Final, Self

import attrs
import trio

from ._occasional import OccasionalMessages
from ._receiver import Notification
from ._same_file import OpenFiles

_LONGEST_NAME: Final = 255


@attrs.define(eq=False)
class DescriptorStore:
    """Descriptors with names that a service stores and finds again: FileDescriptorStoreMax= of systemd.service(5).

    It warns on the logger ``activation`` about what it does not keep, of each kind once a minute at most.

    Attributes:
        maximum: how many descriptors it keeps; it closes what comes above that.
    """

    maximum: int
    _stored: dict[int, str] = attrs.field(factory=dict, init=False)
    _open_files: OpenFiles = attrs.field(factory=OpenFiles, init=False)
    # With no events asked for, an epoll tells of EPOLLHUP and EPOLLERR alone.
    _hung_up: select.epoll = attrs.field(factory=select.epoll, init=False)
    _warnings: OccasionalMessages = attrs.field(factory=OccasionalMessages, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._stored)

    def take(self, notification: Notification) -> bool:
        """Do what a message asks of the store: FDSTORE=1 or FDSTOREREMOVE=1, with FDNAME= and FDPOLL=. sd_notify(3).

        Returns:
            Whether it asks anything of it. The store has then taken over the message's descriptors or closed them.
        """
        name = notification.get("FDNAME")
        if name is not None and not is_name(name):
            self._warnings.warn("FDNAME=%.300r of pid %d cannot be a name and is ignored", name, notification.pid)
            name = None
        if "FDSTOREREMOVE=1" in notification.assignments:
            notification.close()
            if name is None:
                self._warnings.warn("FDSTOREREMOVE=1 of pid %d comes without a valid FDNAME=", notification.pid)
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
        """Take the descriptors over and keep them.

        It closes a descriptor of an open file that it has already, whatever its number, and one above the maximum.

        Args:
            fds: the descriptors.
            name: of all of them; any number may have the same.
            poll: drop them when the other side hangs up.

        Returns:
            How many were new and are kept.
        """
        kept = 0
        for fd in fds:
            if not self._open_files.add(fd):
                os.close(fd)
            elif fault := self._fault(fd, poll=poll):
                self._open_files.remove(fd)
                os.close(fd)
                self._warnings.warn("the descriptor %r is not kept: %s", name, fault)
            else:
                self._stored[fd] = name
                kept += 1
        return kept

    def _fault(self, fd: int, *, poll: bool) -> str | None:
        """Why it cannot be kept; None if it can, and is watched."""
        if len(self._stored) >= self.maximum:
            return f"the store is full with {self.maximum}"
        try:
            if poll:
                self._hung_up.register(fd, 0)
        except PermissionError:
            pass  # a file cannot hang up
        except OSError as error:
            return error.strerror
        return None

    def remove(self, name: str) -> int:
        """Close the descriptors of this name; return how many there were."""
        return self._drop([fd for fd, other in self._stored.items() if other == name])

    def clear(self) -> int:
        """Close all descriptors; return how many there were."""
        return self._drop(list(self._stored))

    def files(self) -> list[tuple[str, int]]:
        """Return the names and descriptors, oldest first, as :func:`activation.open_process` takes them."""
        self.drop_hung_up()
        return [(name, fd) for fd, name in self._stored.items()]

    def drop_hung_up(self) -> int:
        """Close what the other side has left, unless it came with FDPOLL=0; return how many that were."""
        dropped = 0
        while self._stored and (events := self._hung_up.poll(0)):
            dropped += self._drop([fd for fd, _ in events])
        return dropped

    async def watch(self) -> None:
        """Drop each descriptor as soon as its other side hangs up, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._hung_up)
            self.drop_hung_up()

    def close(self) -> None:
        """Close everything; no :meth:`watch` may run any more."""
        self.clear()
        self._hung_up.close()

    def _drop(self, fds: list[int]) -> int:
        for fd in fds:
            del self._stored[fd]
            self._open_files.remove(fd)
            try:
                self._hung_up.unregister(fd)
            except OSError:
                pass  # it was not watched
            os.close(fd)
        return len(fds)


def is_name(name: str) -> bool:
    """Whether it can be in LISTEN_FDNAMES: printable ASCII without colons, at most 255."""
    return len(name) <= _LONGEST_NAME and all(" " <= character <= "~" and character != ":" for character in name)
