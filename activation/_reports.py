"""What a daemon tells the service manager during its life. A manager that does not listen keeps none from its work."""

from __future__ import annotations

import logging

import attrs
import trio

from ._notify import WATCHDOG, notify_at_once

log = logging.getLogger("activation")

WATCHDOG_SHARE = 0.4
"""Of the time that the manager allows between two WATCHDOG=1, how much passes."""

EXTENSION = 15.0
"""Seconds that a drain asks of the manager; it asks again when a third of them has passed."""

RETRY_INTERVAL = 0.05
"""Seconds until a manager that had no room for a message is told again."""


@attrs.define(eq=False)
class Reports:
    """The reports of one daemon. Nothing here waits for the manager in the daemon's way."""

    _late: list[tuple[str, ...]] = attrs.field(factory=list, init=False)
    _has_late: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _complained: bool = attrs.field(default=False, init=False)

    def insist(self, *assignments: str) -> bool:
        """Tell what must not be lost, in order: now, or by :meth:`deliver_late`. Return whether there is a manager."""
        if not self._late:
            try:
                return self._send(*assignments)
            except BlockingIOError:
                self._has_late.unpark_all()
        self._late.append(assignments)
        return True

    def mention(self, *assignments: str) -> None:
        """Tell what another report will replace soon, or nothing if the manager has no room for it."""
        try:
            if not self._late:
                self._send(*assignments)
        except BlockingIOError:
            pass

    def _send(self, *assignments: str) -> bool:
        try:
            return notify_at_once(*assignments)
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("%s: %s; serving all the same", error.filename, error.strerror)
            if isinstance(error, BlockingIOError):
                raise
            return False

    async def deliver_late(self) -> None:
        """Deliver what the manager had no room for."""
        while True:
            while not self._late:
                await self._has_late.park()
            try:
                self._send(*self._late[0])
            except BlockingIOError:
                await trio.sleep(RETRY_INTERVAL)
            else:
                del self._late[0]

    async def pet_watchdog(self, timeout: float) -> None:
        """Say WATCHDOG=1 often enough for a manager that waits ``timeout`` seconds for it."""
        while True:
            self.mention(WATCHDOG)
            await trio.sleep(timeout * WATCHDOG_SHARE)

    async def extend_timeout(self, seconds: float) -> None:
        """Ask for more time to stop, for so many seconds; what takes longer then is the manager's to end."""
        with trio.move_on_after(seconds):
            while True:
                self.mention(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}")
                await trio.sleep(EXTENSION / 3)
