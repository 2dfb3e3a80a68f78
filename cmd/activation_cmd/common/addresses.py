"""Socket addresses as systemd and people write them, and the sockets they stand for."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from . import leftovers
from .stdio import reason

if TYPE_CHECKING:
    import trio

ANY_CID = 0xFFFFFFFF
"""VMADDR_CID_ANY of vsock(7): whichever number this machine has."""

FORMS = "a path with a slash in it, @abstract, port, host:port, [v6]:port or vsock:cid:port"


class Address(NamedTuple):
    """Where to connect or to listen.

    Attributes:
        text: as it was written.
        family: ``socket.AF_UNIX``, ``AF_VSOCK``, or ``AF_UNSPEC`` where the host's name decides.
        where: the path (null first where it is abstract), (host, port) or (cid, port). A host of "" is this machine,
            and so is ``ANY_CID``, which may be left out; one of IPv6 may end in ``%`` and an interface.
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
        if numbers[0] == "":
            numbers[0] = str(ANY_CID)
        if len(numbers) != 2 or not all(_is_number(number) and int(number) < 1 << 32 for number in numbers):
            raise ValueError(f"{text!r} is no vsock address; expected vsock:cid:port with two numbers of 32 bits")
        return Address(text, socket.AF_VSOCK, (int(numbers[0]), int(numbers[1])))
    if "/" in text:
        return Address(text, socket.AF_UNIX, text)
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if "%" in port and (bracketed or _is_v4(host)):  # the interface comes last, as in systemd.socket(5)
        port, _, interface = port.partition("%")
        host = f"{host[:-1]}%{interface}]" if bracketed else host  # it means nothing to IPv4
    if not host or not _is_number(port) or (":" in host and not bracketed):
        raise ValueError(f"{text!r} is no address; expected {FORMS}")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{text!r} has a host name that cannot be one; expected {FORMS}: {error}") from None
    return Address(text, socket.AF_UNSPEC, (host[1:-1] if bracketed else host, _port(port, text)))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10


def _is_v4(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True


def _port(digits: str, text: str) -> int:
    if int(digits) > 65535:
        raise ValueError(f"{text!r} has the port {digits}; expected 0 to 65535")
    return int(digits)


async def connect(address: Address) -> trio.SocketStream:
    """Connect to what listens there.

    Raises:
        OSError: nothing does, or it cannot be reached.
    """
    import trio  # only here, because socket-activate reads addresses before it loads trio

    if address.family == socket.AF_UNSPEC:
        host, port = address.where
        if "%" not in host:
            return await trio.open_tcp_stream(host or "localhost", port)
        family, where = find(address, socket.SOCK_STREAM, socket.AI_NUMERICHOST)
        address = Address(address.text, socket.AddressFamily(family), where)
    sock = trio.socket.socket(address.family, socket.SOCK_STREAM)
    try:
        await sock.connect(address.where)
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


def find(address: Address, kind: int, flags: int = 0) -> tuple[int, Any]:
    """The family and the address for a socket to bind to.

    Args:
        address: where to bind. Of a name that stands for several addresses, the first one is taken.
        kind: ``socket.SOCK_STREAM`` or another.
        flags: more flags for getaddrinfo(3). With ``socket.AI_NUMERICHOST``, no name is looked up, which never blocks.

    Raises:
        OSError: there is no such host or network interface.
    """
    if address.family != socket.AF_UNSPEC:
        return address.family, address.where
    host, port = address.where
    if not host:
        return (socket.AF_INET6, ("::", port)) if socket.has_dualstack_ipv6() else (socket.AF_INET, ("", port))
    host, _, interface = host.partition("%")
    family, _, _, _, where = socket.getaddrinfo(host, port, type=kind, flags=flags | socket.AI_PASSIVE)[0]
    if interface:
        # Not by getaddrinfo(3), which takes the names of interfaces for link-local addresses only.
        where = (*where[:3], _interface(interface))
    return family, where


def _interface(name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise OSError(error.errno, f"there is no network interface {name}") from None


class ListeningSockets:
    """Listening stream sockets of our own making. Leaving the block closes them and removes the paths they made."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self._end = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def listen(self, address: Address) -> None:
        """Listen there. A path that a socket left behind is taken over; one that is in use is not.

        Raises:
            OSError: that cannot be done; the message tells the address.
        """
        try:
            family, where = find(address, socket.SOCK_STREAM)
            sock = self._end.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_UNIX and where[0] != "\0":
                leftovers.make_way(where)
                sock.bind(where)
                path = os.path.abspath(where)
                made = leftovers.identity(leftovers.SOCKET, path)
                self._end.callback(leftovers.remove, leftovers.SOCKET, path, made)
            else:
                sock.bind(where)
            sock.listen(socket.SOMAXCONN)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address.text}: {reason(error)}") from error
        self.sockets.append(sock)
