"""The system calls that Python lacks, as functions that raise OSError. Linux only. Those for mounts: mount_calls."""

from __future__ import annotations

import errno
import os
import sys

# ctypes without what it has in Python, which would take a twentieth of a container's start.
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen, dlsym, get_errno, sizeof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _ctypes import Array
    from collections.abc import Iterable

AT_FDCWD = -100

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 4, 8
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 23, 24, 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4

_OPENAT2 = 437
_OTHER_NUMBERS = ("alpha", "mips")
"""Architectures on which the calls since 424 do not have the numbers that they have on all others."""
_KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "riscv64": 219,
    "loongarch64": 219,
    "i386": 288,
    "i686": 288,
    "arm": 311,
    "powerpc64le": 271,
    "powerpc64": 271,
    "s390x": 280,
}

_RESOLVE_NO_MAGICLINKS = 2
_KEYCTL_JOIN_SESSION_KEYRING = 1

_CAPABILITY_VERSION_3 = 0x20080522
_SIGSET_SIZE = 128  # bytes of a sigset_t
_OPEN_HOW_SIZE = 24


class _Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Uint(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "I"


class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Ulong(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "L"


class Uint64(_SimpleCData):  # type: ignore[type-arg]
    """A number of 64 bits, of which the structures for newer system calls consist."""

    _type_ = "Q"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


class _IntFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_LIBC = dlopen(None, 0)  # type: ignore[arg-type]  # this process, and in it the C library
_ULONG_BITS = 8 * sizeof(_Ulong)
_SYSCALL = _Function(dlsym(_LIBC, "syscall"))


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library; numbers go as longs, which an int of its prototype is the lower half of."""
    function = _IntFunction(dlsym(_LIBC, name))
    result: int = function(*(_Long(each) if isinstance(each, int) else each for each in arguments))
    if result < 0:
        _fail()
    return result


def numbered(number: int, *arguments: object) -> int:
    """Make one of the system calls since 424, by its number: not every C library has functions for them."""
    if _architecture().startswith(_OTHER_NUMBERS):
        raise OSError(errno.ENOSYS, f"the number of a system call on {_architecture()} is not known to minirunc")
    return _syscall(number, *arguments)


def _syscall(number: int, *arguments: object) -> int:
    result: int = _SYSCALL(_Long(number), *(_Long(each) if isinstance(each, int) else each for each in arguments))
    if result < 0:
        _fail()
    return result


def _fail() -> None:
    number = get_errno()
    raise OSError(number, os.strerror(number))


def _architecture() -> str:
    """The one this program is built for, which is not always the kernel's."""
    triplet: str = getattr(sys.implementation, "_multiarch", "") or os.uname().machine
    return triplet.partition("-")[0]


def open_without_magic_links(path: str) -> int:
    """Open a path with O_PATH; ELOOP if it leads through a link such as /proc/self/exe. openat2(2)."""
    how = (Uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_NO_MAGICLINKS)
    return numbered(_OPENAT2, AT_FDCWD, os.fsencode(path), how, _OPEN_HOW_SIZE)


def unshare(flags: int) -> None:
    """unshare(2)."""
    call("unshare", flags)


def setns(fd: int, kind: int) -> None:
    """setns(2): ``kind`` is a CLONE_NEW flag."""
    call("setns", fd, kind)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    call("setdomainname", os.fsencode(name), len(os.fsencode(name)))


def file_system_type(fd: int) -> int:
    """The magic number of the file system that a descriptor belongs to. fstatfs(2)."""
    status = (_Ulong * 64)()  # more than any architecture's struct statfs, whose first member it is
    call("fstatfs", fd, status)
    kind: int = status[0] & 0xFFFFFFFF
    return kind


def join_new_session_keyring() -> None:
    """Give up the session keyring for an empty one. keyctl(2).

    Raises:
        OSError: ENOSYS where the kernel has no keyrings at all.
        LookupError: the number of the system call on this architecture is not known.
    """
    _syscall(_KEYCTL[_architecture()], _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """prctl(2)."""
    return call("prctl", option, first, second, 0, 0)


def capget() -> tuple[int, int, int]:
    """This process's effective, permitted and inheritable capabilities, each a set of bits. capget(2)."""
    data = (_Uint * 6)()
    call("capget", _capability_header(), data)
    effective, permitted, inheritable = (data[index] | data[index + 3] << 32 for index in range(3))
    return effective, permitted, inheritable


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2)."""
    sets = (effective, permitted, inheritable)
    halves = [bits & 0xFFFFFFFF for bits in sets] + [bits >> 32 for bits in sets]
    call("capset", _capability_header(), (_Uint * 6)(*halves))


def _capability_header() -> Array[_Uint]:
    return (_Uint * 2)(_CAPABILITY_VERSION_3, 0)


def signalfd(signals: Iterable[int]) -> int:
    """A descriptor that these signals, which must be blocked, are read from. signalfd(2)."""
    words = (_Ulong * (_SIGSET_SIZE * 8 // _ULONG_BITS))()
    for number in signals:
        words[(number - 1) // _ULONG_BITS] |= 1 << (number - 1) % _ULONG_BITS
    return call("signalfd", -1, words, os.O_CLOEXEC | os.O_NONBLOCK)
