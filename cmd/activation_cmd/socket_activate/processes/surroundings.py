"""What a process finds when it begins: its standard streams and its folders. Standard library only."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from activation_cmd.common.stdio import reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from activation_cmd.socket_activate.units.directories import Directory

# systemd.exec(5), "process exit codes".
_STREAM_STATUSES: Final = (208, 209, 222)


class StartError(Exception):
    """A process cannot become what it is to be; with the status that it exits with."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def redirect(standard: Sequence[int | str | None]) -> None:
    """Make 0, 1 and 2 what ``Start.standard`` says.

    Raises:
        StartError: a file cannot be opened.
    """
    for target, what in enumerate(standard):
        if what is None:
            continue
        try:
            source = what if isinstance(what, int) and what >= 0 else _opened(what, target, standard)
            os.dup2(source, target)
            if source != what and source > target:
                os.close(source)
        except OSError as error:
            name = ("input", "output", "error")[target]
            raise StartError(_STREAM_STATUSES[target], f"cannot open standard {name}: {reason(error)}") from None


def _opened(what: int | str, target: int, standard: Sequence[int | str | None]) -> int:
    """A descriptor of a file; that of a stream before, of which this one is a copy."""
    if isinstance(what, int):
        return os.open(os.devnull, os.O_WRONLY if target else os.O_RDONLY)
    if what in ("stdin", "stdout"):
        return 0 if what == "stdin" else 1
    how, _, path = what.partition(":")
    if target == 0:
        flags = os.O_RDWR | os.O_CREAT if "stdin" in standard[1:] else os.O_RDONLY
    else:
        flags = os.O_WRONLY | os.O_CREAT | {"append": os.O_APPEND, "truncate": os.O_TRUNC}.get(how, 0)
    try:
        return os.open(path, flags | os.O_NOCTTY | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    # It is a socket: systemd connects to it.
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(path)
        return sock.detach()


def make_directories(directories: Sequence[Directory], owner: Sequence[int] | None) -> None:
    """Make the folders of a service, or see to it that they are as it expects them.

    Args:
        owner: the user and the group that they are to belong to; None for this process's own.

    Raises:
        StartError: one cannot be made.
    """
    for path, mode, owned, links, status in directories:
        try:
            _make(path, mode, owner, owned=owned)
            for link in links:
                _link(path, link)
        except OSError as error:
            raise StartError(status, f"cannot make the folder {path}: {reason(error)}") from None


def _make(path: str, mode: int, owner: Sequence[int] | None, *, owned: bool) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not owned:
            return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, mode)
        if owned and owner and os.geteuid() == 0:
            _give(descriptor, owner)
    finally:
        os.close(descriptor)


def _give(descriptor: int, owner: Sequence[int]) -> None:
    """Give a folder with all that is in it to somebody else; following no link."""
    found = os.fstat(descriptor)
    if [found.st_uid, found.st_gid] == [*owner]:  # marshal has made a list of it
        return
    for _, folders, files, inside in os.fwalk(".", dir_fd=descriptor):
        for name in (*folders, *files):
            os.chown(name, *owner, dir_fd=inside, follow_symlinks=False)
    os.fchown(descriptor, *owner)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))  # a change of the owner takes some bits away


def _link(path: str, link: str) -> None:
    target = os.path.relpath(path, os.path.dirname(link))
    os.makedirs(os.path.dirname(link), 0o755, exist_ok=True)
    if not (os.path.islink(link) and os.readlink(link) == target):
        os.symlink(target, link)
