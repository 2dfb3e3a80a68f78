"""From File to standard library socket: finds the passed descriptors that are of a wanted kind."""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ._files import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ._files import File

T = TypeVar("T")


def take(passed: Sequence[File], wanted: Callable[[socket.socket], bool]) -> list[socket.socket | None]:
    """Give away the wanted sockets among ``passed`` and return each at its position.

    None stands for every other descriptor, which is not changed in any way.
    """
    found = [_probe(file.fileno(), wanted) for file in passed]
    return [socket.socket(fileno=file.detach()) if it else None for file, it in zip(passed, found, strict=True)]


def _probe(descriptor: int, wanted: Callable[[socket.socket], bool]) -> bool:
    if descriptor < 0 or not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with borrowed(descriptor) as sock:
        return sock is not None and wanted(sock)


@contextmanager
def borrowed(descriptor: int) -> Iterator[socket.socket | None]:
    """The socket of a descriptor that stays open; None for one opened with O_PATH, which only names a socket."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError:
        yield None
        return
    try:
        yield sock
    finally:
        sock.detach()


def by_name(
    passed: Sequence[File] | None, convert: Callable[[Sequence[File]], Iterable[T | None]]
) -> dict[str, list[T]]:
    """Return what ``convert`` makes of the passed descriptors, without gaps, by the names they came with."""
    passed = files() if passed is None else passed
    named: dict[str, list[T]] = {}
    for file, item in zip(passed, convert(passed), strict=True):
        if item is not None:
            named.setdefault(file.name, []).append(item)
    return named


def is_stream_listener(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_STREAM and _accepts(sock)


def is_seqpacket_listener(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_SEQPACKET and _accepts(sock)


def is_seqpacket_channel(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_SEQPACKET and not _accepts(sock)


def is_packet_conn(sock: socket.socket) -> bool:
    return sock.type == socket.SOCK_DGRAM


def is_stream(sock: socket.socket) -> bool:
    """Whether it is a stream socket with a connection, also one that the client has reset by now."""
    if sock.type != socket.SOCK_STREAM or _accepts(sock):
        return False
    try:
        sock.getpeername()
    except OSError:
        # After a reset there is an end to read, which a socket that never was connected does not have.
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))
    return True


def _accepts(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
