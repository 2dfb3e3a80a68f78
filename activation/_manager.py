"""What a daemon tells its service manager: that it is ready, what it does, that it reloads, stops and needs time."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import trio

from ._environment import environ
from ._notify import READY, RELOADING, STOPPING, monotonic_usec, tells_status, watchdog_enabled
from ._reports import EXTENSION, Reports

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ._activity import Activity

    class Daemon(Protocol):
        """What the manager is told of."""

        @property
        def activity(self) -> Activity: ...
        @property
        def is_stopping(self) -> bool: ...
        @property
        def status_function(self) -> Callable[[int], str] | None: ...
        def needs_time(self) -> bool:
            """Whether it reloads, or stops and something is still to finish."""


log = logging.getLogger("activation")

EXTEND_TIMEOUT = f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}"
ASK_AGAIN = EXTENSION / 3
"""Seconds until more time is asked for once more."""
SOON = 0.1
"""Seconds until that is done for the first time in a reload."""

STATUS_INTERVAL = 1.0
"""Seconds between two STATUS=, at least."""


class Manager:
    """The service manager of one daemon. Without one nobody is told.

    Attributes:
        reloads_by_signal: whether a manager started this process, so that SIGHUP asks for a reload.
    """

    __slots__ = (
        *("_begun", "_daemon", "_is_ready", "_is_wanted", "_reports", "_speaks_for_service", "_status"),
        *("_status_failed", "_time_needed", "reloads_by_signal"),
    )

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._reports = Reports()
        # No trio.Event: where imports are lazy, its module would take 4 % of a daemon's start.
        self._is_wanted = False
        self._is_ready = False
        self._begun = trio.lowlevel.ParkingLot()
        self._status = ""
        self._status_failed = False
        self._time_needed = trio.lowlevel.ParkingLot()
        main, own = environ().get("SYSTEMD_EXEC_PID"), str(os.getpid())
        # A container's first process may have the variable of whoever started the container.
        self._speaks_for_service = main in (None, own) or own == "1"
        self.reloads_by_signal = bool(environ().get("NOTIFY_SOCKET")) or main == own

    def listen(self) -> None:
        """From now on somebody wants to tell it something."""
        if not self._is_wanted:
            self._is_wanted = True
            self._begun.unpark_all()
            if not self._speaks_for_service:
                log.debug("STOPPING= and STATUS= are not sent: the process of SYSTEMD_EXEC_PID speaks for the service")

    def _tell(self, *assignments: str) -> None:
        if not self._speaks_for_service:
            assignments = tuple(item for item in assignments if not item.startswith(("STOPPING=", "STATUS=")))
        if assignments and self._is_wanted:
            self._reports.insist(*assignments)

    def ready(self) -> None:
        """Tell it that the daemon accepts. One of several servers is enough."""
        if self._is_ready:
            return
        self._is_ready = True
        self._begun.unpark_all()
        if self._may_tell_status():
            self._status = self._status_now()
            self._tell(READY, self._status)
        else:
            self._tell(READY)

    def reloading(self, *, takes_time: bool) -> None:
        self._tell(RELOADING, monotonic_usec())
        if takes_time:
            self._ask_for_time()

    def reloaded(self) -> None:
        self._tell(READY)

    def stopping(self) -> None:
        self._tell(STOPPING)
        self._ask_for_time()

    async def last_words(self) -> None:
        """Wait a moment until all is told that has to be."""
        await self._reports.last_words()

    async def run(self) -> None:
        """Tell it, until cancelled, what becomes due."""
        while not self._is_wanted:
            await self._begun.park()
        if not environ().get("NOTIFY_SOCKET"):
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reports.deliver)
            nursery.start_soon(self._keep_time)
            if self._speaks_for_service:
                nursery.start_soon(self._keep_status)
            if (watchdog := watchdog_enabled()) is not None:
                nursery.start_soon(self._reports.pet_watchdog, watchdog)

    # Time

    def _ask_for_time(self) -> None:
        if self._is_wanted:
            self._reports.mention(EXTEND_TIMEOUT)
        self._time_needed.unpark_all()

    async def _keep_time(self) -> None:
        """Ask for more time again and again, while the daemon needs it."""
        while True:
            while not self._daemon.needs_time():
                await self._time_needed.park()
            # The command of ExecReload= may end after we have asked, and then the manager counts anew.
            interval = ASK_AGAIN if self._daemon.is_stopping else SOON
            while self._daemon.needs_time():
                await trio.sleep(interval)
                if self._daemon.needs_time():
                    self._reports.mention(EXTEND_TIMEOUT)
                interval = min(2 * interval, ASK_AGAIN)

    # Status

    def _may_tell_status(self) -> bool:
        """Whether the program has asked for it by ``status=``, or has not told a status of its own by notify()."""
        return self._daemon.status_function is not None or not tells_status()

    def _status_now(self) -> str:
        activity = self._daemon.activity
        function = self._daemon.status_function
        if function is not None:
            try:
                return "STATUS=" + " ".join(function(activity.connections + activity.work).split("\n"))
            except Exception:
                if not self._status_failed:
                    self._status_failed = True
                    log.exception("the function status= failed; the number of connections is told")
        parts = []
        if activity.connections or not activity.work:
            parts.append(f"{activity.connections} connection{'s' if activity.connections != 1 else ''} open")
        if activity.work:
            parts.append(f"{activity.work} busy")
        if self._daemon.is_stopping:
            parts.append("no new ones accepted")
        return "STATUS=" + ", ".join(parts)

    async def _keep_status(self) -> None:
        """Tell the status when it has changed, then not again for a second."""
        activity = self._daemon.activity
        while not self._is_ready:
            await self._begun.park()
        while True:
            if not activity.connections and not activity.work and self._status_now() == self._status:
                await activity.arrivals.park()
            if self._may_tell_status() and (status := self._status_now()) != self._status:
                self._status = status
                self._reports.mention(status)
            await trio.sleep(STATUS_INTERVAL)
