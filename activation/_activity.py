"""What a daemon has to do: its open connections, work that is no connection, and the clock that runs without any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.lowlevel import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Hashable


class Activity:
    """The connections and the work of all serve() of a daemon, which have one idle clock.

    Each serve() with an ``idle_timeout`` waits in :meth:`idle`, then stops accepting and waits in :meth:`all_idle`.
    None of them has left before all of them have stopped accepting: whoever was accepted by one of them meanwhile
    keeps them all.

    Attributes:
        connections: how many are open.
        work: how many ``busy()`` blocks are entered.
        arrivals: where to wait until there is more to do.
        leaving: which serve() leave, since the clock has run out.
    """

    __slots__ = (
        *("_changes", "_departures", "_ended_by_last_work", "_paused", "_timeouts"),
        *("arrivals", "connections", "leaving", "work"),
    )

    def __init__(self) -> None:
        self.connections = 0
        self.work = 0
        self.arrivals = ParkingLot()
        self.leaving: set[Hashable] = set()
        self._departures = ParkingLot()
        self._changes = ParkingLot()
        self._timeouts: dict[Hashable, float] = {}
        self._paused: set[Hashable] = set()
        self._ended_by_last_work: set[trio.CancelScope] = set()

    def connect(self) -> None:
        self.connections += 1
        self._arrived()

    def disconnect(self) -> None:
        self.connections -= 1
        if not self.connections and not self.work and self._departures:
            self._departures.unpark_all()

    def begin_work(self) -> None:
        self.work += 1
        self._arrived()

    def end_work(self) -> None:
        self.work -= 1
        if not self.work:
            # At once: a task that takes one piece of work after another would be in the next one a moment later.
            for scope in self._ended_by_last_work:
                scope.cancel()
            if not self.connections and self._departures:
                self._departures.unpark_all()

    def _arrived(self) -> None:
        if self.arrivals:
            self.arrivals.unpark_all()
        if self._changes:
            self._changes.unpark_all()

    async def work_done(self, scope: trio.CancelScope) -> None:
        """Cancel the scope, which is around the caller, as soon as no ``busy()`` block is entered."""
        if not self.work:
            scope.cancel()
            return
        self._ended_by_last_work.add(scope)
        try:
            await trio.sleep_forever()
        finally:
            self._ended_by_last_work.remove(scope)

    # The idle clock

    def join(self, server: Hashable, timeout: float) -> None:
        """Let the serve() share the clock; the longest timeout of all is the clock's."""
        self._timeouts[server] = timeout
        self._arrived()  # who waits already looks at the timeouts again

    def leave(self, server: Hashable) -> None:
        self._timeouts.pop(server, None)
        self.leaving.discard(server)
        self._arrived()

    async def idle(self) -> None:
        """Wait until there has been nothing to do for the clock's time."""
        while True:
            while self.connections or self.work:
                await self._departures.park()
            with trio.move_on_after(max(self._timeouts.values())) as limit:
                await self.arrivals.park()
            if limit.cancelled_caught and not self.connections and not self.work:
                return

    async def all_idle(self, server: Hashable) -> bool:
        """Wait until every serve() that shares the clock has stopped accepting; return whether they are to leave."""
        self._paused.add(server)
        try:
            while True:
                if server in self.leaving:
                    return True
                if self.connections or self.work:
                    return False
                if self._paused >= self._timeouts.keys() - self.leaving:
                    self.leaving |= self._paused
                    self._changes.unpark_all()
                    return True
                await self._changes.park()
        finally:
            self._paused.remove(server)
