"""Careful removal of what a socket unit leaves in the file system.

Standard library only, and little of that: the executor uses it, and foobard loads it when it starts.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# The kinds of nodes. The executor is told of them by these names.
SOCKET, FIFO, SYMLINK, FOLDER, QUEUE = "socket", "fifo", "symlink", "folder", "mqueue"
NOTIFY_FOLDER = "notify"


def identity(kind: str, path: str) -> str:
    """A text that tells the node at a path from any other node that may be there later."""
    found = _queue_status(path) if kind == QUEUE else os.lstat(path)
    return f"{found.st_dev}:{found.st_ino}:{stat.S_IFMT(found.st_mode):o}"


def remove(kind: str, path: str, made: str) -> None:
    """Remove a node that this process made, unless something else has taken its place.

    Args:
        kind: what it is, one of the names above.
        path: where; a message queue's name.
        made: its :func:`identity`.
    """
    try:
        if identity(kind, path) == made:
            _REMOVERS[kind](path)
    except OSError:
        pass  # it is gone already, or a folder that somebody else uses


def remove_stale(kind: str, path: str, made: str) -> None:
    """Remove a node that a process which was killed may have left, unless somebody else uses it now.

    Args:
        kind: what it is, one of the names above.
        path: where; a message queue's name.
        made: its :func:`identity`; "" if the process was killed before it could tell. Then only a socket is removed,
            since it can be seen that nobody has it open any more.
    """
    try:
        if kind == NOTIFY_FOLDER:
            remove_notify_folder(path)  # its name is random: nobody else has it
        elif made:
            remove(kind, path, made)  # even while services of that process still have it open
        elif kind == SOCKET and stat.S_ISSOCK(os.lstat(path).st_mode) and not in_use(path):
            remove(kind, path, identity(kind, path))
    except OSError:
        pass


def make_way(path: str) -> None:
    """Remove the path of a socket that nobody has open any more, so that another one can be bound there.

    Raises:
        OSError: what is there is no socket, or it is in use.
    """
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "it exists and is no socket")
    if in_use(path):
        raise OSError(errno.EADDRINUSE, "it is in use by another process")
    os.unlink(path)


def in_use(path: str) -> bool:
    """Whether a process has the socket at the path open.

    Raises:
        OSError: there is no socket, or this process has no permission to ask.
    """
    # A datagram socket: a stream would be a client that the listener has to accept.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPROTOTYPE, errno.EPERM):  # another type; connected to somebody else
                raise
    return True


def remove_notify_folder(path: str) -> None:
    """Remove the folder of notify sockets with the folders in it, of which each has one socket."""
    try:
        names = os.listdir(path)
    except OSError:
        return
    for remover, each in (
        *((os.unlink, f"{path}/{name}/notify") for name in names),
        *((os.rmdir, f"{path}/{name}") for name in names),
        (os.rmdir, path),
    ):
        try:
            remover(each)
        except OSError:
            pass  # gone already, or a service has put something of its own there


def _queue_status(name: str) -> os.stat_result:
    from . import message_queue

    descriptor = message_queue.open(name, os.O_RDONLY)
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _unlink_queue(name: str) -> None:
    from . import message_queue

    message_queue.unlink(name)


_REMOVERS: dict[str, Callable[[str], None]] = {
    SOCKET: os.unlink,
    FIFO: os.unlink,
    SYMLINK: os.unlink,
    FOLDER: os.rmdir,
    QUEUE: _unlink_queue,
}
