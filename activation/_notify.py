"""Telling the service manager: sd_notify(3) and sd_watchdog_enabled(3), on the standard library alone."""

from __future__ import annotations

import errno
import os
import socket
import time
from _collections_abc import Iterable  # collections.abc, without the package around it

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

_VSOCK_KINDS: Final = {
    "vsock-stream": [socket.SOCK_STREAM],
    "vsock-dgram": [socket.SOCK_DGRAM],
    "vsock-seqpacket": [socket.SOCK_SEQPACKET],
    # Without a kind it is the first that the host has, as for libsystemd.
    "vsock": [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM],
}
_UNSUPPORTED: Final = (errno.ENODEV, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


def notify(*assignments: str, fds: Iterable[int | HasFileno] = (), unset_env: bool = False) -> bool:
    """Tell the service manager, in one message. sd_pid_notify_with_fds(3); Go: ``daemon.SdNotify``.

    Args:
        assignments: each ``NAME=value``: :data:`READY`, ``"STATUS=Serving 3 clients"``, ...
        fds: descriptors that go with it, for FDSTORE=1 and the like; at most 253, and over a Unix socket only.
        unset_env: remove NOTIFY_SOCKET from ``os.environ``, whatever the outcome.

    Returns:
        Whether there is a manager to tell: False without NOTIFY_SOCKET.

    Raises:
        ValueError: an assignment is none or has a newline, or there are too many descriptors; nothing was sent.
        ActivationError: NOTIFY_SOCKET is no address of a known form.
        OSError: the manager cannot be reached; its ``filename`` is the address.
    """
    try:
        return _tell(assignments, fds, 0)
    finally:
        if unset_env:
            unset("NOTIFY_SOCKET")


def notify_at_once(*assignments: str) -> bool:
    """As :func:`notify`, but without waiting for a manager that does not read: that is a BlockingIOError."""
    return _tell(assignments, (), socket.MSG_DONTWAIT)


def check_address() -> None:
    """Raise the ActivationError that every :func:`notify` would raise for this NOTIFY_SOCKET."""
    if address := environ().get("NOTIFY_SOCKET"):
        _parse(address)


def _tell(assignments: tuple[str, ...], fds: Iterable[int | HasFileno], flags: int) -> bool:
    message = "\n".join(_checked(assignments)).encode("utf-8", "surrogateescape")
    numbers = [item if isinstance(item, int) else item.fileno() for item in fds]
    if len(numbers) > MOST_DESCRIPTORS:
        raise ValueError(f"{len(numbers)} descriptors are too many for one message; at most {MOST_DESCRIPTORS} fit")
    address = environ().get("NOTIFY_SOCKET")
    if not address:
        return False
    family, kinds, where = _parse(address)
    if numbers and family != socket.AF_UNIX:
        raise ValueError(f"descriptors cannot go to {address}: only a Unix socket carries them")
    try:
        _send(family, kinds, where, message, numbers, flags)
    except OSError as error:
        said = f"cannot tell the service manager: {error.strerror or error}"
        raise OSError(error.errno, said, address) from error
    if test := surroundings():
        test.told()
    return True


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


def _parse(address: str) -> tuple[int, list[socket.SocketKind], str | tuple[int, int]]:
    if address.startswith("/") and len(address) > 1:
        return socket.AF_UNIX, [socket.SOCK_DGRAM], address
    if address.startswith("@") and len(address) > 1:
        return socket.AF_UNIX, [socket.SOCK_DGRAM], "\0" + address[1:]
    kind, *numbers = address.split(":")
    if kind in _VSOCK_KINDS and len(numbers) == 2 and all(map(_is_32_bit, numbers)):
        return socket.AF_VSOCK, _VSOCK_KINDS[kind], (int(numbers[0]), int(numbers[1]))
    raise ActivationError(
        f"NOTIFY_SOCKET is {address[:200]!r}; expected a path from /, @abstract, or vsock:CID:PORT; "
        "whatever started this process must set it so, or unset it"
    )


def _is_32_bit(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < (1 << 32) - 1


def _send(
    family: int, kinds: list[socket.SocketKind], where: object, message: bytes, numbers: list[int], flags: int
) -> None:
    with _socket(family, kinds) as sock:
        sock.connect(where)  # type: ignore[arg-type]  # a path or a pair of numbers, as the family wants it
        if sock.type == socket.SOCK_STREAM:
            sock.sendall(message + b"\n", flags)
        elif numbers:
            socket.send_fds(sock, [message], numbers)
        else:
            sock.send(message, flags)


def _socket(family: int, kinds: list[socket.SocketKind]) -> socket.socket:
    *preferred, last = kinds
    for kind in preferred:
        try:
            return socket.socket(family, kind)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return socket.socket(family, last)


def monotonic_usec() -> str:
    """Return ``MONOTONIC_USEC=`` with the time of now, which RELOADING=1 needs. Go: ``daemon.SdNotifyMonotonicUsec``.

    CLOCK_MONOTONIC in microseconds.
    """
    return f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_enabled(unset_env: bool = False) -> float | None:
    """Return within how many seconds the manager expects each ``WATCHDOG=1``, None if it does not.

    sd_watchdog_enabled(3), WatchdogSec= of systemd.service(5); Go: ``daemon.SdWatchdogEnabled``. Tell it about twice as
    often.

    Args:
        unset_env: remove WATCHDOG_USEC and WATCHDOG_PID from ``os.environ``, whatever the outcome.

    Raises:
        ActivationError: one of them is no plain decimal number, or the time is 0.
    """
    try:
        pid = number("WATCHDOG_PID")
        if pid is not None and pid != os.getpid():
            return None
        microseconds = number("WATCHDOG_USEC")
        if microseconds == 0:
            raise ActivationError("WATCHDOG_USEC is '0'; expected a time in microseconds, or no such variable")
        return microseconds / 1e6 if microseconds else None
    finally:
        if unset_env:
            unset("WATCHDOG_USEC", "WATCHDOG_PID")


async def notify_barrier(timeout: float) -> bool:
    """Wait until the service manager has taken in all that was told before. sd_notify_barrier(3).

    Go: ``daemon.SdNotifyBarrier``. For what must not overtake a message: an exit after a last word, say.

    Args:
        timeout: how many seconds to wait at most.

    Returns:
        True once it has; False without NOTIFY_SOCKET, and if it did not in time.

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
