"""What a socket unit has in the file system, with its modes and owners, and its removal at the end."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from activation_cmd.common import leftovers
from activation_cmd.common.leftovers import FIFO, FOLDER, QUEUE, SOCKET, SYMLINK
from activation_cmd.socket_activate.units.accounts import find_group, find_user

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from activation_cmd.socket_activate.units.model import SocketUnit

    Announce = Callable[[str, str, str], object]


class Nodes:
    """Makes sockets' paths, FIFOs, message queues, folders and symlinks for a unit.

    Args:
        announce: is called for each node before and after it is made.
        removal: gets the calls that remove them.
    """

    def __init__(self, unit: SocketUnit, announce: Announce, removal: ExitStack) -> None:
        self._unit = unit
        self._announce = announce
        self._removal = removal
        self._owner = _owner(unit)
        self._paths: list[str] = []

    @contextmanager
    def making(self, kind: str, path: str, mode: int) -> Iterator[None]:
        """Make a node in this block: at no moment does it have more permissions than the mode."""
        if kind != QUEUE:
            path = os.path.abspath(path)
        self._announce(kind, path, "")
        umask = os.umask(0o777 & ~mode)  # of the whole process, which has no other threads
        try:
            yield
        finally:
            os.umask(umask)
        made = leftovers.identity(kind, path)
        self._removal.callback(leftovers.remove, kind, path, made)
        self._announce(kind, path, made)

    def make_folders(self, path: str) -> None:
        """Make the folders above the path that are missing, with DirectoryMode=."""
        missing = []
        folder = os.path.dirname(os.path.abspath(path))
        while not os.path.lexists(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            # If somebody else has just made it, it is not ours to remove.
            with suppress(FileExistsError), self.making(FOLDER, folder, self._unit.directory_mode):
                os.mkdir(folder, self._unit.directory_mode)

    def bind(self, sock: socket.socket, path: str) -> None:
        """Bind a socket to a path that nobody else listens on."""
        self.make_folders(path)
        leftovers.make_way(path)
        with self.making(SOCKET, path, self._unit.socket_mode):
            sock.bind(path)
        self._give(path)

    def make_fifo(self, path: str) -> None:
        """Make a FIFO, or use one that exists."""
        self.make_folders(path)
        if os.path.lexists(path):
            found = os.lstat(path)
            if not stat.S_ISFIFO(found.st_mode):
                raise FileExistsError(errno.EEXIST, "it exists and is no FIFO")
            self._check_owner(found)
            os.chmod(path, self._unit.socket_mode)
        else:
            with self.making(FIFO, path, self._unit.socket_mode):
                os.mkfifo(path, self._unit.socket_mode)
        self._give(path)

    def make_queue(self, name: str, maximum: int | None, size: int | None) -> None:
        """Make a message queue, or use one that exists, whatever its size."""
        from activation_cmd.common import message_queue  # it needs ctypes, which other sockets need not wait for

        mode = self._unit.socket_mode
        try:
            with self.making(QUEUE, name, mode):
                os.close(message_queue.open(name, os.O_CREAT | os.O_EXCL, mode, maximum, size))
        except FileExistsError:
            descriptor = message_queue.open(name, os.O_RDONLY)
            try:
                self._check_owner(os.fstat(descriptor))
                os.fchmod(descriptor, mode)
            finally:
                os.close(descriptor)

    def _check_owner(self, found: os.stat_result) -> None:
        # A stranger may have made it, to read what our clients send.
        if found.st_uid not in (os.geteuid(), self._owner[0]):
            raise FileExistsError(errno.EEXIST, f"it exists and belongs to the user {found.st_uid}; expected our own")

    def _give(self, path: str) -> None:
        self._paths.append(os.path.abspath(path))
        if self._owner != (-1, -1):
            try:
                os.chown(path, *self._owner, follow_symlinks=False)
            except PermissionError as error:
                text = "it cannot be given to SocketUser= or SocketGroup=; mostly only root may do that"
                raise PermissionError(error.errno, text) from error

    def link(self) -> None:
        """Make the symlinks to the unit's one path. Symlinks that exist are replaced, other files are not.

        Raises:
            OSError: one cannot be made.
            ValueError: there is no path, or more than one.
        """
        unit = self._unit
        if unit.symlinks and len(self._paths) != 1:
            paths = ", ".join(self._paths) or "no path or FIFO"
            raise ValueError(f"{unit.name}: Symlinks= has {paths} to point to; expected exactly one")
        for path in unit.symlinks:
            try:
                self.make_folders(path)
                if os.path.islink(path):
                    os.unlink(path)
                with self.making(SYMLINK, path, 0o777):
                    os.symlink(self._paths[0], path)
            except OSError as error:
                text = f"{unit.name}: cannot make the symlink {path}: {error.strerror}"
                raise OSError(error.errno, text) from error


def _owner(unit: SocketUnit) -> tuple[int, int]:
    """The numbers of SocketUser= and SocketGroup=, -1 for no change; a user comes with its group."""
    user, group = -1, -1
    try:
        if unit.socket_user:
            found = find_user(unit.socket_user)
            user, group = found.pw_uid, found.pw_gid
    except ValueError as error:
        raise ValueError(f"{unit.name}: SocketUser={unit.socket_user}: {error}") from None
    try:
        if unit.socket_group:
            group = find_group(unit.socket_group).gr_gid
    except ValueError as error:
        raise ValueError(f"{unit.name}: SocketGroup={unit.socket_group}: {error}") from None
    return user, group
