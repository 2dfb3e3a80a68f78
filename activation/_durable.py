"""Durable connections in the life of a daemon: from the accept to their end, and from one process to the next.

In the order to read: _durable_options, what a user can choose; _durable_slot, how one connection's bytes and state are
kept, the heart of it; _durable_memory, where the slots are; _durable_queue, what keeps the connections open;
_durable_store, whether the service manager does its part; _durable_recovery, how the next process finds them;
_durable_connection, what is committed, and how it ends; _durable_stream, what a handler sees; this module.
"""

from __future__ import annotations

import logging
import math
import socket
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from ._durable_listener import DurableListener, Holding
from ._durable_recovery import open_kept
from ._durable_stream import DurableStream
from ._environment import surroundings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from ._durable_connection import DurableConnection
    from ._durable_options import Durable
    from ._durable_recovery import Kept
    from ._durable_slot import Slot

    Handler: TypeAlias = Callable[[Any], Awaitable[object]]

log = logging.getLogger("activation")

ALL: Final = ""
"""What the handler is called that is the only one."""
OTHERS: Final = "*"
"""What the handler is called that takes what no other does."""

_used: Final = Lock()


def _use() -> Lock:
    """What the serve() of this process that has durable connections holds, in whichever of its threads."""
    test = surroundings()
    if test is None:
        return _used
    used: Lock = test.variables.setdefault("durable connections", Lock())
    return used


class DurableConnections:
    """The durable connections of one serve().

    Attributes:
        suspending: whether handlers end where they wait for input.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._streams: set[DurableConnection] = set()
        self._listeners: list[DurableListener] = []
        self._holding = Holding(kept)
        self.suspending = False

    @classmethod
    async def open(cls, options: Durable) -> DurableConnections | None:
        """Find what an earlier process has left, and have a place for more.

        None where no manager keeps anything and that is all right.

        Raises:
            ValueError: another serve() of this process has durable connections.
            ActivationError, OSError: as :func:`open_kept`.
        """
        use = _use()
        if not use.acquire(blocking=False):
            raise ValueError(
                "another serve() of this process has durable connections, and only one at a time can; give one serve() "
                'all handlers, by the names of their sockets: serve({"chat": chat, "admin": admin}, durable=True)'
            )
        durable = None
        try:
            if kept := await open_kept(options):
                durable = cls(kept)
            return durable
        finally:
            if durable is None:
                use.release()

    def begin(
        self,
        listeners: Sequence[tuple[trio.abc.Listener[Any], Handler]],
        connected: Sequence[tuple[trio.abc.AsyncResource, Handler]],
        handlers: Mapping[str, Handler],
    ) -> tuple[list[tuple[trio.abc.Listener[Any], Handler]], list[tuple[trio.abc.AsyncResource, Handler]]]:
        """Make what is served durable.

        Args:
            listeners: with their handlers; what they accept will outlive this process.
            connected: connections that were accepted before.
            handlers: by name, under which the next process looks for them; no two are the same object. The only
                handler is called :data:`ALL`. A connection whose handler is not among them any more goes on with that
                one, or with the one that takes what is left; where there is none, it ends.

        Returns:
            The listeners to accept on, and the connections that there are, with those that an earlier process has left.

        Raises:
            OSError: there is no room for what is connected.
        """
        names = {id(handler): name for name, handler in handlers.items()}  # not each can be hashed
        accepting: list[tuple[trio.abc.Listener[Any], Handler]] = []
        for listener, handler in listeners:
            assert isinstance(listener, trio.SocketListener)  # it was checked before
            self._listeners.append(DurableListener(listener, self._holding, names[id(handler)], self._begin))
            accepting.append((self._listeners[-1], handler))
        streams: list[tuple[trio.abc.AsyncResource, Handler]] = []
        for stream, handler in connected:
            assert isinstance(stream, trio.SocketStream)
            slot = self._holding.prepare(names[id(handler)])
            self._holding.hold(slot, stream.socket)
            streams.append((self._begin(stream.socket, slot), handler))
        others = handlers.get(OTHERS, handlers.get(ALL))
        left: Counter[str] = Counter()
        for slot in self._kept.resumed:
            sock = socket.socket(fileno=slot.fd)
            sock.setblocking(False)
            resumed = self._begin(trio.socket.from_stdlib_socket(sock), slot)
            going_on = handlers.get(slot.name, others)
            if going_on is None:
                left[slot.name] += 1
            streams.append((resumed, going_on or _end))
        for name, count in left.items():
            log.warning("durable: no handler is called %r any more; its %d connections end", name, count)
        return accepting, streams

    def _begin(self, sock: trio.socket.SocketType, slot: Slot) -> DurableStream:
        stream = DurableStream(sock, slot, self)
        self._streams.add(stream)
        return stream

    async def run(self, handler: Handler, stream: trio.abc.AsyncResource) -> None:
        """Run the handler; what it raises is raised when its client was shown the end.

        Where it had ended before the earlier process did, there is only that end to show.
        """
        assert isinstance(stream, DurableStream)
        try:
            if not stream.closing:
                with stream.scope:
                    await handler(stream)
                if self._goes_on(stream):
                    return
            await stream.finish()
        except Exception:
            if not self._goes_on(stream):
                await stream.abort()
            raise
        finally:
            if not stream.ended:
                self._leave(stream)

    def _goes_on(self, stream: DurableConnection) -> bool:
        """Whether the handler did not end by itself, however it ended: it was cut, and the next process goes on."""
        cut = stream.scope.cancel_called or trio.current_effective_deadline() == -math.inf
        return cut or not self._kept.memory.owned

    def suspend(self) -> None:
        """End the handlers where they wait for input and all that they did was committed, now and later.

        Where no manager keeps connections, or not any more, nothing of that: no next process goes on with them.
        """
        if self._kept.outlive:
            self.suspending = True
            for stream in self._streams:
                stream.suspend()

    def release(self, stream: DurableConnection) -> None:
        """The connection has ended, and its slot is free."""
        self._streams.discard(stream)
        self._holding.release()

    def _leave(self, stream: DurableConnection) -> None:
        self._streams.discard(stream)
        if not self._kept.queue:
            stream.discard()
            self._holding.release()
        stream.leave()

    def close(self) -> None:
        """Leave what is left to the next process, or to the next serve() of this one."""
        try:
            for listener in self._listeners:
                listener.detach()
            for stream in list(self._streams):
                self._leave(stream)
            self._kept.close()
        finally:
            _use().release()


async def _end(_: DurableStream) -> None:
    """Be the handler of a connection that nobody handles."""
