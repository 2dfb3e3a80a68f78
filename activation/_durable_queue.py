"""The queue in which the connections themselves are held: messages with descriptors, in a pair of sockets.

The service manager holds both ends of the pair, so what is in the queue stays open, whatever happens to this process,
and the manager has two descriptors, however many connections there are. The next start looks at all messages without
taking them out, MSG_PEEK of recv(2): that installs copies of the descriptors and leaves them there.

One message holds a new connection. Messages can be taken out at the front only, so what has ended is dropped by sending
what lives once more, up to 253 in a message, and then taking the old ones out. A process that is killed in between
leaves some connections in two messages, which is no harm: they are told by their SO_COOKIE.

A connection that was accepted and finds no room would be lost at a stop. So the queue has a reserve: a descriptor that
waits in another pair of sockets, and gives its place to such a connection. Without the reserve, nobody is accepted.
"""

from __future__ import annotations

import array
import errno
import os
import resource
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from ._notify import MOST_DESCRIPTORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._durable_slot import Slot

_SO_PEEK_OFF: Final = 42
_BUFFER: Final = 1 << 22
"""Bytes that are asked for; the kernel gives what net.core.wmem_max allows."""
_MESSAGE: Final = 1024
"""Bytes of it that a short message takes, at most."""
_SPARE: Final = 64
"""Descriptors in messages that are left to other programs of the same user."""
_ANCILLARY_SIZE: Final = socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
_BODY: Final = (b".",)
_SOCKET: Final = socket.SOL_SOCKET
_RIGHTS: Final = socket.SCM_RIGHTS
_SEND_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_PEEK: Final = socket.MSG_PEEK | socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


