"""Reloads at SIGHUP: one for the manager, however many serve() have something to reload."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ._manager import Manager

    class Daemon(Protocol):
        """What a reload has to know of the daemon."""

        @property
        def is_ready(self) -> bool: ...
        @property
        def is_stopping(self) -> bool: ...
        @property
        def manager(self) -> Manager: ...


log = logging.getLogger("activation")


class Reloads:
    """The reloads of one daemon.

    Attributes:
        running: how many functions of the reload under way have not returned.
    """

    __slots__ = ("_daemon", "_reloaders", "_requested", "running")

    def __init__(self, daemon: Daemon) -> None:
        self.running = 0
        self._daemon = daemon
        self._requested = False
        self._reloaders: list[Reloader] = []

    def request(self) -> None:
        """Reload now, or as soon as the daemon is ready and a reload under way is over. Several ask for one."""
        self._requested = True
        self.begin()

    def begin(self) -> None:
        """Begin a reload that was requested, if it is time."""
        if not self._requested or self.running or not self._daemon.is_ready or self._daemon.is_stopping:
            return
        self._requested = False
        self.running = len(self._reloaders)
        self._daemon.manager.reloading(takes_time=self.running > 0)
        for reloader in self._reloaders:
            reloader.request()
        if not self._reloaders:
            log.info("SIGHUP: there is nothing to reload; serve() has no reload=")
            self._over()

    def add(self, reload: Callable[[], object]) -> Reloader:
        reloader = Reloader(self, reload)
        self._reloaders.append(reloader)
        return reloader

    def remove(self, reloader: Reloader) -> None:
        self._reloaders.remove(reloader)
        if reloader.is_wanted:
            self.returned()

    def returned(self) -> None:
        self.running -= 1
        if not self.running:
            self._over()

    def _over(self) -> None:
        if not self._daemon.is_stopping:
            self._daemon.manager.reloaded()
        self.begin()


class Reloader:
    """What one serve() does at a reload.

    Attributes:
        is_wanted: whether it was requested and has not returned.
    """

    __slots__ = ("_function", "_reloads", "_requests", "is_wanted")

    def __init__(self, reloads: Reloads, function: Callable[[], object]) -> None:
        self.is_wanted = False
        self._requests = trio.lowlevel.ParkingLot()
        self._reloads = reloads
        self._function = function

    def request(self) -> None:
        self.is_wanted = True
        self._requests.unpark_all()

    async def run(self) -> None:
        while True:
            while not self.is_wanted:
                await self._requests.park()
            try:
                result = self._function()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                log.exception("the reload failed; going on as before")
            self.is_wanted = False
            self._reloads.returned()
