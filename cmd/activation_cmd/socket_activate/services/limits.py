"""Limits of how often something happens, as StartLimitBurst= and TriggerLimitBurst= set them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Callable


@attrs.define
class RateLimit:
    """At most ``burst`` events within ``interval`` seconds of the first one; 0 for either means no limit."""

    interval: float | None
    burst: int
    _end: float = attrs.field(default=-float("inf"), init=False)
    _count: int = attrs.field(default=0, init=False)

    def __str__(self) -> str:
        return f"{self.burst} times" + ("" if self.interval is None else f" in {self.interval:g} s")

    def count(self) -> None:
        """Count one event."""
        now = trio.current_time()
        if now >= self._end:
            self._end = float("inf") if self.interval is None else now + self.interval
            self._count = 0
        self._count += 1

    def reset(self) -> None:
        """Forget the events so far."""
        self._end = -float("inf")

    def exhausted_until(self) -> float:
        """The time until which one more event would exceed the limit; a time in the past if it would not."""
        return self._end if self.burst and self.interval != 0 and self._count >= self.burst else -float("inf")


LINES_INTERVAL: Final = 10.0
"""Seconds."""
LINES_BURST: Final = 10


@attrs.define
class LimitedSay:
    """Says what clients and services can provoke: a few lines in :data:`LINES_INTERVAL` seconds, and no more."""

    say: Callable[[str], None]
    _limit: RateLimit = attrs.field(factory=lambda: RateLimit(LINES_INTERVAL, LINES_BURST), init=False)

    def __call__(self, message: str) -> None:
        """Say the message, unless there were too many."""
        if self._limit.exhausted_until() > trio.current_time():
            return
        self._limit.count()
        self.say(message)
        if (until := self._limit.exhausted_until() - trio.current_time()) > 0:
            self.say(f"more messages like this one are left out for {until:.0f} s")
