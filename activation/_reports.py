"""What a daemon tells the service manager again and again; one that cannot be reached keeps no daemon from its work."""

from __future__ import annotations

import logging

import attrs
import trio

from ._notify import WATCHDOG, notify

log = logging.getLogger("activation")

WATCHDOG_SHARE = 0.4
"""Of the time that the manager allows between two WATCHDOG=1, how much passes."""

EXTENSION = 15.0
"""Seconds that a drain asks of the manager; it asks again when a third of them has passed."""


@attrs.define(eq=False)
class Reports:
    """The reports of one daemon."""

    _unheard: bool = attrs.field(default=False, init=False)

    def tell(self, *assignments: str) -> bool:
        """Tell the manager; return whether there is one. The first failure is logged."""
        try:
            return notify(*assignments)
        except OSError as error:
            if not self._unheard:
                self._unheard = True
                log.warning("%s: %s; serving all the same", error.filename, error.strerror)
            return False

    async def pet_watchdog(self, timeout: float) -> None:
        """Say WATCHDOG=1 often enough for a manager that waits ``timeout`` seconds for it."""
        while True:
            self.tell(WATCHDOG)
            await trio.sleep(timeout * WATCHDOG_SHARE)

    async def extend_timeout(self) -> None:
        """Ask for more time to stop, for as long as this runs."""
        while True:
            self.tell(f"EXTEND_TIMEOUT_USEC={EXTENSION * 1e6:.0f}")
            await trio.sleep(EXTENSION / 3)
