from __future__ import annotations

import pytest
import trio.testing
from activation_cmd.socket_activate.services.ends import Delay, Following, following
from activation_cmd.socket_activate.units.model import Command, ServiceUnit
from activation_cmd.socket_activate.units.results import End

UNIT = ServiceUnit(name="a.service", exec_start=Command("true", ["true"]))
FAILED, WELL = End("exit-code", 1), End("success", 0)


def after(
    unit: ServiceUnit = UNIT,
    end: End = FAILED,
    *,
    asked: bool = False,
    stored: bool = False,
    delay: Delay | None = None,
    by_client: bool = True,
    waits: bool = False,
) -> Following:
    return following(unit, end, asked=asked, stored=stored, delay=delay, by_client=by_client, waits=waits)


def test_a_restart_that_was_asked_for_comes_before_all_rules() -> None:
    unit = UNIT._replace(restart="always", restart_sec=5.0)
    assert after(unit, asked=True) == Following(True, 0.0, "it is started again")


@pytest.mark.parametrize(("seconds", "pause", "shown"), [(1.5, 1.5, "1.5"), (None, float("inf"), "inf")])
def test_a_restart_by_the_units_rules_waits_as_they_say(seconds: float | None, pause: float, shown: str) -> None:
    unit = UNIT._replace(restart="on-failure", restart_sec=seconds)
    assert after(unit) == Following(True, pause, f"Restart=on-failure starts it again in {shown} s")
    assert not after(unit, WELL).now


def test_otherwise_a_client_or_a_rival_starts_it() -> None:
    assert after() == Following(False, 0.0, "the next client starts it again")
    assert after(waits=True).words == "a client that waits starts it again"
    assert after(by_client=False).words == "it starts again when another service on its sockets does"


async def test_a_command_that_fails_waits_longer_each_time(autojump_clock: trio.testing.MockClock) -> None:
    delay = Delay()
    pauses = []
    for _ in range(8):
        delay.begin()
        pauses.append(after(delay=delay).pause)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert after(delay=delay).words == "the next client starts it again, in 5 s at the earliest"
    delay.begin()
    await trio.sleep(6)
    assert after(delay=delay).pause == 0.1  # it has lived for long
    assert after(end=WELL, delay=delay).pause == 0
    assert after(delay=delay).pause == 0.1


async def test_a_command_that_fails_and_has_stored_something_is_started_without_a_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    delay = Delay()
    words = "what it stored is kept, and it is started again in 0.1 s"
    assert after(stored=True, delay=delay) == Following(True, 0.1, words)
    assert not after(end=WELL, stored=True, delay=delay).now
    assert not after(stored=True).now  # of a unit, Restart= decides
