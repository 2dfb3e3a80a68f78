"""The life of a daemon: accept, tell the manager, reload, drain, leave when idle.

Three nurseries, one in another. The outer one has the helpers: signals, the watchdog, the status. In it is the one of
the connections, whose end is the daemon's: it waits for every handler, and its deadline is the drain's. In that one is
the one of the accept loops, which is cancelled, and nothing else with it, when no more clients are to be accepted. An
accept that has succeeded is never undone by that, so nobody is lost in between: who was not accepted waits in the
queue of the socket, which is the manager's, for the next start.
"""

from __future__ import annotations

import errno
import inspect
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ._daemon_var import DaemonVar
from ._environment import ActivationError
from ._files import files
from ._listeners import listeners as passed_listeners
from ._notify import READY, RELOADING, STOPPING, check_address, monotonic_usec, watchdog_enabled
from ._peers import Peer
from ._reports import Reports
from ._signals import hear_signals
from ._streams import streams

if TYPE_CHECKING:
    from ._signals import Hearing

log = logging.getLogger("activation")

CAPACITY_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
CAPACITY_WAIT = 0.1
"""Seconds until accepting is tried again after one of these errors."""
CAPACITY_LOG_INTERVAL = 60.0
"""Seconds between two lines about that in the log, at least."""

SHARED_WAIT = 0.05
"""Seconds that an accept may take below max_connections, once a client was there."""

STATUS_INTERVAL = 1.0
"""Seconds between two STATUS=, at least."""


