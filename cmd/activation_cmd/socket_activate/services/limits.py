"""Limits of events in a time, as StartLimitBurst= and TriggerLimitBurst= have them."""

from __future__ import annotations

import attrs
import trio


@attrs.define
class RateLimit:
    """At most ``burst`` events in ``interval`` seconds from the first of them on; 0 of either is no limit."""

    interval: float | None
    burst: int
    _end: float = attrs.field(default=-float("inf"), init=False)
    _count: int = attrs.field(default=0, init=False)

    def __str__(self) -> str:
        return f"{self.burst} times" + ("" if self.interval is None else f" in {self.interval:g} s")

    def count(self) -> None:
        """An event happens."""
        now = trio.current_time()
        if now >= self._end:
            self._end = float("inf") if self.interval is None else now + self.interval
            self._count = 0
        self._count += 1

    def reset(self) -> None:
        """Forget what happened."""
        self._end = -float("inf")

    def exhausted_until(self) -> float:
        """The time until which one more event would be too many; in the past where there is none."""
        return self._end if self.burst and self.interval != 0 and self._count >= self.burst else -float("inf")
