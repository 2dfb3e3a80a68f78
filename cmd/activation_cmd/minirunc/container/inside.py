"""Paths in the container, looked up without ever leaving it.

The container's files are somebody else's, and a symbolic link among them may lead anywhere: through the links in /proc
(``/proc/self/cwd``, say) even out of the root. So the kernel follows none of them. Each name is looked up by itself,
and a link is read and followed as text, in the container's root. This works once the root is the container's.
"""

from __future__ import annotations

import errno
import os
import stat

FOLDER, FILE = "folder", "file"
"""What open_inside() may make at the end of a path."""

MOST_LINKS = 40  # as in the kernel, path_resolution(7)


def open_inside(path: str, flags: int = os.O_PATH, *, make: str | None = None, links: int = MOST_LINKS) -> int:
    """Open what the container has at an absolute path.

    Args:
        flags: of open(2).
        make: FOLDER or FILE, to be made with all folders above it where it is missing.
        links: how many symbolic links may be on the way.

    Raises:
        OSError: it cannot be opened or made; ELOOP for too many links.
    """
    here = _root()
    left = _names(path)
    try:
        while left:
            name = left.pop()
            below = _open_or_make(name, here, None if make is None else FILE if make == FILE and not left else FOLDER)
            if stat.S_ISLNK(os.fstat(below).st_mode):
                os.close(below)
                if (links := links - 1) < 0:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(name, dir_fd=here)
                left += _names(target)
                if target.startswith("/"):
                    os.close(here)
                    here = _root()
            elif flags != os.O_PATH and not left:
                os.close(below)
                return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            else:
                os.close(here)
                here = below
    except OSError as error:
        os.close(here)
        raise OSError(error.errno, error.strerror, path) from None
    except BaseException:
        os.close(here)
        raise
    return here


def _root() -> int:
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _names(path: str) -> list[str]:
    """The names of a path, the first one last."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _open_or_make(name: str, folder: int, make: str | None) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        if make is None:
            raise
    if make == FILE:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder))
    else:
        os.mkdir(name, 0o755, dir_fd=folder)
    return os.open(name, flags, dir_fd=folder)
