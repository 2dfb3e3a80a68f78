"""Socket addresses as systemd and people write them, and the sockets they stand for."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any, Self

import attrs
import trio

from ._stdio import reason

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMS = "a path, @abstract, port, host:port, [v6]:port or vsock:cid:port"


@attrs.frozen
class Address:
    """Where to connect to or to listen.

    Attributes:
        text: as it was written.
        family: ``socket.AF_UNIX``, ``AF_VSOCK``, or ``AF_UNSPEC`` where the host's name decides.
        where: the path (null first where it is abstract), (host, port) or (cid, port); a host of "" is this machine.
    """

    text: str
    family: socket.AddressFamily
    where: Any


def parse(text: str) -> Address:
    """Read an address.

    Raises:
        ValueError: it has none of the forms; the message says what was found and what was expected.
    """
    if text.startswith("@") and len(text) > 1:
        return Address(text, socket.AF_UNIX, "\0" + text[1:])
    if _is_number(text):
        return Address(text, socket.AF_UNSPEC, ("", _port(text, text)))
    if text.startswith("vsock:"):
        numbers = text.split(":")[1:]
        if len(numbers) != 2 or not all(_is_number(number) and int(number) < 1 << 32 for number in numbers):
            raise ValueError(f"{text!r} is no vsock address; expected vsock:cid:port with two numbers of 32 bits")
        return Address(text, socket.AF_VSOCK, (int(numbers[0]), int(numbers[1])))
    if "/" in text or (text and ":" not in text and not text.startswith("@")):
        return Address(text, socket.AF_UNIX, text)
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not _is_number(port) or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is no address; expected {FORMS}")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{text!r} has a host name that cannot be one; expected {FORMS}: {error}") from None
    return Address(text, socket.AF_UNSPEC, (host[1:-1] if bracketed else host, _port(port, text)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _port(digits: str, text: str) -> int:
    if int(digits) > 65535:
        raise ValueError(f"{text!r} has the port {digits}; expected 0 to 65535")
    return int(digits)


async def connect(address: Address) -> trio.SocketStream:
    """Connect to what listens there.

    Raises:
        OSError: nothing does, or it cannot be reached.
    """
    if address.family == socket.AF_UNSPEC:
        host, port = address.where
        return await trio.open_tcp_stream(host or "localhost", port)
    sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
    try:
        await sock.connect(address.where)
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


class ListeningSockets:
    """Listening stream sockets of our own making. Leaving the block closes them and removes the paths they made."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._paths: list[tuple[str, os.stat_result]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self.sockets:
            sock.close()
        for path, made in self._paths:
            try:
                if os.path.samestat(os.lstat(path), made):  # somebody else's may have taken its place
                    os.unlink(path)
            except OSError:
                pass

    def listen(self, address: Address) -> None:
        """Listen there. A path that a socket left behind is taken over; one that is in use is not.

        Raises:
            OSError: that cannot be done; the message tells the address.
        """
        try:
            self.sockets.append(self._bound(address))
            self.sockets[-1].listen(socket.SOMAXCONN)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address.text}: {reason(error)}") from error

    def _bound(self, address: Address) -> socket.socket:
        if address.family == socket.AF_UNSPEC:
            return _bound_tcp(*address.where)
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            path = address.where if address.family == socket.AF_UNIX and address.where[0] != "\0" else None
            if path is not None:
                _remove_stale(path)
            sock.bind(address.where)
            if path is not None:
                self._paths.append((os.path.abspath(path), os.lstat(path)))
        except BaseException:
            sock.close()
            raise
        return sock


def _bound_tcp(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return _bind(socket.AF_INET6, ("::", port), dual_stack=True)
    # A host's name may stand for several addresses; as a service manager does, one line makes one socket.
    found: Sequence[Any] = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, where = found[0]
    return _bind(family, where, dual_stack=False)


def _bind(family: int, where: Any, *, dual_stack: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        sock.bind(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: str) -> None:
    """Make way for a new socket where nobody listens any more."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue means that somebody listens, too
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:
            raise OSError(errno.EADDRINUSE, "it is in use by another process") from None
        else:
            raise OSError(errno.EADDRINUSE, "it is in use by another process")
