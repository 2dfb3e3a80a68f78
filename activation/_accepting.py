"""Accepting on the listeners of one serve(), as far as max_connections and the system's resources allow."""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

if TYPE_CHECKING:
    from ._connections import Connections, Handler

log = logging.getLogger("activation")

CAPACITY_ERRORS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.ETOOMANYREFS}
)
CAPACITY_WAIT = 0.1
"""Seconds until accepting is tried again after one of these errors."""
CAPACITY_LOG_INTERVAL = 60.0
"""Seconds between two lines about that in the log, at least."""

SHARED_WAIT = 0.05
"""Seconds that an accept may take below max_connections, once a client was there."""

Listener: TypeAlias = "trio.abc.Listener[Any]"


class Accepting:
    """The listeners of one serve(), each with the handler of its connections."""

    __slots__ = (
        *("_connections", "_max_connections", "_reserved", "_reserved_for_tls", "_told_of_capacity"),
        "listeners",
    )

    def __init__(
        self, listeners: list[tuple[Listener, Handler]], connections: Connections, max_connections: int | None
    ) -> None:
        self.listeners = listeners
        self._connections = connections
        self._max_connections = max_connections
        self._reserved = 0  # places that accepts under way have taken
        self._reserved_for_tls = 0
        self._told_of_capacity = -CAPACITY_LOG_INTERVAL

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Accept on all listeners; return at once where there are none."""
        async with trio.open_nursery() as loops:
            for listener, handler in self.listeners:
                if self._max_connections is None:
                    await loops.start(self._accept, listener, handler)
                else:
                    await loops.start(self._accept_below_limit, listener, handler, self._max_connections)
            task_status.started()

    async def _accept(self, listener: Listener, handler: Handler, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                await self._wait_for_capacity(error)
            else:
                self._connections.begin(stream, handler)

    async def _accept_below_limit(
        self, listener: Listener, handler: Handler, limit: int, *, task_status: trio.TaskStatus[None]
    ) -> None:
        # The place that is kept while this loop waits for a client can be missed only by another listener.
        waiting = _socket(listener) if len(self.listeners) > 1 else None
        tls = hasattr(listener, "transport_listener")
        task_status.started()
        while True:
            await self._reserve(limit, waiting, tls=tls)
            stream = None
            try:
                if len(self.listeners) > 1:
                    # Nor is it kept for a client whom another process on the same socket has accepted.
                    with trio.move_on_after(SHARED_WAIT):
                        stream = await listener.accept()
                else:
                    stream = await listener.accept()
            except OSError as error:
                await self._wait_for_capacity(error)
            finally:
                self._reserved -= 1
                self._reserved_for_tls -= tls
                if self._connections.departures:
                    self._connections.departures.unpark_all()
            if stream is not None:
                self._connections.begin(stream, handler)

    async def _reserve(self, limit: int, waiting: trio.socket.SocketType | None, *, tls: bool) -> None:
        """Wait for a place, and before it is taken for a client, where one can be waited for."""
        while True:
            while self._is_full(limit, tls=tls):
                await self._connections.departures.park()
            # No place is kept for clients who may never come, while another listener has some.
            if waiting is not None:
                await trio.lowlevel.wait_readable(waiting)
            else:
                await trio.lowlevel.checkpoint()
            if not self._is_full(limit, tls=tls):
                self._reserved += 1
                self._reserved_for_tls += tls
                return

    def _is_full(self, limit: int, *, tls: bool) -> bool:
        if self._connections.open + self._reserved >= limit:
            return True
        # Clients who do not finish their handshake are not to keep out everybody else.
        return tls and self._connections.handshaking + self._reserved_for_tls >= max(1, limit // 2)

    async def _wait_for_capacity(self, error: OSError) -> None:
        if error.errno not in CAPACITY_ERRORS:
            raise error
        now = trio.current_time()
        if now - self._told_of_capacity >= CAPACITY_LOG_INTERVAL:
            self._told_of_capacity = now
            log.warning(
                "cannot accept: %s; %d connections are open, new ones wait", error.strerror, self._connections.open
            )
        await trio.sleep(CAPACITY_WAIT)


def _socket(listener: Listener) -> trio.socket.SocketType | None:
    """What a listener accepts on, where it tells."""
    return getattr(getattr(listener, "transport_listener", listener), "socket", None)
