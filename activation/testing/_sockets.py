"""The sockets that a test passes to its daemon, and how clients reach them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio

from activation import SeqpacketChannel
from activation._descriptor_store import is_name
from activation._types import HasFileno

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("unix", "tcp", "udp", "unix-datagram", "seqpacket")

What: TypeAlias = str | HasFileno
"""A kind of socket, or what to pass itself. Not a Literal: a dictionary in a variable would need an annotation."""


@attrs.frozen(eq=False)
class Passed:
    """A descriptor that is passed to the daemon.

    Attributes:
        name: as in LISTEN_FDNAMES.
        holder: the socket that the kit made, or what the test gave.
        path: where the kit bound a Unix socket.
    """

    name: str
    holder: HasFileno
    path: str | None = None

    def close(self) -> None:
        """Close the socket if it is the kit's own."""
        if isinstance(self.holder, _Own):
            self.holder.close()


class _Own(socket.socket):
    """A socket that the kit made and has to close."""


def make(sockets: Mapping[str, What] | Iterable[tuple[str, What]], folder: str) -> list[Passed]:
    """Make the sockets whose kinds are given, with the paths of Unix sockets in ``folder``; take others as they are."""
    passed: list[Passed] = []
    try:
        pairs = sockets.items() if isinstance(sockets, Mapping) else sockets
        for name, what in pairs:
            if not is_name(name) or not name:
                raise ValueError(
                    f"{name!r} cannot be a descriptor's name; expected 1 to 255 characters of printable ASCII without "
                    "spaces and colons"
                )
            if not isinstance(what, str):
                passed.append(Passed(name, what))
            elif what in KINDS:
                passed.append(_made(name, what, os.path.join(folder, f"{len(passed)}.sk")))
            else:
                raise ValueError(f"{what!r} of {name!r} is no kind of socket; expected {', '.join(KINDS)}, or a socket")
    except BaseException:
        for item in passed:
            item.close()
        raise
    return passed


def _made(name: str, kind: str, path: str) -> Passed:
    family = socket.AF_INET if kind in ("tcp", "udp") else socket.AF_UNIX
    type_ = {"udp": socket.SOCK_DGRAM, "unix-datagram": socket.SOCK_DGRAM, "seqpacket": socket.SOCK_SEQPACKET}.get(
        kind, socket.SOCK_STREAM
    )
    sock = _Own(family, type_)
    try:
        sock.bind(("127.0.0.1", 0) if family == socket.AF_INET else path)
        if type_ != socket.SOCK_DGRAM:
            sock.listen(socket.SOMAXCONN)
    except BaseException:
        sock.close()
        raise
    return Passed(name, sock, path if family == socket.AF_UNIX else None)


def address(passed: Passed) -> Any:
    """Return where clients reach the socket: a path, or a host and a port."""
    with _borrowed(passed) as sock:
        name = sock.getsockname()
        # An IPv6 address has four parts. A client needs the first two.
        return name[:2] if sock.family in (socket.AF_INET, socket.AF_INET6) else name


def addresses(passed: Iterable[Passed]) -> set[Any]:
    """Return the addresses of those that are sockets."""
    found = set()
    for item in passed:
        try:
            found.add(address(item))
        except ValueError:
            pass  # it is no socket
    return found


async def connect(passed: Passed) -> Any:
    """Connect a client: a stream, a channel of messages, or a datagram socket."""
    with _borrowed(passed) as sock:
        family, kind, name = sock.family, sock.type, sock.getsockname()
        listens = kind == socket.SOCK_DGRAM or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not name or not listens:
        raise ValueError(
            f"the socket {passed.name!r} takes no clients; expected one that listens, or a datagram socket"
        )
    own = socket.socket(family, kind)
    if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
        own.bind("")  # to an address that the kernel chooses, so that the daemon can answer: unix(7), autobind
    client = trio.socket.from_stdlib_socket(own)
    try:
        await client.connect(name)
    except BaseException:
        client.close()
        raise
    if kind == socket.SOCK_STREAM:
        return trio.SocketStream(client)
    return SeqpacketChannel(client) if kind == socket.SOCK_SEQPACKET else client


class _borrowed:  # noqa: N801  # a context manager that is used like a function
    """Lend a socket object for the descriptor, which still belongs to its holder."""

    def __init__(self, passed: Passed) -> None:
        try:
            self._sock = socket.socket(fileno=passed.holder.fileno())
        except OSError as error:
            if error.errno != errno.ENOTSOCK:
                raise
            raise ValueError(f"the descriptor {passed.name!r} is no socket, so it has no address") from None

    def __enter__(self) -> socket.socket:
        return self._sock

    def __exit__(self, *_: object) -> None:
        self._sock.detach()
