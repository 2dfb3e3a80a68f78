"""Who is at the other end of a connection, in words for a log."""

from __future__ import annotations

import socket
import struct

import trio

_SO_PEERNAME = 28
"""Linux: unlike getpeername(2) it still answers after a reset. socket(7) leaves it out."""


def peer(connection: object) -> str:
    """The address of an internet client, the process and user of a local one."""
    if isinstance(connection, trio.SSLStream):
        connection = connection.transport_stream
    sock = getattr(connection, "socket", None)
    if not isinstance(sock, trio.socket.SocketType) or sock.fileno() < 0:
        return "a client"
    try:
        return _local(sock) if sock.family == socket.AF_UNIX else _remote(sock)
    except (OSError, AttributeError):
        return "a client that is gone"


def _local(sock: trio.socket.SocketType) -> str:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, user, _ = struct.unpack("3i", credentials)
    return f"process {pid} of user {user}"


def _remote(sock: trio.socket.SocketType) -> str:
    try:
        where = sock.getpeername()
    except OSError:
        where = _kept_name(sock)
    host, port = where[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _kept_name(sock: trio.socket.SocketType) -> tuple[str, int]:
    # sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address, scope.
    start, length, size = (8, 16, 28) if sock.family == socket.AF_INET6 else (4, 4, 16)
    name = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, size)
    (port,) = struct.unpack_from("!H", name, 2)
    return socket.inet_ntop(sock.family, name[start : start + length]), port
