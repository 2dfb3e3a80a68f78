"""From the environment to descriptors: the receiving half of the protocol, on the standard library alone."""

from __future__ import annotations

import fcntl
import os

from ._environment import ActivationError, environ, number, surroundings, unset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

FIRST: Final = 3
"""The number of the first descriptor passed: ``SD_LISTEN_FDS_START`` of sd_listen_fds(3)."""

VARIABLES: Final = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")

_passed_before: list[File] = []


class File:
    """A descriptor that was passed to this process, and its name. Go: ``os.File``, as ``activation.Files`` makes it.

    Collecting it does not close the descriptor: one that nobody uses stays open, as it was passed.

    Attributes:
        name: the name from LISTEN_FDNAMES (``FileDescriptorName=`` of systemd.socket(5)), or ``LISTEN_FD_<number>``.
    """

    __slots__ = ("_descriptor", "name")

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name

    def fileno(self) -> int:
        """Return the number of the descriptor, -1 once it was given away or closed."""
        return self._descriptor

    def detach(self) -> int:
        """Give the descriptor away: return its number and forget it. The caller has to close it.

        Raises:
            ActivationError: it was given away or closed before.
        """
        if self._descriptor < 0:
            raise ActivationError(
                f"the descriptor {self.name!r} was given away or closed before, and that can be done only once; "
                "keep what was made of it"
            )
        descriptor, self._descriptor = self._descriptor, -1
        return descriptor

    def close(self) -> None:
        """Close the descriptor, unless it was given away or closed before."""
        if self._descriptor >= 0:
            os.close(self.detach())

    def __repr__(self) -> str:
        return f"<activation.File {self.name!r}, descriptor {self._descriptor}>"


def files(unset_env: bool = True, *, pid: int | None = None) -> list[File]:
    """Return what the service manager passed to this process, in its order. Go: ``activation.Files``.

    sd_listen_fds_with_names(3), sd_listen_fds(3). The list is empty where nothing was passed, or where it was meant for
    another process; if LISTEN_FDS is there nevertheless, a warning on the logger ``activation`` says why, as
    :func:`why_nothing_was_passed` does. Every descriptor gets close-on-exec. All variables and descriptors are checked
    before anything is changed.

    Args:
        unset_env: remove LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS and LISTEN_FDNAMES from ``os.environ``, whatever the
            outcome, so that no child takes them for its own and a second call returns ``[]``. False leaves them, for
            a tool that passes the descriptors on.
        pid: take what was passed to this process, which must exist, instead of the calling one. For a program that
            knows what starts it: ``files(pid=os.getppid())`` behind a wrapper that starts it as a child and leaves it
            the descriptors.

    Raises:
        ActivationError: the value of a variable cannot be right; the message names it, and what was expected.
    """
    wanted = os.getpid() if pid is None else pid
    try:
        passed = _passed(wanted)
        if not passed and "LISTEN_FDS" in environ():
            _warn(wanted)
    finally:
        if unset_env:
            unset(*VARIABLES)
    if passed:
        passed_before()[:] = passed
    return passed


def passed_before() -> list[File]:
    """The list of what :func:`files` last returned. What an earlier start has stored is looked for in it."""
    test = surroundings()
    if test is None:
        return _passed_before
    passed: list[File] = test.variables.setdefault("passed before", [])
    return passed


def why_nothing_was_passed() -> str:
    """Say why :func:`files` returns nothing, and what to do, for an error message of the program's own.

    For example, LISTEN_PID is the number of a shell that started this program as its child instead of by ``exec``; or
    the variables are missing, and standard input is a socket.
    """
    if passed_before():
        return "an earlier call of files() has returned what was passed; call it once, and keep what it returns"
    if _refused:
        return _refused[0]
    from ._why import nothing_passed

    return nothing_passed(os.getpid(), own_pidfd_id())


_refused: list[str] = []
"""Why files() did not return what LISTEN_FDS told of; the variables that said so may be gone."""


def _warn(pid: int) -> None:
    import logging

    from ._why import nothing_passed

    reason = nothing_passed(pid, pidfd_id(pid))
    _refused[:] = [reason]
    logging.getLogger("activation").warning("no descriptors were passed: %s", reason)


def _passed(wanted: int) -> list[File]:
    if number("LISTEN_PID") != wanted:
        return []
    meant_id = number("LISTEN_PIDFDID")
    if meant_id is not None and pidfd_id(wanted) not in (None, meant_id):
        return []
    if wanted != os.getpid() and not _exists(wanted):
        return []
    count = number("LISTEN_FDS")
    if not count:
        return []
    test = surroundings()
    if test is None:
        _check_open(count)
        descriptors: Sequence[int] = range(FIRST, FIRST + count)
    else:
        descriptors = test.passed()
    names = environ().get("LISTEN_FDNAMES", "").split(":")
    passed = []
    for position, descriptor in enumerate(descriptors):
        os.set_inheritable(descriptor, False)
        name = names[position] if position < len(names) else ""
        passed.append(File(descriptor, name or default_name(FIRST + position)))
    return passed


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def default_name(descriptor: int) -> str:
    """The name of a descriptor that came without one, as in Go."""
    return f"LISTEN_FD_{descriptor}"


def _check_open(count: int) -> None:
    limit = open_file_limit()
    if count > limit:
        raise ActivationError(
            f"LISTEN_FDS is {count}; expected at most {limit}, the limit on open files (RLIMIT_NOFILE) of this process"
        )
    for descriptor in range(FIRST, FIRST + count):
        if not is_open(descriptor):
            raise ActivationError(
                f"LISTEN_FDS is {count}; expected the descriptors {FIRST} to {FIRST + count - 1} to be open, but "
                f"{descriptor} is not; if part of this process took it already, call files() once, before that"
            )


def open_file_limit() -> int:
    """The highest count of descriptors that this process may have: the soft RLIMIT_NOFILE."""
    limit = os.sysconf("SC_OPEN_MAX")
    return limit if limit >= 0 else 1 << 31  # -1 means that there is none


def is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def own_pidfd_id() -> int | None:
    """Return the inode number of this process's pidfd: see :func:`pidfd_id`."""
    return pidfd_id(os.getpid())


def pidfd_id(pid: int) -> int | None:
    """Return the inode number of a process's pidfd, which no other process has as long as the system runs.

    None where that number says nothing: before pidfs (Linux 6.9) all pidfds shared one anonymous inode, and elsewhere
    there are none. None, too, where there is no such process.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
    try:
        anonymous = os.eventfd(0)
        try:
            pidfd_stat, anonymous_stat = os.fstat(pidfd), os.fstat(anonymous)
        finally:
            os.close(anonymous)
    except OSError:
        return None
    finally:
        os.close(pidfd)
    return pidfd_stat.st_ino if pidfd_stat.st_dev != anonymous_stat.st_dev else None
