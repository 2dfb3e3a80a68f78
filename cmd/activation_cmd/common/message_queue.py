"""POSIX message queues, mq_overview(7), which Python's standard library lacks. Standard library only."""

from __future__ import annotations

import ctypes
import os


def open(  # noqa: A001
    name: str, flags: int, mode: int = 0, maximum: int | None = None, size: int | None = None
) -> int:
    """Open or make a queue; return its descriptor, which is close-on-exec. mq_open(3).

    Args:
        name: its name, a slash and then none.
        flags: as of open(2).
        mode: of a new queue, before the umask.
        maximum: how many messages a new queue holds; with ``size``, or both are the kernel's default.
        size: the longest message, in bytes.

    Raises:
        OSError: mq_open(3) or mq_unlink(3) fails.
    """
    # struct mq_attr: flags, maximum, size, count, and four that are reserved.
    attributes = None if maximum is None or size is None else (ctypes.c_long * 8)(0, maximum, size)
    return _done(library().mq_open(os.fsencode(name), flags | os.O_CLOEXEC, ctypes.c_uint(mode), attributes), name)


def unlink(name: str) -> None:
    """Remove a queue's name. mq_unlink(3).

    Raises:
        OSError: mq_open(3) or mq_unlink(3) fails.
    """
    _done(library().mq_unlink(os.fsencode(name)), name)


def library() -> ctypes.CDLL:
    """The C library that has these functions."""
    library = ctypes.CDLL(None, use_errno=True)
    # Before version 2.34, the GNU C library has them in a library of their own.
    return library if hasattr(library, "mq_open") else ctypes.CDLL("librt.so.1", use_errno=True)


def _done(result: int, name: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return result
