"""The system calls that Python lacks, as functions that raise OSError. Linux only."""

from __future__ import annotations

import os

# ctypes without what it has in Python, which would take a twentieth of a container's start.
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen, dlsym, get_errno, sizeof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _ctypes import Array
    from collections.abc import Iterable

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 16, 32, 64, 128
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 1 << 10, 1 << 11, 1 << 12, 1 << 14
MS_NOSYMFOLLOW, MS_SILENT, MS_POSIXACL, MS_I_VERSION, MS_LAZYTIME = 1 << 8, 1 << 15, 1 << 16, 1 << 23, 1 << 25
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME = 1 << 21, 1 << 24
MNT_DETACH = 2

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 1 << 17, 1 << 25, 1 << 26, 1 << 27
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 1 << 28, 1 << 29, 1 << 30

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 23, 24, 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4

_CAPABILITY_VERSION_3 = 0x20080522
_SIGSET_SIZE = 128  # bytes of a sigset_t


class _Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Uint(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "I"


class _Ulong(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class _String(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "z"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_LIBC = dlopen(None, 0)  # type: ignore[arg-type]  # this process, and in it the C library
_ULONG_BITS = 8 * sizeof(_Ulong)

# Of those whose arguments are not all int or pointers.
_ARGUMENTS = {"mount": (_String, _String, _String, _Ulong, _String), "prctl": (_Int, _Ulong, _Ulong, _Ulong, _Ulong)}


def _call(name: str, *arguments: object, filename: str | None = None) -> int:
    function = _Function(dlsym(_LIBC, name))
    if name in _ARGUMENTS:
        function.argtypes = _ARGUMENTS[name]
    result: int = function(*arguments)
    if result < 0:
        number = get_errno()
        raise OSError(number, os.strerror(number), filename)
    return result


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _call("mount", *texts[:3], flags, texts[3], filename=target)


def umount2(target: str, flags: int) -> None:
    """umount(2)."""
    _call("umount2", os.fsencode(target), flags, filename=target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    _call("pivot_root", os.fsencode(new_root), os.fsencode(put_old), filename=new_root)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _call("unshare", flags)


def setns(fd: int, kind: int) -> None:
    """setns(2): ``kind`` is a CLONE_NEW flag."""
    _call("setns", fd, kind)


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """prctl(2)."""
    return _call("prctl", option, first, second, 0, 0)


def capget() -> tuple[int, int, int]:
    """This process's effective, permitted and inheritable capabilities, each a set of bits. capget(2)."""
    data = (_Uint * 6)()
    _call("capget", _capability_header(), data)
    effective, permitted, inheritable = (data[index] | data[index + 3] << 32 for index in range(3))
    return effective, permitted, inheritable


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2)."""
    sets = (effective, permitted, inheritable)
    halves = [bits & 0xFFFFFFFF for bits in sets] + [bits >> 32 for bits in sets]
    _call("capset", _capability_header(), (_Uint * 6)(*halves))


def _capability_header() -> Array[_Uint]:
    return (_Uint * 2)(_CAPABILITY_VERSION_3, 0)


def signalfd(signals: Iterable[int]) -> int:
    """A descriptor that these signals, which must be blocked, are read from. signalfd(2)."""
    words = (_Ulong * (_SIGSET_SIZE * 8 // _ULONG_BITS))()
    for number in signals:
        words[(number - 1) // _ULONG_BITS] |= 1 << (number - 1) % _ULONG_BITS
    return _call("signalfd", -1, words, os.O_CLOEXEC | os.O_NONBLOCK)
