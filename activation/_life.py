"""The life of a daemon, which all serve() of a process share: it hears signals, stops, reloads and tells the manager.

Whoever serves joins it. The tasks that the life needs run in the nursery of the first that joined, and go over to
another's when that one leaves.
"""

from __future__ import annotations

import logging
import signal
from typing import Protocol

import attrs
import trio

from ._activity import Activity
from ._daemon_var import DaemonVar
from ._environment import environ
from ._notify import READY, STOPPING
from ._reloads import Reloads
from ._reports import EXTENSION, Reports
from ._signals import Signals

log = logging.getLogger("activation")

EXTEND_TIMEOUT = f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}"

STATUS_INTERVAL = 1.0
"""Seconds between two STATUS=, at least."""


class Server(Protocol):
    """What the life has to know of a serve()."""

    @property
    def drain_timeout(self) -> float: ...
    def drain(self) -> None: ...
    def cut(self) -> None: ...


@attrs.define(eq=False)
class Life:
    """The life of one daemon. It begins with the first serve() and ends with the last one.

    Attributes:
        activity: the connections and the work of all serve().
        stopped_at: the time at which the daemon was told to stop, None before.
        until: the scopes that are cancelled then.
    """

    activity: Activity = attrs.field(factory=Activity, init=False)
    reloads: Reloads = attrs.field(init=False)
    is_ready: bool = attrs.field(default=False, init=False)
    stopped_at: float | None = attrs.field(default=None, init=False)
    until: set[trio.CancelScope] = attrs.field(factory=set, init=False)
    _servers: list[Server] = attrs.field(factory=list, init=False)
    _stopping: trio.Event = attrs.field(factory=trio.Event, init=False)
    _signals: Signals = attrs.field(factory=Signals, init=False)
    _reports: Reports = attrs.field(factory=Reports, init=False)
    _leader: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _lived: bool = attrs.field(default=False, init=False)
    _status: str = attrs.field(default="", init=False)

    def __attrs_post_init__(self) -> None:
        self.reloads = Reloads(self)

    @property
    def is_stopping(self) -> bool:
        return self.stopped_at is not None

    # Those who serve

    def join(self, server: Server, *, reloads: bool) -> None:
        if not self._servers:
            self._lived, self.is_ready, self._reports = True, False, Reports()
        self._servers.append(server)
        self._signals.hear(signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if reloads else []))

    def leave(self, server: Server) -> None:
        self._servers.remove(server)
        if not self._servers:
            # Whoever sends another signal to stop wants no more than this; nor is a late SIGHUP to kill anybody.
            self._signals.end(taken=set(signal.Signals) if self.is_stopping else {signal.SIGHUP})

    async def last_words(self, server: Server) -> None:
        """Wait a moment for what the manager was not told yet, if nobody stays who will tell it."""
        if self._servers == [server]:
            await self._reports.last_words()

    @property
    def is_over(self) -> bool:
        """Whether everybody has left who was told to stop."""
        return self._lived and self.is_stopping and not self._servers

    async def lead(self, watchdog: float | None) -> None:
        """Do what has to be done for the whole daemon, as soon as nobody else does."""
        async with self._leader, trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_signals)
            if environ().get("NOTIFY_SOCKET"):
                nursery.start_soon(self._reports.deliver)
                nursery.start_soon(self._tell_status)
                nursery.start_soon(self._ask_for_time)
            if watchdog is not None:
                nursery.start_soon(self._reports.pet_watchdog, watchdog)

    def ready(self) -> None:
        """Tell the manager that one of the servers accepts, and has not left before."""
        self.is_ready = True
        self._status = self._status_now()
        self.tell(READY, self._status)
        self.reloads.begin()

    # Stopping

    async def _follow_signals(self) -> None:
        while True:
            number = await self._signals.next()
            if number == signal.SIGHUP:
                self.reloads.request()
            elif not self.is_stopping:
                log.info(
                    "%s: no more clients are accepted; %d connections have %g s to finish",
                    signal.Signals(number).name,
                    self.activity.connections,
                    self._longest_drain(),
                )
                self.stop()
            else:
                log.info("%s again: %d connections are cut", signal.Signals(number).name, self.activity.connections)
                for server in self._servers:
                    server.cut()

    def stop(self) -> None:
        """Tell all servers and the manager that it is time to leave."""
        if self.is_stopping:
            return
        self.stopped_at = trio.current_time()
        self._stopping.set()
        self.tell(STOPPING)
        self._reports.mention(EXTEND_TIMEOUT)
        for server in self._servers:
            server.drain()
        for scope in self.until:
            scope.cancel()

    def leave_idle(self) -> None:
        """Stop, unless a server stays that does not leave when idle."""
        if self.activity.leaving.issuperset(self._servers):
            self.stop()

    def _longest_drain(self) -> float:
        return max(server.drain_timeout for server in self._servers)

    async def _ask_for_time(self) -> None:
        """Ask the manager for more time to stop, again and again, until the last drain is over."""
        await self._stopping.wait()
        while True:
            await trio.sleep(EXTENSION / 3)
            assert self.stopped_at is not None
            if trio.current_time() >= self.stopped_at + self._longest_drain():
                return  # what takes longer is the manager's to end
            self._reports.mention(EXTEND_TIMEOUT)

    # Telling the manager

    def tell(self, *assignments: str) -> bool:
        """Tell the manager what must not be lost; return whether there is one."""
        return self._reports.insist(*assignments)

    def _status_now(self) -> str:
        count = self.activity.connections
        connections = "1 connection" if count == 1 else f"{count} connections"
        return f"STATUS={connections} open" + (", no new ones accepted" if self.is_stopping else "")

    async def _tell_status(self) -> None:
        while True:
            await trio.sleep(STATUS_INTERVAL)
            if not self.activity.connections and self._status_now() == self._status:
                await self.activity.arrivals.park()
            if self._status_now() != self._status:
                self._status = self._status_now()
                self._reports.mention(self._status)


_life: DaemonVar[Life | None] = DaemonVar("activation_life", None)


def current_life() -> Life:
    """The life of the calling task's daemon, which may have ended or not begun.

    Raises:
        RuntimeError: the caller is outside of trio.
    """
    life = _life.get()
    if life is None:
        life = Life()
        _life.set(life)
    return life


def life_to_join() -> Life:
    """The life that a serve() joins: a new one where the last one is over."""
    life = current_life()
    if life.is_over:
        life = Life()
        _life.set(life)
    return life
