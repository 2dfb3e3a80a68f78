"""Accepting connections that outlive the process: from accept(2) to the queue that holds them, as short as can be."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import ParkingLot, checkpoint, wait_readable

from ._durable_recovery import SO_COOKIE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._durable_recovery import Kept
    from ._durable_slot import Slot
    from ._durable_stream import DurableStream

_CLIENT_IS_GONE: Final = frozenset(
    {errno.EPERM, errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN}
    | {errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH}
)
"""What accept(2) says of a connection that broke before it was accepted."""


class Holding:
    """Gives each connection its slot, and has the queue hold it.

    Attributes:
        count: how many connections there are.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._capacity = kept.capacity
        self.count = len(kept.resumed)
        # Prepared ahead, so that nothing has to be done for it once a connection is there.
        self._spare: Slot | None = None
        self.departures = ParkingLot()

    async def wait_for_room(self) -> None:
        """Wait until there can be one more."""
        while self.count >= self._capacity:
            await self.departures.park()

    def prepare(self, name: str) -> Slot:
        """Have a slot ready for a connection whose handler has this name; it is there for the next one that is held.

        Raises:
            OSError: there is no room for it.
        """
        if self._kept.queue:
            self._kept.queue.make_room()
        if self._spare is None or self._spare.name != name:
            self._spare = self._kept.memory.prepare(name)
        return self._spare

    def hold(self, slot: Slot, sock: socket.socket | trio.socket.SocketType) -> None:
        """Let the connection outlive this process, in a slot that was prepared just now.

        Raises:
            OSError: the kernel has no room for it; nothing has changed.
        """
        slot.begin(sock.fileno(), sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))
        if self._kept.queue:
            try:
                self._kept.queue.hold(slot)
            except BaseException:
                slot.abandon()
                raise
        self._spare = None
        self.count += 1

    def release(self) -> None:
        """One of the connections has ended."""
        self.count -= 1
        if self._kept.queue:
            self._kept.queue.release()
        # All listeners look again: the place is for whichever of them has a client.
        if self.departures:
            self.departures.unpark_all()


class DurableListener(trio.abc.Listener["DurableStream"]):
    """A listener whose connections outlive this process.

    Attributes:
        socket: the trio socket that it accepts on.
    """

    def __init__(
        self,
        listener: trio.SocketListener,
        holding: Holding,
        name: str,
        begin: Callable[[trio.socket.SocketType, Slot], DurableStream],
    ) -> None:
        self.socket = listener.socket
        self._listener, self._holding, self._name, self._begin = listener, holding, name, begin
        # The same descriptor, not another, for accept() without what trio does around it; trio's socket closes it.
        own = listener.socket
        self._sock = socket.socket(own.family, own.type, own.proto, own.fileno())
        self._sock.setblocking(False)
        self._unheld: socket.socket | None = None

    async def accept(self) -> DurableStream:
        """Accept one connection, as ``trio.SocketListener`` does, and have it held.

        Raises:
            OSError: the process or the system is out of descriptors or memory. What was accepted and could not be held
                is tried again the next time.
            trio.ClosedResourceError: the listener was closed.
        """
        await checkpoint()
        while True:
            await self._holding.wait_for_room()
            slot = self._holding.prepare(self._name)
            if self.socket.fileno() < 0:
                raise trio.ClosedResourceError
            try:
                sock = self._unheld or self._sock.accept()[0]
            except BlockingIOError:
                await wait_readable(self.socket)
                continue
            except OSError as error:
                if error.errno in _CLIENT_IS_GONE:
                    continue
                raise
            self._unheld = sock
            self._holding.hold(slot, sock)
            self._unheld = None
            sock.setblocking(False)
            # For the options that trio sets.
            return self._begin(trio.SocketStream(trio.socket.from_stdlib_socket(sock)).socket, slot)

    async def aclose(self) -> None:
        """Close this process's descriptor."""
        self.detach()
        await self._listener.aclose()

    def detach(self) -> None:
        """Leave the descriptor to the listener that this one was made from."""
        if self._unheld:
            self._unheld.close()
            self._unheld = None
        if self._sock.fileno() >= 0:
            self._sock.detach()
