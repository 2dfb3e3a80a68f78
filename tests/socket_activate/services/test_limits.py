"""How many events a limit lets through, and until when there are too many: as systemd's rate limits count."""

from __future__ import annotations

import trio
import trio.testing
from activation_cmd.socket_activate.services.limits import RateLimit


async def test_it_is_exhausted_by_as_many_events_until_the_time_since_the_first_is_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limit = RateLimit(2.0, 3)
    begin = trio.current_time()
    for _ in range(3):
        assert limit.exhausted_until() < trio.current_time()
        limit.count()
        await trio.sleep(0.5)
    assert limit.exhausted_until() == begin + 2.0
    await trio.sleep(1)
    limit.count()
    assert limit.exhausted_until() < trio.current_time()


async def test_slow_events_never_exhaust_it(autojump_clock: trio.testing.MockClock) -> None:
    limit = RateLimit(2.0, 3)
    for _ in range(50):
        limit.count()
        assert limit.exhausted_until() < trio.current_time()
        await trio.sleep(1)


async def test_no_burst_or_no_interval_is_no_limit_and_infinity_counts_for_ever() -> None:
    for limit in (RateLimit(2.0, 0), RateLimit(0.0, 1)):
        limit.count()
        assert limit.exhausted_until() == -float("inf")
    for limit in (RateLimit(None, 1), RateLimit(float("inf"), 1)):
        limit.count()
        assert limit.exhausted_until() == float("inf")


async def test_what_happened_can_be_forgotten() -> None:
    limit = RateLimit(2.0, 1)
    limit.count()
    limit.reset()
    assert limit.exhausted_until() == -float("inf")
