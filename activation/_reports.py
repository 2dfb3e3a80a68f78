"""What a daemon tells the service manager during its life.

Nothing here waits for the manager in the daemon's way. A message that cannot be sent now, because the manager's queue
is full, memory is short or the manager cannot be reached, is sent later by deliver().
"""

from __future__ import annotations

import errno
import logging
import os

import trio

from ._environment import environ
from ._notify import RELOADING, WATCHDOG, be_ready_to_notify, notify_at_once, notify_on_trio

log = logging.getLogger("activation")

WATCHDOG_SHARE = 0.4
"""Of the time that the manager allows between two WATCHDOG=1, how much passes."""

EXTENSION = 15.0
"""Seconds that a drain asks of the manager; it asks again when a third of them has passed."""

RETRY_INTERVAL = 0.05
"""Seconds until a message is tried again where the shortage passes by itself: no room in the queue, no memory."""
LONGEST_RETRY_INTERVAL = 10.0
"""Seconds between two tries at most, where the manager cannot be reached at all."""

LAST_WORDS = 1.0
"""Seconds that a daemon waits at its end, at most, for room for what it has to tell."""

PASSING_ERRORS = frozenset({errno.EAGAIN, errno.EINPROGRESS, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Of a shortage."""


class Reports:
    """The reports of one daemon. A child that the daemon forks makes none."""

    __slots__ = ("_complained", "_due", "_error", "_news", "_process", "_progress", "_work")

    def __init__(self) -> None:
        self._due: list[tuple[str, ...]] = []
        """Messages that must arrive, in order."""
        self._news: dict[str, str] = {}
        """By name, the newest of the assignments that replace each other."""
        self._error: int | None = None
        """The number of the error of the last try; None if it succeeded."""
        self._complained = False
        self._process = os.getpid()
        self._work = trio.lowlevel.ParkingLot()
        self._progress = trio.lowlevel.ParkingLot()
        be_ready_to_notify()

    def insist(self, *assignments: str) -> bool:
        """Send a message that must not be lost: now, or by :meth:`deliver`. Return whether there is a manager."""
        if not self._has_manager():
            return False
        if assignments[0] == RELOADING:
            self._drop_unsent_reload()
        self._due.append(assignments)
        self._try_now()
        return True

    def mention(self, assignment: str) -> None:
        """Send what a later assignment to the same name replaces, such as STATUS=: now, or by :meth:`deliver`."""
        if self._has_manager():
            self._news[assignment.partition("=")[0]] = assignment
            self._try_now()

    def _has_manager(self) -> bool:
        return bool(environ().get("NOTIFY_SOCKET")) and os.getpid() == self._process

    def _drop_unsent_reload(self) -> None:
        """Forget an earlier reload that the manager has not heard of, so that reloads cannot fill the memory."""
        for position, assignments in enumerate(self._due):
            if assignments[0] == RELOADING:
                del self._due[position:]
                return

    def _try_now(self) -> None:
        while message := self._next():
            try:
                notify_at_once(*message)
            except OSError as error:
                if not self._failed(error):
                    self._work.unpark_all()
                    return
            self._sent(message)

    def _next(self) -> tuple[str, ...]:
        if self._due:
            return self._due[0]
        return (next(iter(self._news.values())),) if self._news else ()

    def _sent(self, message: tuple[str, ...]) -> None:
        name = message[0].partition("=")[0]
        if self._due and self._due[0] is message:
            del self._due[0]
        elif self._news.get(name) is message[0]:  # nothing newer came while it was sent
            del self._news[name]
        self._error = None
        self._progress.unpark_all()

    def _failed(self, error: OSError) -> bool:
        """Complain once. Return whether it is in vain to try again."""
        self._error = error.errno
        self._progress.unpark_all()
        if error.errno != errno.EINPROGRESS and not self._complained:
            self._complained = True
            log.warning("%s: %s; serving all the same, and trying again", error.filename, error.strerror)
        return error.errno == errno.EMSGSIZE

    async def deliver(self) -> None:
        """Send what could not be sent at once, until cancelled."""
        interval = RETRY_INTERVAL
        while True:
            while not (message := self._next()):
                await self._work.park()
            try:
                await notify_on_trio(*message)
            except OSError as error:
                if not self._failed(error):
                    passes = error.errno in PASSING_ERRORS
                    interval = RETRY_INTERVAL if passes else min(2 * interval, LONGEST_RETRY_INTERVAL)
                    await trio.sleep(interval)
                    continue
            interval = RETRY_INTERVAL
            self._sent(message)

    async def last_words(self) -> None:
        """Wait a moment until what must arrive is sent, unless the manager cannot be reached at all."""
        with trio.move_on_after(LAST_WORDS):
            while self._due and (self._error is None or self._error in PASSING_ERRORS):
                await self._progress.park()

    async def pet_watchdog(self, timeout: float) -> None:
        """Say WATCHDOG=1 often enough for a manager that waits ``timeout`` seconds for it."""
        while True:
            self.mention(WATCHDOG)
            await trio.sleep(timeout * WATCHDOG_SHARE)