async def serve(
    handler: Callable[[Any], Awaitable[object]] | None,
    listeners: Sequence[trio.abc.Listener[Any] | None] | None = None,
    *,
    connections: Sequence[trio.abc.AsyncResource | None] = (),
    idle_timeout: float | None = None,
    drain_timeout: float = 30.0,
    reload: Callable[[], object] | None = None,
    max_connections: int | None = None,
    handshake_timeout: float = 30.0,
    task_status: trio.TaskStatus[list[trio.abc.Listener[Any]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a daemon: accept, and run ``handler`` with the stream of each connection, until it is time to leave.

    It takes what the service manager passed: the listening sockets, and the connection that ``Accept=yes`` of
    systemd.socket(5) accepted, after which it returns. It tells the manager, sd_notify(3), when it accepts (READY=1),
    how many connections are open (STATUS=), that its event loop is not stuck (WATCHDOG=1, as WatchdogSec= wants), that
    it reloads (RELOADING=1) and that it leaves (STOPPING=1). Without a manager all of it works and nobody is told.

    SIGTERM and SIGINT end it: it accepts no more, gives the open connections ``drain_timeout`` seconds, cancels the
    rest and returns. A second one ends it at once. Signals come to it in the main thread only; several serve() in one
    process all hear them. The listening sockets are closed at the end, but never shut down, and no path is removed:
    who connects meanwhile waits for the next start.

    A handler's exception is logged, with the peer, and costs its own connection only. The stream is closed after the
    handler, in any case. Out of descriptors or memory, accepting waits and goes on.

    Args:
        handler: called with what was accepted, a ``trio.SocketStream`` or a ``trio.SSLStream`` whose handshake is done
            or whatever the listener makes, for each connection in a task of its own. None for a daemon whose work is
            all in other tasks, datagrams say: it lives until a signal.
        listeners: what to accept on; None stands for a gap. Left out: what was passed, the connections too.
        connections: what was accepted before, as :func:`streams` returns it; goes with ``listeners``.
        idle_timeout: return after so many seconds without any connection. Only for a service that something brings
            back, as a socket unit does: whoever connects while it leaves is served by the next start, and if nothing
            starts it, by nobody.
        drain_timeout: how many seconds open connections have to finish after SIGTERM or SIGINT. The manager is asked
            for the time, however short its own patience (TimeoutStopSec=).
        reload: called at SIGHUP, and awaited if it is a coroutine function: Type=notify-reload of systemd.service(5).
            What it raises is logged and the daemon goes on. Left out, SIGHUP has its usual effect.
        max_connections: above that many, clients wait in the kernel's queue.
        handshake_timeout: how many seconds a client has for the TLS handshake.
        task_status: for ``nursery.start``: it returns once connections are accepted, with the listeners.

    Raises:
        ActivationError: nothing was passed and nothing given, or the manager's variables cannot be true.
        ValueError: an argument is out of its range.
    """
    _check(idle_timeout, drain_timeout, max_connections, handshake_timeout)
    check_address()
    watchdog = watchdog_enabled()
    accepting: list[trio.abc.Listener[Any]] = []
    connected: list[trio.abc.AsyncResource] = []
    if handler is not None:
        accepting, connected = _taken(listeners, connections)
    elif any(listeners or ()) or any(connections) or idle_timeout is not None or max_connections is not None:
        raise ValueError("handler is None, so there can be no connections and no limits to them; expected a handler")
    daemon = _Daemon(handler, drain_timeout, idle_timeout, max_connections, handshake_timeout)
    try:
        with hear_signals(signal.SIGTERM, signal.SIGINT) as ends:
            async with trio.open_nursery() as helpers:
                helpers.start_soon(daemon.reports.deliver)
                if watchdog is not None:
                    helpers.start_soon(daemon.reports.pet_watchdog, watchdog)
                if reload is not None:
                    await helpers.start(daemon.reload_at_hangup, reload)
                await daemon.live(accepting, connected, ends, helpers, task_status)
                await daemon.reports.last_words()
                helpers.cancel_scope.cancel()
            if daemon.stopping:
                ends.came.clear()  # whoever sends one more wants no more than this
    finally:
        for resource in (*accepting, *connected):
            await _close(resource)


def _check(
    idle_timeout: float | None, drain_timeout: float, max_connections: int | None, handshake_timeout: float
) -> None:
    times = {"idle_timeout": idle_timeout, "drain_timeout": drain_timeout, "handshake_timeout": handshake_timeout}
    for name, seconds in times.items():
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"{name} is {seconds}; expected seconds, 0 or more")
    if max_connections is not None and max_connections < 1:
        raise ValueError(f"max_connections is {max_connections}; expected 1 or more, or None for no limit")


def _taken(
    listeners: Sequence[trio.abc.Listener[Any] | None] | None,
    connections: Sequence[trio.abc.AsyncResource | None],
) -> tuple[list[trio.abc.Listener[Any]], list[trio.abc.AsyncResource]]:
    """What to accept on and what was accepted, without gaps: what was passed, unless listeners are given."""
    if listeners is None:
        passed = files()
        listeners, connections = passed_listeners(passed), [*connections, *streams(passed)]
    accepting = [listener for listener in listeners if listener]
    connected = [stream for stream in connections if stream]
    if not accepting and not connected:
        raise ActivationError(
            "there is nothing to serve: no socket that listens for streams was passed and none was given; start the "
            "program by its socket unit or socket-activate, or give serve() listeners, such as "
            "await trio.open_tcp_listeners(2000)"
        )
    return accepting, connected


@attrs.define(eq=False)
class _Daemon:
    """What one serve() knows of itself."""

    handler: Callable[[Any], Awaitable[object]] | None
    drain_timeout: float
    idle_timeout: float | None
    max_connections: int | None
    handshake_timeout: float

    open: int = 0
    reserved: int = 0  # places below max_connections that accepts under way have taken
    ready: trio.Event = attrs.field(factory=trio.Event)
    stopping: bool = False
    connections: trio.Nursery = attrs.field(init=False)
    accepts: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    arrivals: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    last_departures: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    told_of_capacity: float = -CAPACITY_LOG_INTERVAL
    reports: Reports = attrs.field(factory=Reports)

    async def live(
        self,
        accepting: list[trio.abc.Listener[Any]],
        connected: list[trio.abc.AsyncResource],
        ends: Hearing,
        helpers: trio.Nursery,
        task_status: trio.TaskStatus[list[trio.abc.Listener[Any]]],
    ) -> None:
        """From the first accept to the last handler's end."""
        _lives.set((*_lives.get(), self))
        try:
            async with trio.open_nursery() as self.connections:
                helpers.start_soon(self.follow, ends, helpers)
                for stream in connected:
                    self.begin(stream)
                await self.accept_all(accepting, helpers, task_status)
                for listener in accepting:
                    await _close(listener)
                if accepting and not self.stopping and _lives.get() == (self,):
                    self.reports.insist(STOPPING)
        finally:
            _lives.set(tuple(daemon for daemon in _lives.get() if daemon is not self))

    async def follow(self, ends: Hearing, helpers: trio.Nursery) -> None:
        """Drain at the first signal, end at once at the second."""
        number = await ends.next()
        log.info(
            "%s: no more clients are accepted; %d connections have %g s to finish",
            signal.Signals(number).name,
            self.open,
            self.drain_timeout,
        )
        self.stopping = True
        self.reports.insist(STOPPING)
        self.accepts.cancel()
        self.connections.cancel_scope.deadline = trio.current_time() + self.drain_timeout
        helpers.start_soon(self.reports.extend_timeout, self.drain_timeout)
        number = await ends.next()
        log.info("%s again: %d connections are cut", signal.Signals(number).name, self.open)
        self.connections.cancel_scope.cancel()

    # Accepting

    async def accept_all(
        self,
        accepting: list[trio.abc.Listener[Any]],
        helpers: trio.Nursery,
        task_status: trio.TaskStatus[list[trio.abc.Listener[Any]]],
    ) -> None:
        """Accept on all listeners until a signal or the idle clock says that it is enough."""
        while not self.stopping:
            with self.accepts:
                async with trio.open_nursery() as loops:
                    for listener in accepting:
                        await loops.start(self.accept_loop, listener, len(accepting) > 1)
                    if not self.ready.is_set() and not self.stopping:
                        self.ready.set()
                        told = self.status()
                        if self.reports.insist(READY, told):
                            helpers.start_soon(self.tell_status, told)
                        task_status.started(accepting)
                    if self.handler is None:
                        await trio.sleep_forever()
                    if accepting and self.idle_timeout is not None:
                        await self.idle(self.idle_timeout)
                        loops.cancel_scope.cancel()
            # Who was accepted in the very moment of leaving is a reason to stay.
            if not accepting or not self.open:
                break
            self.accepts = trio.CancelScope()
        if not self.ready.is_set():
            task_status.started(accepting)

    async def accept_loop(
        self, listener: trio.abc.Listener[Any], has_others: bool, *, task_status: trio.TaskStatus[None]
    ) -> None:
        limited = self.max_connections is not None
        # The place that is kept while this one waits for a client can be missed only by another listener.
        competing = limited and has_others
        task_status.started()
        while True:
            if limited:
                await self.reserve(_socket(listener) if competing else None)
            stream = None
            try:
                if competing:
                    # Nor is it kept for a client whom another process on the same socket has accepted.
                    with trio.move_on_after(SHARED_WAIT):
                        stream = await listener.accept()
                else:
                    stream = await listener.accept()
            except OSError as error:
                if error.errno not in CAPACITY_ERRORS:
                    raise
                await self.wait_for_capacity(error)
                continue
            finally:
                if limited:
                    self.reserved -= 1
                    if self.room:
                        self.room.unpark_all()
            if stream is not None:
                self.begin(stream)

    async def reserve(self, waiting: trio.socket.SocketType | None) -> None:
        """Wait for a place, and before it is taken for a client, where one can be waited for."""
        assert self.max_connections is not None
        while True:
            while self.open + self.reserved >= self.max_connections:
                await self.room.park()
            # No place is kept for clients who may never come, while another listener has some.
            if waiting is not None:
                await trio.lowlevel.wait_readable(waiting)
            else:
                await trio.lowlevel.checkpoint()
            if self.open + self.reserved < self.max_connections:
                self.reserved += 1
                return

    async def wait_for_capacity(self, error: OSError) -> None:
        now = trio.current_time()
        if now - self.told_of_capacity >= CAPACITY_LOG_INTERVAL:
            self.told_of_capacity = now
            log.warning("cannot accept: %s; %d connections are open, new ones wait", error.strerror, self.open)
        await trio.sleep(CAPACITY_WAIT)

    async def idle(self, timeout: float) -> None:
        """Wait until there was no connection for so many seconds."""
        while True:
            if not self.open:
                with trio.move_on_after(timeout) as limit:
                    await self.arrivals.park()
                if limit.cancelled_caught and not self.open:
                    return
            while self.open:
                await self.last_departures.park()

    # Connections

    def begin(self, stream: trio.abc.AsyncResource) -> None:
        self.open += 1
        if self.arrivals:
            self.arrivals.unpark_all()
        self.connections.start_soon(self.connection, stream)

    async def connection(self, stream: trio.abc.AsyncResource) -> None:
        assert self.handler is not None
        who = Peer(stream)  # now: the handler may close the stream before it fails
        try:
            if not isinstance(stream, trio.SSLStream):
                await self.handler(stream)
            elif await self.shake_hands(stream, who):
                await self.handler(stream)
                with trio.move_on_after(self.handshake_timeout):
                    await stream.aclose()  # says goodbye, as TLS wants it
        except* trio.BrokenResourceError as errors:
            broken = _one(errors)
            log.info("the connection of %s broke: %s", who, broken.__cause__ or broken)
        except* Exception as errors:
            log.error("the handler failed for %s; only that connection ends", who, exc_info=_one(errors))
        finally:
            if type(stream) is trio.SocketStream:
                stream.socket.close()  # all that its aclose() does, but for the checkpoint
            else:
                await _close(stream)
            self.open -= 1
            if self.room:
                self.room.unpark_all()
            if not self.open and self.last_departures:
                self.last_departures.unpark_all()

    async def shake_hands(self, stream: trio.SSLStream[Any], who: Peer) -> bool:
        with trio.move_on_after(self.handshake_timeout):
            await stream.do_handshake()
            return True
        log.info("%s did not finish the TLS handshake in %g s", who, self.handshake_timeout)
        return False

    # Telling the manager

    def status(self) -> str:
        count = sum(daemon.open for daemon in _lives.get())
        connections = "1 connection" if count == 1 else f"{count} connections"
        return f"STATUS={connections} open" + (", no new ones accepted" if self.stopping else "")

    async def tell_status(self, told: str) -> None:
        while True:
            await trio.sleep(STATUS_INTERVAL)
            if not self.open and self.status() == told:
                await self.arrivals.park()
            if self.status() != told:
                told = self.status()
                self.reports.mention(told)

    async def reload_at_hangup(self, reload: Callable[[], object], *, task_status: trio.TaskStatus[None]) -> None:
        with hear_signals(signal.SIGHUP) as hangups:
            task_status.started()
            try:
                while True:
                    await hangups.next()
                    await self.ready.wait()
                    hangups.came.clear()  # several of them ask for no more than one
                    if self.stopping:
                        continue
                    self.reports.insist(RELOADING, monotonic_usec())
                    try:
                        result = reload()
                        if inspect.isawaitable(result):
                            await result
                    except Exception:
                        log.exception("the reload failed; going on as before")
                    if not self.stopping:
                        self.reports.insist(READY)
            finally:
                hangups.came.clear()


_lives: DaemonVar[tuple[_Daemon, ...]] = DaemonVar("activation_lives", ())
"""All serve() of this process: what one tells the manager is true of all of them."""


def _socket(listener: trio.abc.Listener[Any]) -> trio.socket.SocketType | None:
    """What a listener accepts on, where it tells."""
    if isinstance(listener, trio.SSLListener):
        listener = listener.transport_listener
    return getattr(listener, "socket", None)


async def _close(resource: trio.abc.AsyncResource) -> None:
    # Shielded, since a cancellation from outside would end the caller's work with the first of several.
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(resource)


def _one(errors: ExceptionGroup[Exception]) -> Exception:
    """The error itself where a group has only one."""
    return errors.exceptions[0] if len(errors.exceptions) == 1 else errors
