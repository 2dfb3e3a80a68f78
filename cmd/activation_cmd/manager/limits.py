"""Limits of events in a time, as StartLimitBurst= and TriggerLimitBurst= have them."""

from __future__ import annotations

import attrs
import trio


@attrs.define
class RateLimit:
    """At most ``burst`` events in ``interval`` seconds from the first of them on; 0 of either is no limit."""

    interval: float | None
    burst: int
    _begin: float = attrs.field(default=-float("inf"), init=False)
    _count: int = attrs.field(default=0, init=False)

    def count(self) -> None:
        """An event happens."""
        now = trio.current_time()
        if self.interval is not None and now >= self._begin + self.interval:
            self._begin, self._count = now, 0
        self._count += 1

    def reset(self) -> None:
        """Forget what happened."""
        self._count = 0

    def exhausted_until(self) -> float:
        """The time until which one more event would be too many; in the past where there is none."""
        if not self.burst or self.interval == 0 or self._count < self.burst:
            return -float("inf")
        return float("inf") if self.interval is None else self._begin + self.interval
