"""One deadline and a watchdog, by a clock that jumps."""

from __future__ import annotations

import pytest
import trio
from activation_cmd.socket_activate.services.timers import NEVER, Timers


class Waiting:
    """Timers in a task that waits for nothing else, and when they told that a time was over."""

    def __init__(self, nursery: trio.Nursery, patience: float = NEVER) -> None:
        self.timers = Timers(patience)
        self.told: list[float] = []
        nursery.start_soon(self.timers.until, trio.Event(), self._time_is_over)

    def _time_is_over(self) -> None:
        self.told.append(trio.current_time())
        self.timers.set(None)
        self.timers.muzzle()


async def test_a_deadline_is_told_once(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    waiting = Waiting(nursery)
    waiting.timers.set(5)
    await trio.sleep(100)
    assert waiting.told == [5]


async def test_what_is_set_meanwhile_counts(nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> None:
    waiting = Waiting(nursery, patience=3)
    for _ in range(5):
        waiting.timers.feed()
        await trio.sleep(2)
    assert waiting.told == []
    waiting.timers.extend(10)
    await trio.sleep(9)
    assert not waiting.timers.is_hungry
    await trio.sleep(9)
    assert waiting.told == [20]


@pytest.mark.parametrize("_", range(20))
async def test_a_time_that_is_put_off_when_it_is_over_is_told_at_its_new_one_only(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, _: int
) -> None:
    # Which of the tasks that wake at the same time runs first is left to chance.
    waiting = Waiting(nursery)
    waiting.timers.set(5)
    await trio.sleep(5)
    was_first = not waiting.told
    waiting.timers.set(3)
    await trio.sleep(100)
    assert waiting.told == ([8] if was_first else [5, 8])


async def test_without_a_deadline_there_is_nothing_to_extend(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    waiting = Waiting(nursery)
    waiting.timers.extend(5)
    await trio.sleep(100)
    assert waiting.told == []
