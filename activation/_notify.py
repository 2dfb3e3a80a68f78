"""Telling the service manager: sd_notify(3) and sd_watchdog_enabled(3), on the standard library alone."""

from __future__ import annotations

import errno
import os
import socket
import time
from _collections_abc import Iterable  # collections.abc, without the package around it

from . import _notify_socket
from ._environment import ActivationError, environ, number, surroundings, unset
from ._types import HasFileno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


READY: Final = "READY=1"
"""Start-up is finished, or a reload is. Go: ``daemon.SdNotifyReady``."""
STOPPING: Final = "STOPPING=1"
"""Shutting down; final: nothing brings the service back but its exit. Go: ``daemon.SdNotifyStopping``."""
RELOADING: Final = "RELOADING=1"
"""The configuration is being read again; goes with :func:`monotonic_usec`. Go: ``daemon.SdNotifyReloading``."""
WATCHDOG: Final = "WATCHDOG=1"
"""Still alive. Go: ``daemon.SdNotifyWatchdog``."""

MOST_DESCRIPTORS: Final = 253
"""In one message: the kernel's SCM_MAX_FD."""

_INFINITE: Final = (1 << 64) - 1
"""Microseconds: systemd's USEC_INFINITY, which is no time."""


def notify(*assignments: str, fds: Iterable[int | HasFileno] = (), unset_env: bool = False) -> bool:
    """Send one message to the service manager. sd_pid_notify_with_fds(3); Go: ``daemon.SdNotify``.

    The first message opens a socket, which this process keeps: later ones can be sent even when it may open no more
    descriptors (EMFILE). Without room in the manager's queue, it waits.

    Args:
        assignments: each ``NAME=value``: :data:`READY`, ``"STATUS=Serving 3 clients"``, ...
        fds: descriptors that go with it, for FDSTORE=1 and the like; at most 253, and over a Unix socket only.
        unset_env: remove NOTIFY_SOCKET from ``os.environ`` and close the socket, whatever the outcome.

    Returns:
        True if the message was sent, False without NOTIFY_SOCKET.

    Raises:
        ValueError: an assignment is not ``NAME=value``, or has a newline, or there are too many descriptors. Nothing
            was sent.
        ActivationError: NOTIFY_SOCKET is no address of a known form.
        OSError: the manager cannot be reached; ``filename`` is its address.
    """
    try:
        told = _tell(assignments, fds, 0)
        if told and any(assignment.startswith("STATUS=") for assignment in assignments):
            _told_status.add(environ()["NOTIFY_SOCKET"])
        return told
    finally:
        if unset_env:
            unset("NOTIFY_SOCKET")
            _notify_socket.close()


_told_status: Final[set[str]] = set()
"""The managers, by their addresses, to which the program has told a STATUS= of its own."""


def tells_status() -> bool:
    """Whether the program has told its manager a STATUS= by :func:`notify`, which no other is to replace."""
    return environ().get("NOTIFY_SOCKET") in _told_status


def notify_at_once(*assignments: str) -> bool:
    """Do what :func:`notify` does, but raise BlockingIOError where that would wait for the manager."""
    return _tell(assignments, (), socket.MSG_DONTWAIT)


async def notify_on_trio(*assignments: str) -> bool:
    """Do what :func:`notify_at_once` does, but wait, on trio, for the connection that vsock-stream takes."""
    try:
        return notify_at_once(*assignments)
    except BlockingIOError as error:
        if error.errno != errno.EINPROGRESS:
            raise
    address = environ()["NOTIFY_SOCKET"]
    try:
        await _notify_socket.send_connecting(_notify_socket.parse(address), _message(assignments))
    except OSError as error:
        raise _unreachable(error, address) from error
    if test := surroundings():
        test.told()
    return True


def check_address() -> None:
    """Raise the ActivationError that every :func:`notify` would raise for this NOTIFY_SOCKET."""
    if address := environ().get("NOTIFY_SOCKET"):
        _notify_socket.parse(address)


def be_ready_to_notify() -> None:
    """Open what notifications need, while there are descriptors. Where there are none, the first message opens it.

    Raises:
        ActivationError: NOTIFY_SOCKET is no address of a known form.
    """
    if address := environ().get("NOTIFY_SOCKET"):
        try:
            _notify_socket.open_ahead(_notify_socket.parse(address))
        except OSError:
            pass


