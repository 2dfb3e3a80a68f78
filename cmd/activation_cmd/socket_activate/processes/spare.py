"""The one child that waits for the clients of all services that do not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.common.stdio import say

from .launch import Child

if TYPE_CHECKING:
    from .reaper import Reaper
    from .start import Start

_PAUSE = 1.0
"""Seconds until the next child is forked, after somebody has killed one."""


@attrs.define(eq=False)
class Spare:
    """Keeps a child waiting, and gives each service the one that has become it."""

    reaper: Reaper
    _waiting: dict[int, tuple[Start, trio.MemorySendChannel[Child | None]]] = attrs.field(factory=dict, init=False)
    _leaving: set[int] = attrs.field(factory=set, init=False)
    _child: Child | None = attrs.field(default=None, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)
    _patience: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    async def client_comes(self, start: Start) -> Child | None:
        """Wait for a client; return the child that serves it, or None if nobody waits any more.

        No other child waits until the caller sets the child's ``begun``.
        """
        if self._closed:
            return None
        send, receive = trio.open_memory_channel[Child | None](1)
        self._waiting[id(start)] = start, send
        self._changed.set()
        return await receive.receive()

    def has_come(self, start: Start) -> bool:
        """Whether a client has come for the start that :meth:`client_comes` still waits for."""
        return id(start) not in self._waiting or (self._child is not None and self._child.has_chosen(start))

    def withdraw(self, start: Start) -> None:
        """Let :meth:`client_comes` return None for this start, unless a client has come already."""
        if id(start) in self._waiting:
            self._leaving.add(id(start))
            self._changed.set()

    def close(self) -> None:
        """Have no more clients start anything. Those that have come already are served before :meth:`run` ends."""
        self._closed = True
        self._changed.set()
        self._patience.cancel()

    async def run(self) -> None:
        """Keep a child waiting until closed."""
        while not self._closed:
            self._changed = trio.Event()
            for key in self._leaving & self._waiting.keys():
                self._waiting.pop(key)[1].send_nowait(None)
            self._leaving.clear()
            if not self._waiting:
                await self._changed.wait()
                continue
            child = None
            with trio.CancelScope() as self._patience:
                child = await self.reaper.fork_patiently([start for start, _ in self._waiting.values()], at_once=False)
            if child is None:
                break
            self._child = child
            await self._chosen(child)
            self._child = None
            if child.start:
                _, send = self._waiting.pop(id(child.start))
                send.send_nowait(child)
                # Until then, the next child would wait for clients of sockets that this service has now.
                await child.begun.wait()
                continue
            await child.exited.wait()
            self.reaper.executor.release(child.pid)
            if child.failure:
                say("socket-activate", child.failure)
            if not self._changed.is_set():
                await trio.sleep(_PAUSE)  # somebody else has killed it
        self._closed = True
        for _, send in self._waiting.values():
            send.send_nowait(None)
        self._waiting.clear()

    async def _chosen(self, child: Child) -> None:
        async with trio.open_nursery() as nursery:

            async def dismiss_when_changed() -> None:
                await self._changed.wait()
                child.dismiss()

            nursery.start_soon(dismiss_when_changed)
            await child.chosen()
            nursery.cancel_scope.cancel()
