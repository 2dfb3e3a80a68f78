"""A fork whose child is one of the parent's: clone3(2) with CLONE_PARENT, or fork(2) twice where there is no such call.

To fork twice makes and ends a process more, which is a tenth of the time between one client's service and the next
one's. The call is only for a process of one thread, and for a child that is to become another program: what Python does
in a child for other threads, and to be the same for all its modules, is left out.
"""

from __future__ import annotations

import errno
import os
import sys

# ctypes without the part of it that is in Python: this is loaded before anything listens.
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, CFuncPtr, _SimpleCData, dlopen, dlsym

_CLONE3 = 435
_OTHER_NUMBERS = ("alpha", "mips")
"""Architectures on which the calls since 424 do not have the numbers that they have on all others."""

_CLONE_PARENT = 0x8000


class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Uint64(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "Q"


class _Function(CFuncPtr):
    # As a function of Python's own it keeps the interpreter's lock, which nobody could give the child.
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI
    _restype_ = _Long


_SYSCALL = _Function(dlsym(dlopen(None, 0), "syscall"))  # type: ignore[arg-type]
_ARGUMENTS = (_Uint64 * 8)(_CLONE_PARENT)  # struct clone_args as of Linux 5.3


def fork_sibling() -> int:
    """Fork a child of this process's parent; return its number, or 0 in the child.

    Raises:
        OSError: there are too many processes.
    """
    pid = -1
    if not _architecture().startswith(_OTHER_NUMBERS):
        pid = _SYSCALL(_Long(_CLONE3), _ARGUMENTS, _Long(64))
    # Whatever the reason is, the other way meets it again or does not have it.
    return pid if pid >= 0 else _fork_twice()


def _architecture() -> str:
    """The one this program is built for, which is not always the kernel's."""
    triplet: str = getattr(sys.implementation, "_multiarch", "") or os.uname().machine
    return triplet.partition("-")[0]


def _fork_twice() -> int:
    """The same by a process in between, where this process's parent is the nearest subreaper and adopts the child."""
    told, tell = os.pipe()
    try:
        between = os.fork()
    except OSError:
        os.close(told)
        os.close(tell)
        raise
    if not between:
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid:
            os.write(tell, str(pid).encode())
            os._exit(0)
        os.close(told)
        os.close(tell)
        return 0
    os.close(tell)
    os.waitpid(between, 0)
    answer = int(os.read(told, 100) or -errno.EAGAIN)
    os.close(told)
    if answer < 0:
        raise OSError(-answer, os.strerror(-answer))
    return answer
