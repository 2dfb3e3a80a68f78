"""One serve(): from its first accept to the end of its last connection.

Three nurseries, one in another. The outer one has the helpers. In it is the one of everything that is done for
clients, whose end is this serve()'s: its deadline is the drain's. In that one is the one of the accept loops, which is
cancelled, and nothing else with it, when no more clients are to be accepted. An accept that has succeeded is never
undone by that, so nobody is lost in between: whoever was not accepted waits in the queue of the socket, which is the
manager's, for the next start.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import trio

from ._connections import close, one_of
from ._files import File
from ._occasional import OccasionalMessages
from ._stopping import LateWork, late_work

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._accepting import Accepting
    from ._connections import Connections, Handler
    from ._handlers import Served
    from ._life import Life

    Started = trio.TaskStatus[list[trio.abc.Listener[Any]]]

log = logging.getLogger("activation")

PAUSE, LONGEST_PAUSE = 0.01, 1.0
"""Seconds until a handler of datagrams that failed is run again: the first time, and at most."""
GOOD_TIME = 10.0
"""Seconds after which its earlier failures are forgotten."""


class Server:
    """What one serve() does."""

    __slots__ = (
        *("_accepts", "_failure", "_has_started", "_is_once_over", "_late_work", "_once_over", "_warnings", "_work"),
        *("accepting", "connections", "drain_timeout", "idle_timeout", "life", "lives_alone", "notify"),
        *("reload", "served", "status"),
    )

    def __init__(
        self,
        life: Life,
        accepting: Accepting,
        connections: Connections,
        served: Served,
        *,
        lives_alone: bool,
        drain_timeout: float,
        idle_timeout: float | None,
        reload: Callable[[], object] | None,
        status: Callable[[int], str] | None,
        notify: bool,
    ) -> None:
        self.life = life
        self.accepting = accepting
        self.connections = connections
        self.served = served
        self.lives_alone = lives_alone  # without anything of its own, until it is told to stop
        self.drain_timeout = drain_timeout
        self.idle_timeout = idle_timeout
        self.reload = reload
        self.status = status
        self.notify = notify
        self._work = trio.CancelScope()
        self._accepts = trio.CancelScope()
        self._has_started = False
        self._is_once_over = False
        self._once_over = trio.lowlevel.ParkingLot()
        self._failure: BaseException | None = None
        self._late_work: list[LateWork] = []
        self._warnings = OccasionalMessages()

    async def run(self, task_status: Started) -> None:
        """Serve until it is time to leave, as one of those who share the daemon's life."""
        self.life.join(self, reloads=self.reload is not None)
        if self.idle_timeout is not None:
            self.life.activity.join(self, self.idle_timeout)
        reloader = self.life.reloads.add(self.reload) if self.reload else None
        try:
            async with trio.open_nursery() as helpers:
                helpers.start_soon(self.life.lead)
                if reloader:
                    helpers.start_soon(reloader.run)
                if self.accepting.listeners and _imports_are_lazy():
                    from ._lazy_imports import load_what_is_put_off

                    helpers.start_soon(load_what_is_put_off)
                await self._serve(task_status)
                await self.life.last_words(self)
                helpers.cancel_scope.cancel()
        finally:
            if reloader:
                self.life.reloads.remove(reloader)
            self.life.activity.leave(self)
            self.life.leave(self)
        if self._failure:
            raise self._failure

    async def _serve(self, task_status: Started) -> None:
        with self._work:
            if self.life.is_stopping:
                self.drain()
            if self.served.once and not self.life.is_stopping:
                async with trio.open_nursery() as beside:
                    beside.start_soon(self._run_all_once)
                    await self._serve_clients(task_status)
            else:
                self._is_once_over = True
                await self._serve_clients(task_status)

    async def _serve_clients(self, task_status: Started) -> None:
        async with trio.open_nursery() as self.connections.nursery:
            for stream, handler in self.served.accepted:
                self.connections.begin(stream, handler)
            await self._accept_until_told(task_status)
            for listener, _ in self.accepting.listeners:
                await close(listener)
        await self.life.activity.work_done(self._work)

    async def _accept_until_told(self, task_status: Started) -> None:
        """Accept until the daemon is told to stop, has been idle for long enough, or has nothing to wait for."""
        while not self.life.is_stopping:
            with self._accepts:
                async with trio.open_nursery() as loops:
                    await loops.start(self.accepting.run)
                    self._started(task_status)
                    if self.idle_timeout is not None:
                        loops.start_soon(self._wait_until_idle, loops.cancel_scope)
                    if self.accepting.listeners or self.lives_alone:
                        await trio.sleep_forever()
                    while not self._is_once_over:
                        await self._once_over.park()
                    loops.cancel_scope.cancel()
            if self.life.is_stopping or self._has_nothing_to_wait_for():
                break
            # Who was accepted in the very moment of leaving is a reason to stay.
            if await self.life.activity.all_idle(self):
                self.life.leave_idle()
                break
            self._accepts = trio.CancelScope()
        if not self._has_started:
            task_status.started([listener for listener, _ in self.accepting.listeners])

    async def _wait_until_idle(self, scope: trio.CancelScope) -> None:
        await self.life.activity.idle()
        scope.cancel()

    def _has_nothing_to_wait_for(self) -> bool:
        return not self.accepting.listeners and not self.lives_alone and self._is_once_over

    # Handlers that run once

    async def _run_all_once(self) -> None:
        async with trio.open_nursery() as nursery:
            for name, thing, handler in self.served.once:
                nursery.start_soon(self._run_once, name, thing, handler)
        self._is_once_over = True
        self._once_over.unpark_all()

    async def _run_once(self, name: str, thing: trio.socket.SocketType | File, handler: Handler) -> None:
        work = LateWork(self._work)
        late_work.set(work)
        self._late_work.append(work)
        with work.scope:
            await self._run_again_and_again(name, thing, handler)

    async def _run_again_and_again(self, name: str, thing: trio.socket.SocketType | File, handler: Handler) -> None:
        pause = 0.0
        while True:
            began = trio.current_time()
            try:
                await handler(thing)
                return
            except* Exception as errors:
                failure = one_of(errors)
            if isinstance(thing, File) or thing.fileno() < 0:
                # Nobody else can go on with it. So the daemon leaves, once its connections have finished.
                self._failure = self._failure or failure
                log.error("the handler of %r failed; the daemon stops: %r", name, failure)
                self.life.stop()
                return
            # One datagram is to cost the others no more than an error in a handler costs other connections.
            self._warnings.warn("the handler of %r failed, and is run again: %r", name, failure)
            log.debug("the handler of %r failed", name, exc_info=failure)
            pause = min(2 * pause, LONGEST_PAUSE) if trio.current_time() - began < GOOD_TIME and pause else PAUSE
            await trio.sleep(pause)

    def _started(self, task_status: Started) -> None:
        if not self._has_started and not self.life.is_stopping:
            self._has_started = True
            self.life.ready(self)
            task_status.started([listener for listener, _ in self.accepting.listeners])

    def drain(self) -> None:
        """Accept no more, and let what is open finish."""
        assert self.life.stopped_at is not None
        self._accepts.cancel()
        if self.connections.durable and not self.life.interrupted:
            self.connections.durable.suspend()
        self._work.deadline = self.life.stopped_at + self.drain_timeout

    def cut(self) -> None:
        """Let nothing finish."""
        self._work.deadline = trio.current_time()  # what is late from now on has no time, either
        self._work.cancel()
        for work in self._late_work:
            work.scope.shield = False


def _imports_are_lazy() -> bool:
    """Whether Python, from 3.15 on, was told to put every import off. What a program puts off itself is its own."""
    mode = getattr(sys, "get_lazy_imports", None)
    return mode is not None and bool(mode() == "all")
