"""Which descriptors are of the same open file, as after dup(2): kcmp(2)."""

from __future__ import annotations

import ctypes
import os
import stat
from typing import Final, TypeAlias

_KCMP_CALLS: Final = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "s390x": 343, "ppc64le": 354}
_KCMP_CALL: int | None = _KCMP_CALLS.get(os.uname().machine)
_KCMP_FILE: Final = 0
_syscall: Final = ctypes.CDLL(None).syscall

Inode: TypeAlias = tuple[int, int, int]


class OpenFiles:
    """A set of descriptors, each of another open file.

    The kernel orders open files, so that one is found among thousands by a few comparisons. All descriptors of event
    queues, timers and the like share one inode and have to be compared; a socket has an inode for itself.
    """

    def __init__(self) -> None:
        self._by_inode: dict[Inode, list[int]] = {}

    def add(self, fd: int) -> bool:
        """Add the descriptor, unless one of the same open file is there; return whether it was added."""
        inode = _inode(fd)
        fds = self._by_inode.setdefault(inode, [])
        low, high = 0, len(fds)
        while low < high:
            middle = (low + high) // 2
            order = _order(fd, fds[middle])
            if order == 0:
                return False
            if order < 0:
                high = middle
            else:
                low = middle + 1
        fds.insert(low, fd)
        return True

    def remove(self, fd: int) -> None:
        """Remove the descriptor, which must still be open."""
        inode = _inode(fd)
        self._by_inode[inode].remove(fd)
        if not self._by_inode[inode]:
            del self._by_inode[inode]


def _inode(fd: int) -> Inode:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_mode


def _order(one: int, other: int) -> int:
    """0 for the same open file, else below or above 0, in an order that holds as long as the files are open."""
    if _KCMP_CALL is not None:
        pid = os.getpid()
        order = _syscall(_KCMP_CALL, pid, pid, _KCMP_FILE, one, other)
        if order >= 0:
            return {0: 0, 1: -1}.get(order, 1)
    # Forbidden or unknown here. A socket has its inode for itself; of other files, none is dropped by mistake.
    return 0 if stat.S_ISSOCK(os.fstat(one).st_mode) else one - other
