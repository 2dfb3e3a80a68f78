"""Who is at the other end of a stream, in words for a log."""

from __future__ import annotations

import socket
import struct

import trio

_SO_PEERNAME = 28
"""Linux: unlike getpeername(2) it still answers after a reset. socket(7) leaves it out."""


def peer(stream: trio.abc.Stream) -> str:
    """The address of an internet client, the process and user of a local one."""
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream) or stream.socket.fileno() < 0:
        return "a client"
    try:
        if stream.socket.family == socket.AF_UNIX:
            return _local(stream)
        return _remote(stream)
    except (OSError, AttributeError):
        return "a client that is gone"


def _local(stream: trio.SocketStream) -> str:
    credentials = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, user, _ = struct.unpack("3i", credentials)
    return f"process {pid} of user {user}"


def _remote(stream: trio.SocketStream) -> str:
    try:
        where = stream.socket.getpeername()
    except OSError:
        where = _kept_name(stream)
    host, port = where[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _kept_name(stream: trio.SocketStream) -> tuple[str, int]:
    # sockaddr_in: family, port, address; sockaddr_in6: family, port, flow, address, scope.
    start, length, size = (8, 16, 28) if stream.socket.family == socket.AF_INET6 else (4, 4, 16)
    name = stream.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, size)
    (port,) = struct.unpack_from("!H", name, 2)
    return socket.inet_ntop(stream.socket.family, name[start : start + length]), port
