"""The life of a daemon, which all serve() of a process share: it hears signals, stops, reloads and tells the manager.

Whoever serves joins it. The tasks that the life needs run in the nursery of the first server, and move to another's
when that one leaves.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

import trio

from ._activity import Activity
from ._daemon_var import DaemonVar
from ._manager import Manager
from ._reloads import Reloads
from ._signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Server(Protocol):
        """What the life has to know of a serve()."""

        @property
        def drain_timeout(self) -> float: ...
        @property
        def status(self) -> Callable[[int], str] | None: ...
        @property
        def notify(self) -> bool: ...
        def drain(self) -> None: ...
        def cut(self) -> None: ...


log = logging.getLogger("activation")

ONE_STOP = 0.25
"""Seconds after a stop in which further signals belong to it: of systemd, which signals every process of a service, and
of a wrapper, which forwards its own."""


class Life:
    """The life of one daemon. It begins with the first serve() and ends with the last one.

    Attributes:
        activity: the connections and the work of all servers.
        reloads: what is done at SIGHUP.
        manager: who is told of all this.
        is_ready: whether one of the servers accepts, or has accepted.
        stopped_at: the time at which the daemon was told to stop, None before.
        interrupted: whether it was told by SIGINT, as somebody at a terminal does, and not by a service manager.
        until: the scopes to cancel at that time.
    """

    __slots__ = (
        *("_has_begun", "_is_led", "_next_leaders", "_servers", "_signals"),
        *("activity", "interrupted", "is_ready", "manager", "reloads", "stopped_at", "until"),
    )

    manager: Manager

    def __init__(self) -> None:
        self.activity = Activity()
        self.reloads = Reloads(self)
        self.is_ready = False
        self.stopped_at: float | None = None
        self.interrupted = False
        self.until: set[trio.CancelScope] = set()
        self._servers: list[Server] = []
        self._has_begun = False
        self._signals = Signals()
        self._is_led = False
        self._next_leaders = trio.lowlevel.ParkingLot()  # no trio.Lock: see _manager.py

    @property
    def is_stopping(self) -> bool:
        return self.stopped_at is not None

    @property
    def is_over(self) -> bool:
        """Whether the daemon was told to stop, and all its servers have left."""
        return self._has_begun and self.is_stopping and not self._servers

    # The servers

    def join(self, server: Server, *, reloads: bool) -> None:
        if not self._servers:
            self._has_begun, self.is_ready = True, False
            self.manager = Manager(self)
        if server.notify:
            self.manager.listen()
        self._signals.hear(signal.SIGTERM, signal.SIGINT)
        # A manager that reloads a service by SIGHUP does not mean to kill one that has nothing to reload.
        if reloads or self.manager.reloads_by_signal:
            self._signals.hear(signal.SIGHUP)
        self._servers.append(server)  # last: what cannot be heard raises, and then this one has not joined

    async def lead(self) -> None:
        """Do what has to be done for the whole daemon, once nobody else does it."""
        while self._is_led:
            await self._next_leaders.park()
        self._is_led = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow_signals)
                nursery.start_soon(self.manager.run)
        finally:
            self._is_led = False
            self._next_leaders.unpark()

    def ready(self, server: Server) -> None:
        """Take note that the server accepts."""
        self.is_ready = True
        if server.notify:
            self.manager.ready()
        self.reloads.begin()

    async def last_words(self, server: Server) -> None:
        """Wait a moment for what the manager was not told yet, if nobody stays who will tell it."""
        if self._servers == [server]:
            await self.manager.last_words()

    def leave(self, server: Server) -> None:
        self._servers.remove(server)
        if not self._servers:
            # Whoever sends another signal to stop wants no more than this. A late SIGHUP is not to kill anybody.
            self._signals.end(taken=set(signal.Signals) if self.is_stopping else {signal.SIGHUP})
            self._has_begun = self.is_stopping

    def leave_idle(self) -> None:
        """Stop, unless a server stays that does not leave when idle."""
        if self.activity.leaving.issuperset(self._servers):
            self.stop()

    # Stopping

    async def _follow_signals(self) -> None:
        while True:
            number = await self._signals.next()
            if number == signal.SIGHUP:
                self.reloads.request()
            else:
                self._end_by(signal.Signals(number).name)

    def _end_by(self, name: str) -> None:
        if self.stopped_at is None:
            connections, seconds = self.activity.connections, self._longest_drain()
            log.info("%s: no more clients are accepted; %d connections have %g s to finish", name, connections, seconds)
            self.interrupted = name == "SIGINT"
            self.stop()
        elif trio.current_time() - self.stopped_at < ONE_STOP:
            log.debug("%s again, within %g s: it is the same stop", name, ONE_STOP)
        else:
            log.info("%s again: %d connections are cut", name, self.activity.connections)
            for server in self._servers:
                server.cut()

    def stop(self) -> None:
        """Tell everybody that it is time to leave."""
        if self.is_stopping:
            return
        self.stopped_at = trio.current_time()
        for server in self._servers:
            server.drain()
        for scope in self.until:
            scope.cancel()
        if self._servers:
            self.manager.stopping()

    def needs_time(self) -> bool:
        """Whether a reload is under way, or a drain."""
        if self.stopped_at is not None:
            return trio.current_time() < self.stopped_at + self._longest_drain()
        return self.reloads.running > 0

    def _longest_drain(self) -> float:
        return max(server.drain_timeout for server in self._servers)

    @property
    def status_function(self) -> Callable[[int], str] | None:
        """What makes the status out of the number of connections, if a server has said it."""
        return next((server.status for server in self._servers if server.status), None)


_life: DaemonVar[Life | None] = DaemonVar("activation_life", None)


def current_life() -> Life:
    """The life of the calling task's daemon, which may be over, or not have begun.

    Raises:
        RuntimeError: the caller is outside of trio.
    """
    life = _life.get()
    if life is None:
        life = Life()
        _life.set(life)
    return life


def life_to_join() -> Life:
    """The life that a serve() joins: a new one if the last one is over."""
    life = current_life()
    if life.is_over:
        life = Life()
        _life.set(life)
    return life