def _tell(assignments: tuple[str, ...], fds: Iterable[int | HasFileno], flags: int) -> bool:
    message = _message(assignments)
    numbers = [item if isinstance(item, int) else item.fileno() for item in fds]
    if len(numbers) > MOST_DESCRIPTORS:
        raise ValueError(f"{len(numbers)} descriptors are too many for one message; at most {MOST_DESCRIPTORS} fit")
    address = environ().get("NOTIFY_SOCKET")
    if not address:
        return False
    parsed = _notify_socket.parse(address)
    if numbers and parsed[0] != socket.AF_UNIX:
        raise ValueError(f"descriptors cannot go to {address}: only a Unix socket carries them")
    try:
        _notify_socket.send(parsed, message, numbers, flags)
    except OSError as error:
        raise _unreachable(error, address) from error
    if test := surroundings():
        test.told()
    return True


def _unreachable(error: OSError, address: str) -> OSError:
    return OSError(error.errno, f"cannot tell the service manager: {error.strerror or error}", address)


def _message(assignments: tuple[str, ...]) -> bytes:
    return "\n".join(_checked(assignments)).encode("utf-8", "surrogateescape")


def _checked(assignments: tuple[str, ...]) -> tuple[str, ...]:
    if not assignments:
        raise ValueError('there is nothing to tell; expected assignments such as "READY=1"')
    for assignment in assignments:
        name, equals, _ = assignment.partition("=")
        if not (name and equals) or "\n" in assignment:
            raise ValueError(
                f"{assignment!r} cannot be told; expected NAME=value without a newline, which would begin the next one"
            )
    return assignments


def monotonic_usec() -> str:
    """Return ``MONOTONIC_USEC=`` with the time of now, which RELOADING=1 needs. Go: ``daemon.SdNotifyMonotonicUsec``.

    CLOCK_MONOTONIC in microseconds.
    """
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_enabled(unset_env: bool = False) -> float | None:
    """Return how many seconds the service manager allows between two ``WATCHDOG=1``; None if it expects none.

    sd_watchdog_enabled(3), WatchdogSec= of systemd.service(5); Go: ``daemon.SdWatchdogEnabled``. Send ``WATCHDOG=1``
    about twice in that time.

    Args:
        unset_env: remove WATCHDOG_USEC and WATCHDOG_PID from ``os.environ``, whatever the outcome.

    Returns:
        None without WATCHDOG_USEC, and where WATCHDOG_PID is another process's.

    Raises:
        ActivationError: one of them is no plain decimal number, or the time is 0 or infinite. A bad WATCHDOG_USEC is an
            error even where WATCHDOG_PID is another process's, as in Go.
    """
    try:
        microseconds = number("WATCHDOG_USEC")
        if microseconds is None:
            return None
        if not 0 < microseconds < _INFINITE:
            raise ActivationError(
                f"WATCHDOG_USEC is '{microseconds}'; expected a time in microseconds, or no such variable"
            )
        pid = number("WATCHDOG_PID")
        return microseconds / 1e6 if pid in (None, os.getpid()) else None
    finally:
        if unset_env:
            unset("WATCHDOG_USEC", "WATCHDOG_PID")


async def notify_barrier(timeout: float) -> bool:
    """Wait until the service manager has processed every message sent before. sd_notify_barrier(3).

    Go: ``daemon.SdNotifyBarrier``. Use it before something that must not overtake a message, such as an exit. It opens
    a pipe, so it fails where a process may open no more descriptors.

    Args:
        timeout: how many seconds to wait at most.

    Returns:
        True once the manager has; False without NOTIFY_SOCKET, and if the time passes first.

    Raises:
        ActivationError, OSError: as :func:`notify`.
    """
    import trio

    reading, writing = os.pipe()
    try:
        try:
            told = notify("BARRIER=1", fds=[writing])
        finally:
            os.close(writing)
        if not told:
            await trio.lowlevel.checkpoint()
            return False
        # The manager closes the end that it was sent, once it has come to this message.
        with trio.move_on_after(timeout):
            await trio.lowlevel.wait_readable(reading)
            return True
        return False
    finally:
        trio.lowlevel.notify_closing(reading)
        os.close(reading)
