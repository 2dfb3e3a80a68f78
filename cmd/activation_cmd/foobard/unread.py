"""Answers to Unix datagrams. Clients that do not read theirs do not keep the others from getting any."""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from typing import TYPE_CHECKING

import activation

if TYPE_CHECKING:
    import trio

WANTED_ROOM = 1 << 22
"""Bytes of the socket's send buffer; the kernel gives what net.core.wmem_max allows."""


class UnreadAnswers:
    """Sends answers, and knows about how much of each client's is still unread.

    Until a Unix client reads a datagram, it takes up room in the send buffer of the socket from which it came, and all
    answers have to come from the one that the clients know. So none gets more than half of what the others leave. The
    kernel tells only how much is unread in all. When that has become less, the newest answers are taken to be those
    that were read, because who reads at all reads them soon.
    """

    def __init__(self, conn: trio.socket.SocketType) -> None:
        self._conn = conn
        if conn.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < WANTED_ROOM:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WANTED_ROOM)
        self._room = conn.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self._answers: list[tuple[object, int]] = []  # the clients' addresses and the room taken, oldest first
        self._unread = 0

    def send(self, data: bytes | memoryview, client: activation.DatagramClient) -> None:
        """Send an answer, unless the client has left too much unread."""
        before = self._in_buffer()
        self._forget_read(before)
        own = sum(size for address, size in self._answers if address == client.address)
        left_by_others = self._room - (before - own)
        if own + len(data) > left_by_others // 2:
            return
        if activation.send_datagram(self._conn, data, client):
            # Less than was sent, or nothing, if something was read meanwhile.
            size = self._in_buffer() - before
            if size > 0:
                self._answers.append((client.address, size))
                self._unread += size

    def _in_buffer(self) -> int:
        answer = fcntl.ioctl(self._conn.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def _forget_read(self, unread: int) -> None:
        while self._unread > unread and self._answers:
            address, size = self._answers.pop()
            self._unread -= size
            if self._unread < unread:  # a part of it
                self._answers.append((address, unread - self._unread))
                self._unread = unread
