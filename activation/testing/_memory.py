"""Copies of shared memory, made at the moment of a crash."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

_ADD_SEALS, _GET_SEALS = 1033, 1034  # fcntl(2); Python has them under Linux only
_CHUNK = 1 << 20


def copied(descriptor: int) -> int:
    """Copy a memfd, with its seals, and return the descriptor of the copy, which later writes do not reach."""
    copy = os.memfd_create("activation", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        status = os.fstat(descriptor)
        os.ftruncate(copy, status.st_size)
        _copy_data(descriptor, copy, status.st_size)
        os.fchmod(copy, stat.S_IMODE(status.st_mode))  # before F_SEAL_EXEC, which forbids to write to an executable
        os.lseek(copy, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
        fcntl.fcntl(copy, _ADD_SEALS, fcntl.fcntl(descriptor, _GET_SEALS))
    except BaseException:
        os.close(copy)
        raise
    return copy


def is_memfd(descriptor: int) -> bool:
    """Whether the descriptor comes from memfd_create(2)."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    try:
        fcntl.fcntl(descriptor, _GET_SEALS)
    except OSError:
        return False  # a file in a file system without seals
    return os.readlink(f"/proc/self/fd/{descriptor}").startswith("/memfd:")


def _copy_data(source: int, target: int, size: int) -> None:
    """Copy everything but holes. The offset of ``source``, which others share, stays as it is."""
    before = os.lseek(source, 0, os.SEEK_CUR)
    try:
        end = 0
        while end < size:
            try:
                start = os.lseek(source, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break  # the rest is a hole
                raise
            end = os.lseek(source, start, os.SEEK_HOLE)
            while start < end:
                start += os.pwrite(target, os.pread(source, min(_CHUNK, end - start), start), start)
    finally:
        os.lseek(source, before, os.SEEK_SET)
