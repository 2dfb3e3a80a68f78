"""Rounds in which every contestant runs once, so that the machine's noise hits all alike; and what they tell."""

from __future__ import annotations

import math
import random
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Results:
    """Seconds that each contestant took, by round."""

    def __init__(self, seconds: Mapping[str, Sequence[float]]) -> None:
        self._seconds = seconds

    def __contains__(self, name: str) -> bool:
        return name in self._seconds

    def names(self) -> list[str]:
        return list(self._seconds)

    def least(self, name: str) -> float:
        return min(self._seconds[name])

    def median(self, name: str) -> float:
        return median(self._seconds[name])

    def ratio(self, name: str, peer: str) -> Estimate:
        """How many times as long as its peer of the same round it took."""
        return Estimate([a / b for a, b in self._pairs(name, peer)])

    def excess(self, name: str, peer: str) -> Estimate:
        """How many seconds longer than its peer of the same round it took."""
        return Estimate([a - b for a, b in self._pairs(name, peer)])

    def _pairs(self, name: str, peer: str) -> list[tuple[float, float]]:
        return list(zip(self._seconds[name], self._seconds[peer], strict=True))


class Estimate:
    """A median, and the range that holds the true one with 95 % (from the order of the values, whatever their law)."""

    def __init__(self, values: Sequence[float]) -> None:
        ordered = sorted(values)
        away = 0.98 * math.sqrt(len(ordered))
        self.median = median(ordered)
        self.low = ordered[max(0, math.floor(len(ordered) / 2 - away))]
        self.high = ordered[min(len(ordered) - 1, math.ceil(len(ordered) / 2 + away))]


def interleaved(contestants: Mapping[str, Callable[[], float]], rounds: int) -> Results:
    """Run every contestant once a round; each returns its seconds. A first round, which is not counted, warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    shuffle = random.Random(0).shuffle  # what runs before it leaves its mark on caches: let that be everyone in turn
    for number in range(rounds + 1):
        for name in order:
            measured = contestants[name]()
            if number:
                seconds[name].append(measured)
        shuffle(order)
    return Results(seconds)
