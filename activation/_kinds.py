"""What a passed descriptor is, in words, and whether a socket unit may have passed it."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from ._sockets import borrowed

if TYPE_CHECKING:
    from ._files import File

CONNECTION = "connection"
"""The name of what Accept=yes of systemd.socket(5) has accepted."""


class Kind:
    """What a descriptor is that somebody has to serve.

    Attributes:
        is_stream: whether it is a stream socket that listens or is connected.
        is_socket: whether it is a socket at all.
    """

    __slots__ = ("is_socket", "is_stream", "words")

    def __init__(self, words: str, *, is_stream: bool = False, is_socket: bool = False) -> None:
        self.words = words
        self.is_stream = is_stream
        self.is_socket = is_socket

    def __str__(self) -> str:
        return self.words


def kind_of(file: File) -> Kind | None:
    """What a socket unit, or OpenFile= of systemd.service(5), has passed; None for what was stored by the program.

    Which of them it was cannot be known for sure. Connected sockets, memfds, pipes and the like come back from the
    manager's file descriptor store, and no unit passes them, but for the connection of Accept=yes.
    """
    descriptor = file.fileno()
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        with borrowed(descriptor) as sock:
            return None if sock is None else _kind_of_socket(sock, file.name)
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None  # without /proc a pipe cannot be told from a FIFO
    if not path.startswith("/") or path.endswith(" (deleted)"):
        return None
    if stat.S_ISFIFO(mode):
        return Kind(f"the FIFO {path}")
    return Kind(f"the {'device' if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 'file'} {path}")


def _kind_of_socket(sock: socket.socket, name: str) -> Kind | None:
    if sock.family == getattr(socket, "AF_NETLINK", None):
        return Kind("a netlink socket", is_socket=True)
    listens = bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    if not listens and _is_connected(sock) and name != CONNECTION:
        return None
    words = {
        socket.SOCK_STREAM: "a stream socket",
        socket.SOCK_SEQPACKET: "a socket of sequential packets",
        socket.SOCK_DGRAM: "a datagram socket",
    }.get(socket.SocketKind(sock.type), "a raw socket")
    return Kind(words, is_stream=sock.type == socket.SOCK_STREAM, is_socket=True)


def _is_connected(sock: socket.socket) -> bool:
    # After a reset there is no peer any more, but nobody binds a stream that is to be stored: it is no listener.
    if sock.type in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        return True
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
