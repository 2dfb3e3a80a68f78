"""The socket through which this process tells its service manager.

The first message opens it, and it stays open: a process that may open no more descriptors can still say WATCHDOG=1.
Datagrams go to the manager's address, never over a connection, so a manager that was executed anew or has bound its
address again receives them. A forked child opens a socket of its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from _collections_abc import Sequence  # collections.abc, without the package around it

from ._environment import ActivationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeAlias

    Kinds: TypeAlias = tuple[socket.SocketKind, ...]
    Address: TypeAlias = tuple[int, Kinds, str | tuple[int, int]]
    """A socket family, the kinds of socket to try in order, and the address within the family."""

_VSOCK_KINDS: Final = {
    "vsock-stream": (socket.SOCK_STREAM,),
    "vsock-dgram": (socket.SOCK_DGRAM,),
    "vsock-seqpacket": (socket.SOCK_SEQPACKET,),
    # Without a kind, libsystemd takes the first one that the host has.
    "vsock": (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM),
}
_UNSUPPORTED: Final = (errno.ENODEV, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)

_FIRST_OTHER: Final = 3  # the first descriptor above standard input, output and error

_kept: dict[tuple[int, int, Kinds], tuple[int, tuple[int, int], socket.SocketKind]] = {}
"""For a process, a socket family and kinds of socket: the descriptor, its device and inode, and its kind."""


def parse(address: str) -> Address:
    """Read the value of NOTIFY_SOCKET.

    Raises:
        ActivationError: it is no address of a known form.
    """
    if address.startswith("/") and len(address) > 1:
        return socket.AF_UNIX, (socket.SOCK_DGRAM,), address
    if address.startswith("@") and len(address) > 1:
        return socket.AF_UNIX, (socket.SOCK_DGRAM,), "\0" + address[1:]
    kind, *numbers = address.split(":")
    if kind in _VSOCK_KINDS and len(numbers) == 2 and all(map(_is_32_bit, numbers)):
        return socket.AF_VSOCK, _VSOCK_KINDS[kind], (int(numbers[0]), int(numbers[1]))
    raise ActivationError(
        f"NOTIFY_SOCKET is {address[:200]!r}; expected a path from /, @abstract, or vsock:CID:PORT; "
        "whatever started this process must set it so, or unset it"
    )


def _is_32_bit(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < (1 << 32) - 1


def open_ahead(address: Address) -> None:
    """Open the socket that messages to this address take, and keep it."""
    family, kinds, _ = address
    _keep(family, kinds, _socket(family, kinds))


def send(address: Address, message: bytes, descriptors: Sequence[int], flags: int) -> None:
    """Send one message.

    Args:
        address: where to, as :func:`parse` returns it.
        message: the assignments.
        descriptors: what goes with it; only a Unix socket carries any.
        flags: of sendmsg(2). With MSG_DONTWAIT, an address that takes a connection is a BlockingIOError: use
            :func:`send_connecting`.
    """
    family, kinds, where = address
    sock = _socket(family, kinds)
    if sock.type == socket.SOCK_DGRAM:
        try:
            rights = []
            if descriptors:
                from array import array  # few messages need it

                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
            sock.sendmsg([message], rights, flags, where)
        finally:
            _keep(family, kinds, sock)
    elif flags & socket.MSG_DONTWAIT:
        _keep(family, kinds, sock)
        raise BlockingIOError(errno.EINPROGRESS, os.strerror(errno.EINPROGRESS))
    else:
        _forget(family, kinds)
        with sock:
            sock.connect(where)
            sock.sendall(_framed(message, sock))
        _keep_another(family, kinds)


async def send_connecting(address: Address, message: bytes) -> None:
    """Send one message over a connection of its own, on trio. A connection to a silent host takes two seconds."""
    import trio

    family, kinds, where = address
    sock = _socket(family, kinds)
    _forget(family, kinds)
    with sock:
        sock.setblocking(False)
        try:
            sock.connect(where)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        unsent = _framed(message, sock)
        while unsent:
            try:
                unsent = unsent[sock.send(unsent) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)
    _keep_another(family, kinds)


def kept() -> set[int]:
    """The descriptors that this process keeps open for its messages."""
    return {number for (pid, _, _), (number, _, _) in _kept.items() if pid == os.getpid()}


def close() -> None:
    """Close what this process keeps; a later message opens it again."""
    for pid, family, kinds in list(_kept):
        if pid == os.getpid() and (sock := _kept_socket(family, kinds)):
            _forget(family, kinds)
            sock.close()


def _framed(message: bytes, sock: socket.socket) -> bytes:
    return message + b"\n" if sock.type == socket.SOCK_STREAM else message


def _socket(family: int, kinds: Kinds) -> socket.socket:
    return _kept_socket(family, kinds) or _opened(family, kinds)


def _kept_socket(family: int, kinds: Kinds) -> socket.socket | None:
    number, identity, kind = _kept.get((os.getpid(), family, kinds), (-1, None, socket.SOCK_DGRAM))
    # A program that becomes a daemon may have closed all its descriptors, and the number may be another file's now.
    if number < 0 or _identity(number) != identity:
        _forget(family, kinds)
        return None
    sock = socket.socket(family, kind, 0, number)
    sock.setblocking(True)  # whatever socket.setdefaulttimeout() says
    return sock


def _opened(family: int, kinds: Kinds) -> socket.socket:
    *preferred, last = kinds
    for kind in preferred:
        try:
            return socket.socket(family, kind)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
    return socket.socket(family, last)


def _keep(family: int, kinds: Kinds, sock: socket.socket) -> None:
    kind, number = sock.type, sock.detach()
    if number < _FIRST_OTHER:  # kept there, it would be taken for a standard stream
        low = number
        try:
            number = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _FIRST_OTHER)
        except OSError:
            return
        finally:
            os.close(low)
    identity = _identity(number)
    assert identity
    entry = (number, identity, kind)
    # Another thread may have sent the first message at the same time.
    if _kept.setdefault((os.getpid(), family, kinds), entry) != entry:
        os.close(number)


def _keep_another(family: int, kinds: Kinds) -> None:
    try:
        open_ahead((family, kinds, ""))
    except OSError:
        pass  # the next message tries again


def _forget(family: int, kinds: Kinds) -> None:
    _kept.pop((os.getpid(), family, kinds), None)


def _identity(number: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
