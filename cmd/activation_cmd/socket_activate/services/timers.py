"""A service's timers: one deadline, which each state sets anew, and a watchdog that has to be fed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = float("inf")


@attrs.define(eq=False)
class Timers:
    """A deadline and a watchdog. Both are off at first.

    Attributes:
        patience: seconds that the watchdog waits to be fed.
    """

    patience: float = NEVER
    _deadline: float = attrs.field(default=NEVER, init=False)
    _hunger: float = attrs.field(default=NEVER, init=False)
    _sleep: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    def set(self, seconds: float | None) -> None:
        """Set the deadline so many seconds from now; None is never."""
        self.set_at(NEVER if seconds is None else trio.current_time() + seconds)

    def set_at(self, time: float) -> None:
        """Set the deadline to a time of trio's clock."""
        self._deadline = time
        self._rearm()

    def extend(self, seconds: float) -> None:
        """Put off the deadline and the watchdog, if they are on, until that many seconds from now at least."""
        time = trio.current_time() + seconds
        if self._deadline < NEVER:
            self._deadline = max(self._deadline, time)
        if self._hunger < NEVER:
            self._hunger = max(self._hunger, time)
        self._rearm()

    def feed(self) -> None:
        """Feed the watchdog: it waits anew."""
        self._hunger = trio.current_time() + self.patience
        self._rearm()

    def muzzle(self) -> None:
        """Turn the watchdog off."""
        self._hunger = NEVER
        self._rearm()

    @property
    def are_over(self) -> bool:
        """Whether the deadline has passed, or the watchdog has waited too long."""
        return min(self._deadline, self._hunger) <= trio.current_time()

    @property
    def is_hungry(self) -> bool:
        """Whether the watchdog has waited too long."""
        return self._hunger <= trio.current_time()

    async def until(self, event: trio.Event, time_is_over: Callable[[], None]) -> None:
        """Wait for the event. Call ``time_is_over`` whenever time is over; it has to set a new time, or none."""
        while not event.is_set():
            with trio.CancelScope() as self._sleep:
                self._rearm()
                await event.wait()
            # The time may have been changed after the wait was cancelled.
            if self._sleep.cancelled_caught and self.are_over:
                time_is_over()

    def _rearm(self) -> None:
        self._sleep.deadline = min(self._deadline, self._hunger)
