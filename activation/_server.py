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

import attrs
import trio

from ._connections import close

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._accepting import Accepting
    from ._connections import Connections, Handler
    from ._life import Life

log = logging.getLogger("activation")

Started = trio.TaskStatus[list[trio.abc.Listener[Any]]]


@attrs.define(eq=False)
class Server:
    """What one serve() does."""

    life: Life
    accepting: Accepting
    connections: Connections
    accepted: Sequence[tuple[trio.abc.AsyncResource, Handler]]
    lives_alone: bool  # without any connection, until it is told to stop
    drain_timeout: float
    idle_timeout: float | None
    reload: Callable[[], object] | None
    status: Callable[[int], str] | None
    notify: bool
    _work: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _accepts: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _has_started: bool = attrs.field(default=False, init=False)

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

    async def _serve(self, task_status: Started) -> None:
        with self._work:
            if self.life.is_stopping:
                self.drain()
            async with trio.open_nursery() as self.connections.nursery:
                for stream, handler in self.accepted:
                    self.connections.begin(stream, handler)
                await self._accept_until_told(task_status)
                for listener, _ in self.accepting.listeners:
                    await close(listener)
            await self.life.activity.work_done(self._work)

    async def _accept_until_told(self, task_status: Started) -> None:
        """Accept until the daemon is told to stop, or has been idle for long enough."""
        while not self.life.is_stopping:
            with self._accepts:
                async with trio.open_nursery() as loops:
                    await loops.start(self.accepting.run)
                    self._started(task_status)
                    if self.idle_timeout is not None and (self.accepting.listeners or self.lives_alone):
                        await self.life.activity.idle()
                        loops.cancel_scope.cancel()
                    elif self.lives_alone:
                        await trio.sleep_forever()
            if self.life.is_stopping or not (self.accepting.listeners or self.lives_alone):
                break
            # Who was accepted in the very moment of leaving is a reason to stay.
            if await self.life.activity.all_idle(self):
                self.life.leave_idle()
                break
            self._accepts = trio.CancelScope()
        if not self._has_started:
            task_status.started([listener for listener, _ in self.accepting.listeners])

    def _started(self, task_status: Started) -> None:
        if not self._has_started and not self.life.is_stopping:
            self._has_started = True
            self.life.ready(self)
            task_status.started([listener for listener, _ in self.accepting.listeners])

    def drain(self) -> None:
        """Accept no more, and let what is open finish."""
        assert self.life.stopped_at is not None
        self._accepts.cancel()
        if self.connections.durable:
            self.connections.durable.suspend()
        self._work.deadline = self.life.stopped_at + self.drain_timeout

    def cut(self) -> None:
        """Let nothing finish."""
        self._work.cancel()


def _imports_are_lazy() -> bool:
    """Whether Python, from 3.15 on, was told to put every import off. What a program puts off itself is its own."""
    mode = getattr(sys, "get_lazy_imports", None)
    return mode is not None and bool(mode() == "all")