class HoldingQueue:
    """Messages that hold connections.

    Attributes:
        ends: the two sockets; what is sent on the first is received on the second.
    """

    def __init__(self, ends: tuple[socket.socket, socket.socket] | None = None) -> None:
        """Make a new one, or go on with what another process has left in ``ends``, in whichever order."""
        self.ends = ends or socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in self.ends:
            end.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, -1)  # another process may have ended while it looked
        if _has_messages(self.ends[0]):
            self.ends = (self.ends[1], self.ends[0])
        self.ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        # What each message holds; a connection that has ended, or lies in another message too, may be None.
        self._messages: deque[list[Slot | None]] = deque()
        self._living = self._held = 0
        room = self.ends[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // _MESSAGE
        self._most_messages = max(4, room * 3 // 4)
        # The kernel counts the descriptors in messages for each user, and has this limit for those without privileges.
        self._most_held = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE)
        # The next start opens all that live, and beside them those of one message that have ended.
        self._batch = max(1, min(MOST_DESCRIPTORS, self._most_held // 4))
        self._reserve = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._has_reserve = False

    @property
    def capacity(self) -> int:
        """How many connections it can hold; the rest of its room is for those that have ended."""
        return max(1, min(self._most_held * 3 // 4, self._most_messages // 2 * self._batch))

    def make_room(self) -> None:
        """Have room for one more.

        Raises:
            OSError: ENOBUFS, there is none; else as :meth:`hold`.
        """
        if self._is_full():
            self.clean()
            if self._is_full():
                raise OSError(errno.ENOBUFS, f"{self._living} connections are as many as can be held")
        if not self._has_reserve:
            try:
                self._make_reserve()
            except OSError:
                # Others of the same user may have taken what this queue still has for connections that have ended.
                self._clean_if_possible()
                self._make_reserve()

    def hold(self, slot: Slot) -> None:
        """Hold the slot's connection, at the cost of the reserve if there is no room for it otherwise.

        Raises:
            OSError: the kernel has no room: ETOOMANYREFS, EAGAIN, ENOBUFS, ENOMEM.
        """
        message = [(_SOCKET, _RIGHTS, array.array("i", [slot.fd]))]
        try:
            self.ends[0].sendmsg(_BODY, message, _SEND_FLAGS)
        except OSError:
            if not self._has_reserve:
                raise
            self._has_reserve = False
            self._reserve[1].recv(1, socket.MSG_DONTWAIT)
            self.ends[0].sendmsg(_BODY, message, _SEND_FLAGS)
        self._messages.append([slot])
        self._held += 1
        self._living += 1

    def release(self) -> None:
        """One of the connections has ended; its slot is no longer alive."""
        self._living -= 1
        self._clean_if_worthwhile()

    def clean(self) -> None:
        """Take out what has ended.

        Raises:
            OSError: as :meth:`hold`.
        """
        # A clean that failed has left some in two messages.
        found: set[Slot] = set()
        batch: list[Slot | None] = []
        seen = 0
        while self._messages and not any(slot is not None and slot.alive for slot in self._messages[0]):
            self._take_out(1)
        for _ in range(len(self._messages)):
            for slot in self._messages[seen]:
                if slot is not None and slot.alive and slot not in found:
                    found.add(slot)
                    batch.append(slot)
            seen += 1
            while len(batch) >= self._batch:
                self._send(batch[: self._batch])
                del batch[: self._batch]
                # The last one seen stays until what is left of it was sent, too.
                left = int(bool(batch))
                self._take_out(seen - left)
                seen = left
        if batch:
            self._send(batch)
        self._take_out(seen)

    def contents(self) -> Iterator[list[int]]:
        """Copies of the descriptors that another process has left in it, message by message; they are the caller's.

        One message's are opened at a time, so that there is room for all that live beside those that have ended.

        Raises:
            OSError: EMFILE, there are more than this process may have open.
        """
        exit_ = self.ends[1]
        exit_.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, 0)
        try:
            while True:
                try:
                    _, ancillary, flags, _ = exit_.recvmsg(1, _ANCILLARY_SIZE, _PEEK)
                except BlockingIOError:
                    return
                fds = array.array("i")
                for _, _, data in ancillary:
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                if flags & socket.MSG_CTRUNC:
                    for number in fds:
                        os.close(number)
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                yield list(fds)
        finally:
            exit_.setsockopt(socket.SOL_SOCKET, _SO_PEEK_OFF, -1)

    def resume(self, messages: list[list[Slot | None]]) -> None:
        """Go on with :meth:`contents`, now that it is known which connections they are. Each is there once."""
        self._messages = deque(messages)
        self._held = sum(map(len, messages))
        self._living = sum(slot is not None for message in messages for slot in message)
        self._clean_if_worthwhile()

    def close(self) -> None:
        """Close this process's copies of the ends."""
        for end in (*self.ends, *self._reserve):
            end.close()

    def detach(self) -> list[int]:
        """Give this process's copies of the ends away."""
        for end in self._reserve:
            end.close()
        return [end.detach() for end in self.ends]

    def _clean_if_worthwhile(self) -> None:
        if not self._living or self._held > 2 * self._living + MOST_DESCRIPTORS:
            self._clean_if_possible()

    def _clean_if_possible(self) -> None:
        try:
            self.clean()
        except OSError:
            pass  # nothing is lost by that, and it is tried again

    def _is_full(self) -> bool:
        return len(self._messages) >= self._most_messages or self._held >= self._most_held

    def _make_reserve(self) -> None:
        fds = array.array("i", [self.ends[1].fileno()])
        self._reserve[0].sendmsg(_BODY, [(_SOCKET, _RIGHTS, fds)], _SEND_FLAGS)
        self._has_reserve = True

    def _send(self, slots: list[Slot | None]) -> None:
        fds = array.array("i", [slot.fd for slot in slots if slot is not None])
        self.ends[0].sendmsg(_BODY, [(_SOCKET, _RIGHTS, fds)], _SEND_FLAGS)
        self._messages.append(slots)
        self._held += len(slots)

    def _take_out(self, count: int) -> None:
        for _ in range(count):
            # The kernel closes what comes with it and is not asked for.
            self.ends[1].recv(1, socket.MSG_DONTWAIT)
            self._held -= len(self._messages.popleft())


def _has_messages(end: socket.socket) -> bool:
    try:
        end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True
