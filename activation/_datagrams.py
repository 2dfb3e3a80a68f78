"""Datagrams that are answered from the address, and on the interface, to which the question came.

A socket on a wildcard address receives what is sent to any address of the host. Its answers leave from the address that
the routing table prefers, unless each says otherwise: IP_PKTINFO of ip(7), IPV6_PKTINFO of ipv6(7).
"""

from __future__ import annotations

import _socket
import errno
import socket
import struct
import sys
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import attrs
import trio

LARGEST_DATAGRAM = 65536
"""Bytes: no datagram of UDP is longer."""

IP_PKTINFO: int = getattr(socket, "IP_PKTINFO", 8)  # Linux's; Python has it since 3.14
_INFO_4 = struct.Struct("=i4s4s")  # in_pktinfo: interface, local address to answer from, address in the header
_INFO_6 = struct.Struct("=16sI")  # in6_pktinfo: address, interface
_ANCILLARY_SIZE = 256
_MAPPED = bytes(10) + b"\xff\xff"  # of an IPv4 address on a socket for both

_OF_EARLIER_ANSWERS = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN})
_NO_SUCH_SOURCE = frozenset({errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENODEV})


@attrs.frozen
class DatagramClient:
    """Who sent a datagram, and where to. Equal for datagrams of one client to one address, and hashable.

    Attributes:
        address: the sender's address, as ``recvfrom`` of :class:`socket.socket` returns it.
        server_address: the address of this host to which the datagram was sent; None where the socket has only one, and
            for Unix and vsock sockets.
        interface: the number of the interface on which it came, 0 where that is not known: if_indextoname(3).
    """

    address: Any
    server_address: str | None = None
    interface: int = attrs.field(default=0, eq=False)


async def receive_datagram(
    conn: trio.socket.SocketType, max_size: int = LARGEST_DATAGRAM
) -> tuple[bytes, DatagramClient]:
    """Wait for the next datagram; return it and its sender, whom :func:`send_datagram` answers.

    ::

        while True:
            data, client = await activation.receive_datagram(conn)
            activation.send_datagram(conn, data, client)

    UDP sockets on a wildcard address get IP_PKTINFO or IPV6_RECVPKTINFO, which ``PassPacketInfo=`` of systemd.socket(5)
    sets, too. Descriptors that a Unix client sends along are not received.

    Args:
        conn: what :func:`packet_conns` returned, or any datagram socket of trio.
        max_size: in bytes; the rest of a longer datagram is lost.

    Raises:
        trio.ClosedResourceError: the socket was closed.
    """
    _check_open(conn)
    wants_info = _wants_info(conn)
    while True:
        try:
            if wants_info:
                data, ancillary, _, address = await conn.recvmsg(max_size, _ANCILLARY_SIZE)
                return data, DatagramClient(address, *_destination(ancillary))
            data, address = await conn.recvfrom(max_size)
            return data, DatagramClient(address)
        except OSError as error:
            if error.errno not in _OF_EARLIER_ANSWERS:
                raise
            await trio.lowlevel.checkpoint()


def send_datagram(conn: trio.socket.SocketType, data: bytes | bytearray | memoryview, client: DatagramClient) -> bool:
    """Send a datagram to a client, from the address, and on the interface, to which the client sent its own.

    It does not wait. Like the network, it loses a datagram for which there is no room.

    Args:
        conn: the socket on which the client's datagram came.
        data: the datagram.
        client: what :func:`receive_datagram` returned.

    Returns:
        True if the kernel took the datagram. False where it cannot be sent to this client, now or at all: there is no
        room, the client is gone or has no address, it is too long.

    Raises:
        trio.ClosedResourceError: the socket was closed.
    """
    _check_open(conn)
    # The class below socket.socket: it is made in a sixth of the time.
    sock = _socket.socket(conn.family, socket.SOCK_DGRAM, 0, conn.fileno())
    try:
        if client.server_address is None:
            return _sent(sock, data, [], client.address) is None
        failed = _sent(sock, data, _source(sock.family, client.server_address, client.interface), client.address)
        if failed in _NO_SUCH_SOURCE:
            # The route back is another interface's, or the address in the header was a broadcast one.
            failed = _sent(sock, data, _source(sock.family, client.server_address, 0), client.address)
            if failed == errno.EINVAL and not client.interface:
                failed = _sent(sock, data, [], client.address)
        return failed is None
    finally:
        sock.detach()


def _check_open(conn: trio.socket.SocketType) -> None:
    if conn.fileno() < 0:
        raise trio.ClosedResourceError("this socket was already closed")


def _sent(
    sock: _socket.socket, data: bytes | bytearray | memoryview, ancillary: list[tuple[int, int, bytes]], address: Any
) -> int | None:
    """Send it now, and return the number of the error if that fails."""
    try:
        if ancillary:
            sock.sendmsg([data], ancillary, socket.MSG_DONTWAIT, address)
        elif address:
            sock.sendto(data, socket.MSG_DONTWAIT, address)
        else:  # a connected socket has the address itself; a Unix client without a name has none
            sock.send(data, socket.MSG_DONTWAIT)
    except OSError as error:
        return error.errno or errno.EINVAL
    return None


_wanting: WeakKeyDictionary[trio.socket.SocketType, bool] = WeakKeyDictionary()


def _wants_info(conn: trio.socket.SocketType) -> bool:
    """Whether its datagrams have to tell where they were sent to; from now on they do."""
    wants = _wanting.get(conn)
    if wants is None:
        is_inet = conn.family in (socket.AF_INET, socket.AF_INET6)
        wants = sys.platform == "linux" and is_inet and _is_on_wildcard(conn)
        if wants and conn.family == socket.AF_INET:
            conn.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        elif wants:
            conn.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        _wanting[conn] = wants
    return wants


def _is_on_wildcard(conn: trio.socket.SocketType) -> bool:
    host = conn.getsockname()[0].partition("%")[0]
    return not any(socket.inet_pton(conn.family, host).removeprefix(_MAPPED))


def _destination(ancillary: list[tuple[int, int, bytes]]) -> tuple[str | None, int]:
    """The address and the interface of what was received, from which it can be answered."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            address, interface = _INFO_6.unpack_from(data)
            return _source_address(address), interface
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            interface, local, in_header = _INFO_4.unpack_from(data)
            # What came before the option was set, such as the datagram that started this process, has the header only.
            return _source_address(local if any(local) else in_header), interface
    return None, 0


@lru_cache
def _source_address(packed: bytes) -> str:
    """The address as text; the wildcard for a multicast or broadcast address, from which nothing can leave."""
    family = socket.AF_INET6 if len(packed) == 16 else socket.AF_INET
    last = packed.removeprefix(_MAPPED)
    nobody = last[0] == 0xFF if len(last) == 16 else last[0] & 0xF0 == 0xE0 or last == b"\xff" * 4
    return socket.inet_ntop(family, bytes(len(packed)) if nobody else packed)


@lru_cache
def _source(family: int, host: str, interface: int) -> list[tuple[int, int, bytes]]:
    """The ancillary data that has an answer leave from there."""
    packed = socket.inet_pton(family, host)
    if family == socket.AF_INET6:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _INFO_6.pack(packed, interface))]
    return [(socket.IPPROTO_IP, IP_PKTINFO, _INFO_4.pack(interface, packed, bytes(4)))]
