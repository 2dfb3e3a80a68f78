"""Copies what a tmpfs will cover into it: the option tmpcopyup of mounts."""

from __future__ import annotations

import os
import stat

_MOST_AT_ONCE = 1 << 30
"""Bytes that one call copies."""


def copy_folder(source: int, target: int) -> None:
    """Copy what is in a folder and on its file system, but no sockets.

    Args:
        source: a descriptor of the folder.
        target: a descriptor of an empty folder.
    """
    device = os.fstat(source).st_dev
    folders = [(_open_folder(".", source), _open_folder(".", target))]
    while folders:
        source, target = folders.pop()
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if status.st_dev != device or stat.S_ISSOCK(status.st_mode):
                continue
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(name, 0o700, dir_fd=target)
                folders.append((_open_folder(name, source), _open_folder(name, target)))
            elif stat.S_ISLNK(status.st_mode):
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            elif stat.S_ISREG(status.st_mode):
                _copy_file(name, source, target)
            else:
                os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=target)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
        os.close(source)
        os.close(target)


def _open_folder(name: str, folder: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)


def _copy_file(name: str, source: int, target: int) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            while os.sendfile(writing, reading, None, _MOST_AT_ONCE):
                pass
        finally:
            os.close(writing)
    finally:
        os.close(reading)
