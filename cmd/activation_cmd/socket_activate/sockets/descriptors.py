"""What each Listen...= directive of systemd.socket(5) opens; everything close-on-exec and blocking."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
from typing import TYPE_CHECKING

from activation_cmd.common.addresses import find, parse
from activation_cmd.common.stdio import reason, say
from activation_cmd.socket_activate.units.listens import netlink_address
from activation_cmd.socket_activate.units.values import INT_MAX

from .options import AF_NETLINK, set_before_binding, set_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from activation_cmd.socket_activate.units.model import Kind, Listen, SocketUnit

    from .nodes import Nodes

TYPES: Mapping[str, socket.SocketKind] = {
    "stream": socket.SOCK_STREAM,
    "datagram": socket.SOCK_DGRAM,
    "seqpacket": socket.SOCK_SEQPACKET,
}

# What SocketProtocol= names; Python has not all of them.
_PROTOCOLS: Mapping[str, int] = {"": 0, "sctp": 132, "udplite": 136, "mptcp": 262}


def _open_socket(unit: SocketUnit, listen: Listen, nodes: Nodes) -> int:
    text, kind = listen.text, TYPES[listen.kind]
    try:
        family, where = find(parse(text), kind, socket.AI_NUMERICHOST)
    except socket.gaierror:
        raise ValueError(f"{text!r} has no number for its host; expected v4:port or [v6]:port") from None
    if kind == socket.SOCK_SEQPACKET and family != socket.AF_UNIX:
        raise ValueError(f"{text!r} has no sequential packets; expected a path or @abstract")
    with socket.socket(family, kind, _PROTOCOLS[unit.protocol]) as sock:
        set_before_binding(sock, unit)
        set_options(sock, unit)
        if family == socket.AF_UNIX and where[0] != "\0":
            nodes.bind(sock, where)
        else:
            sock.bind(where)
        if kind != socket.SOCK_DGRAM:
            # The last step: until everything else is set, no client can connect. The kernel caps the number itself.
            sock.listen(min(unit.backlog, INT_MAX))
        return sock.detach()


def _open_netlink(unit: SocketUnit, listen: Listen, _nodes: Nodes) -> int:
    protocol, groups = netlink_address(listen.text)
    with socket.socket(AF_NETLINK, socket.SOCK_RAW, protocol) as sock:
        set_before_binding(sock, unit)
        set_options(sock, unit)
        sock.bind((0, groups))
        return sock.detach()


def _open_fifo(unit: SocketUnit, listen: Listen, nodes: Nodes) -> int:
    nodes.make_fifo(listen.text)
    descriptor = _open_path(
        listen.text, os.O_RDWR
    )  # as a writer, too: so it does not reach its end when the last client closes it
    if unit.pipe_size is not None:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, min(unit.pipe_size, INT_MAX))
        except OSError as error:
            say("socket-activate", f"{unit.name}: PipeSize={unit.pipe_size} cannot be set: {reason(error)}")
    return descriptor


def _open_special(unit: SocketUnit, listen: Listen, _nodes: Nodes) -> int:
    descriptor = _open_path(listen.text, os.O_RDWR if unit.writable else os.O_RDONLY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISCHR(mode) or stat.S_ISREG(mode)):
            raise ValueError(f"{listen.text!r} is no special file; expected a character device or a file as in /proc")
        _check_pollable(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _open_path(path: str, flags: int) -> int:
    # Without O_NONBLOCK, open(2) itself blocks for some devices.
    descriptor = os.open(path, flags | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW)
    os.set_blocking(descriptor, True)
    return descriptor


def _check_pollable(descriptor: int) -> None:
    if hasattr(select, "epoll"):
        with select.epoll() as poll:
            try:
                poll.register(descriptor)
            except PermissionError as error:
                text = "nobody can wait until it can be read; expected a file that epoll(7) supports"
                raise PermissionError(error.errno, text) from error


def _open_queue(unit: SocketUnit, listen: Listen, nodes: Nodes) -> int:
    from activation_cmd.common import message_queue

    nodes.make_queue(listen.text, unit.message_queue_max_messages, unit.message_queue_message_size)
    return message_queue.open(listen.text, os.O_RDONLY)


OPENERS: Mapping[Kind, Callable[[SocketUnit, Listen, Nodes], int]] = {
    "stream": _open_socket,
    "datagram": _open_socket,
    "seqpacket": _open_socket,
    "fifo": _open_fifo,
    "special": _open_special,
    "netlink": _open_netlink,
    "mqueue": _open_queue,
}
"""By the directive: they open what a line says, or raise ValueError or OSError and leave nothing open."""
