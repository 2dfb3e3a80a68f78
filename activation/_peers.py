"""Who is at the other end of a connection, for a log."""

from __future__ import annotations

import socket
import struct

import trio

_CREDENTIALS = "3i"  # ucred of unix(7): process, user, group
_CREDENTIALS_SIZE = 12

_SO_PEERNAME = 28
"""Linux: unlike getpeername(2) it still answers after a reset. socket(7) leaves it out."""


class Peer:
    """The client of a connection, asked for while the connection is open and put into words when that is needed."""

    __slots__ = ("_name",)

    def __init__(self, connection: object) -> None:
        sock = getattr(connection, "socket", None)
        if sock is None and isinstance(connection, trio.SSLStream):
            sock = getattr(connection.transport_stream, "socket", None)
        self._name = _name(sock) if isinstance(sock, trio.socket.SocketType) else None

    def __str__(self) -> str:
        """The address of an internet client, the process and user of a local one."""
        match self._name:
            case None:
                return "a client"
            case bytes() as credentials:
                return "process {} of user {}".format(*struct.unpack(_CREDENTIALS, credentials))
            case (str() as host, port, *_):
                return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            case other:
                return str(other)


def _name(sock: trio.socket.SocketType) -> object:
    try:
        if sock.family == socket.AF_UNIX:
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS_SIZE)
        try:
            return sock.getpeername()
        except OSError:
            return _kept_name(sock)
    except (OSError, AttributeError):
        return None


def _kept_name(sock: trio.socket.SocketType) -> tuple[str, int]:
    # sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address, scope.
    start, length, size = (8, 16, 28) if sock.family == socket.AF_INET6 else (4, 4, 16)
    name = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, size)
    (port,) = struct.unpack_from("!H", name, 2)
    return socket.inet_ntop(sock.family, name[start : start + length]), port
