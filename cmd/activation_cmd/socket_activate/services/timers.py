"""What the passing of time asks for: one deadline that is set for each state, and a watchdog that has to be fed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = float("inf")


@attrs.define(eq=False)
class Timers:
    """A deadline and a watchdog; both are off at first.

    Attributes:
        patience: seconds that the watchdog waits to be fed.
    """

    patience: float = NEVER
    _deadline: float = attrs.field(default=NEVER, init=False)
    _hunger: float = attrs.field(default=NEVER, init=False)
    _sleep: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)

    def set(self, seconds: float | None) -> None:
        """Let the deadline be in so many seconds, or never."""
        self.set_at(NEVER if seconds is None else trio.current_time() + seconds)

    def set_at(self, time: float) -> None:
        """Let the deadline be at that time of trio's clock."""
        self._deadline = time
        self._rearm()

    def extend(self, seconds: float) -> None:
        """Let what is set of both be no earlier than that from now."""
        time = trio.current_time() + seconds
        if self._deadline < NEVER:
            self._deadline = max(self._deadline, time)
        if self._hunger < NEVER:
            self._hunger = max(self._hunger, time)
        self._rearm()

    def feed(self) -> None:
        """Let the watchdog wait from now on."""
        self._hunger = trio.current_time() + self.patience
        self._rearm()

    def muzzle(self) -> None:
        """Have no watchdog any more."""
        self._hunger = NEVER
        self._rearm()

    @property
    def are_over(self) -> bool:
        """Whether one of the two is due."""
        return min(self._deadline, self._hunger) <= trio.current_time()

    @property
    def is_hungry(self) -> bool:
        """Whether the watchdog was not fed in time."""
        return self._hunger <= trio.current_time()

    async def until(self, event: trio.Event, time_is_over: Callable[[], None]) -> None:
        """Wait for the event; call ``time_is_over`` whenever one of the two is due, which it has to set anew."""
        while not event.is_set():
            with trio.CancelScope() as self._sleep:
                self._rearm()
                await event.wait()
            # The wait may have been over when something was set anew.
            if self._sleep.cancelled_caught and self.are_over:
                time_is_over()

    def _rearm(self) -> None:
        self._sleep.deadline = min(self._deadline, self._hunger)
