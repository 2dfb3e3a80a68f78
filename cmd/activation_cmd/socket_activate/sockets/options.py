"""The directives of systemd.socket(5) that are an option of the socket; socket(7), ip(7), ipv6(7), tcp(7)."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

from activation_cmd.common.stdio import reason, say
from activation_cmd.socket_activate.units.values import INT_MAX

if TYPE_CHECKING:
    from activation_cmd.socket_activate.units.model import SocketUnit

# Of Linux; Python has no names for these, or not on every system.
IP_PKTINFO, IP_FREEBIND, IP_TRANSPARENT, IPV6_TRANSPARENT, IPV6_FREEBIND = 8, 15, 19, 75, 78
SO_PRIORITY, SO_PASSCRED, SO_BINDTODEVICE, SO_TIMESTAMP, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 12, 16, 25, 29, 32, 33
SO_PASSSEC, SO_TIMESTAMPNS, SO_MARK, SO_PASSPIDFD, SO_PASSRIGHTS = 34, 35, 36, 76, 83
AF_NETLINK, SOL_NETLINK, NETLINK_PKTINFO = 16, 270, 3

IP: Final = frozenset({socket.AF_INET, socket.AF_INET6})
IP4: Final = frozenset({socket.AF_INET})
IP6: Final = frozenset({socket.AF_INET6})
NETLINK: Final = frozenset({AF_NETLINK})
UNIX: Final = frozenset({socket.AF_UNIX})
CREDIBLE: Final = frozenset({socket.AF_UNIX, AF_NETLINK})


def _set(sock: socket.socket, level: int, number: int, value: bool | int | str) -> None:
    if isinstance(value, str):
        sock.setsockopt(level, number, value.encode())
    elif value > INT_MAX:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    else:
        sock.setsockopt(level, number, value)


class Option(NamedTuple):
    """A directive, and the socket option that it sets: to 1, or to its number or text.

    Attributes:
        field: of the model; false, None and "" leave the option as it is.
        on: the one text that turns the option on; any other leaves it as it is.
    """

    directive: str
    field: str
    level: int
    number: int
    families: frozenset[int] | None = None
    type: int | None = None
    on: str | None = None

    def set(self, sock: socket.socket, unit: SocketUnit) -> None:
        """Set the option, if the unit says so and this kind of socket has it."""
        value: bool | int | str | None = getattr(unit, self.field)
        if self.on is not None:
            value = value == self.on
        if value is None or value is False or value == "":
            return
        if (self.families is None or sock.family in self.families) and self.type in (None, sock.type):
            _set(sock, self.level, self.number, value)


# Those that bind(2) and listen(2) look at.
_BINDING: Final = (
    Option("ReusePort", "reuse_port", socket.SOL_SOCKET, socket.SO_REUSEPORT, IP),
    Option("FreeBind", "free_bind", socket.IPPROTO_IP, IP_FREEBIND, IP4),
    Option("FreeBind", "free_bind", socket.IPPROTO_IPV6, IPV6_FREEBIND, IP6),
    Option("Transparent", "transparent", socket.IPPROTO_IP, IP_TRANSPARENT, IP4),
    Option("Transparent", "transparent", socket.IPPROTO_IPV6, IPV6_TRANSPARENT, IP6),
)
_DEVICE: Final = Option("BindToDevice", "bind_to_device", socket.SOL_SOCKET, SO_BINDTODEVICE, IP)

_STREAM: Final = socket.SOCK_STREAM
_OPTIONS: Final = (
    Option("KeepAlive", "keep_alive", socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    Option("KeepAliveTimeSec", "keep_alive_time", socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IP, _STREAM),
    Option("KeepAliveIntervalSec", "keep_alive_interval", socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, IP, _STREAM),
    Option("KeepAliveProbes", "keep_alive_probes", socket.IPPROTO_TCP, socket.TCP_KEEPCNT, IP, _STREAM),
    Option("DeferAcceptSec", "defer_accept", socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, IP, _STREAM),
    Option("NoDelay", "no_delay", socket.IPPROTO_TCP, socket.TCP_NODELAY, IP, _STREAM),
    Option("Broadcast", "broadcast", socket.SOL_SOCKET, socket.SO_BROADCAST),
    Option("PassCredentials", "pass_credentials", socket.SOL_SOCKET, SO_PASSCRED, CREDIBLE),
    Option("PassSecurity", "pass_security", socket.SOL_SOCKET, SO_PASSSEC, CREDIBLE),
    Option("PassPIDFD", "pass_pidfd", socket.SOL_SOCKET, SO_PASSPIDFD, UNIX),
    Option("PassPacketInfo", "pass_packet_info", socket.IPPROTO_IP, IP_PKTINFO, IP4),
    Option("PassPacketInfo", "pass_packet_info", socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, IP6),
    Option("PassPacketInfo", "pass_packet_info", SOL_NETLINK, NETLINK_PKTINFO, NETLINK),
    Option("Timestamping", "timestamping", socket.SOL_SOCKET, SO_TIMESTAMP, on="us"),
    Option("Timestamping", "timestamping", socket.SOL_SOCKET, SO_TIMESTAMPNS, on="ns"),
    Option("Priority", "priority", socket.SOL_SOCKET, SO_PRIORITY),
    Option("Mark", "mark", socket.SOL_SOCKET, SO_MARK),
    Option("IPTOS", "ip_tos", socket.IPPROTO_IP, socket.IP_TOS, IP),
    Option("IPTTL", "ip_ttl", socket.IPPROTO_IP, socket.IP_TTL, IP4),
    Option("IPTTL", "ip_ttl", socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, IP6),
    Option("TCPCongestion", "tcp_congestion", socket.IPPROTO_TCP, socket.TCP_CONGESTION, IP, _STREAM),
)

# The first of each pair may exceed the system's limit, and takes CAP_NET_ADMIN.
_BUFFERS: Final = (
    (
        Option("ReceiveBuffer", "receive_buffer", socket.SOL_SOCKET, SO_RCVBUFFORCE),
        Option("ReceiveBuffer", "receive_buffer", socket.SOL_SOCKET, socket.SO_RCVBUF),
    ),
    (
        Option("SendBuffer", "send_buffer", socket.SOL_SOCKET, SO_SNDBUFFORCE),
        Option("SendBuffer", "send_buffer", socket.SOL_SOCKET, socket.SO_SNDBUF),
    ),
)


def set_before_binding(sock: socket.socket, unit: SocketUnit) -> None:
    """Set what counts when the socket is bound.

    Raises:
        OSError: there is no such device, or it may not be used.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6 and unit.bind_ipv6_only != "default":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, unit.bind_ipv6_only == "ipv6-only")
    try:
        _DEVICE.set(sock, unit)
    except OSError as error:
        raise OSError(error.errno, f"BindToDevice={unit.bind_to_device}: {reason(error)}") from error
    _set_all(_BINDING, sock, unit)


def set_options(sock: socket.socket, unit: SocketUnit) -> None:
    """Set the other options, on a listening socket or on a connection. As in systemd, a failure is only reported."""
    _set_all(_OPTIONS, sock, unit)
    if not unit.accept_file_descriptors and sock.family == socket.AF_UNIX:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        except OSError as error:
            say("socket-activate", f"{unit.name}: AcceptFileDescriptors=no cannot be set: {reason(error)}")
    for forced, limited in _BUFFERS:
        try:
            forced.set(sock, unit)
        except OSError:
            _set_all((limited,), sock, unit)


def _set_all(options: tuple[Option, ...], sock: socket.socket, unit: SocketUnit) -> None:
    for option in options:
        try:
            option.set(sock, unit)
        except OSError as error:
            value = getattr(unit, option.field)
            text = "yes" if value is True else value
            say("socket-activate", f"{unit.name}: {option.directive}={text} cannot be set: {reason(error)}")
