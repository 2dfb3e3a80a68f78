"""What follows the end of a service: whether it is started again without a client, when, and what is said of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs
import trio

from activation_cmd.socket_activate.units.results import restarts

if TYPE_CHECKING:
    from activation_cmd.socket_activate.units.model import ServiceUnit
    from activation_cmd.socket_activate.units.results import End

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
"""Seconds before a client may start a command again that has failed. They are doubled each time."""


class Following(NamedTuple):
    """What follows an end.

    Attributes:
        now: the next start needs no client.
        pause: seconds until then, or until a client may start it.
        words: for the message about the end.
    """

    now: bool
    pause: float
    words: str


@attrs.define
class Delay:
    """The pause of a COMMAND that fails: longer each time, unless it has lived for long meanwhile."""

    _seconds: float = attrs.field(default=0.0, init=False)
    _began: float = attrs.field(default=0.0, init=False)

    def begin(self) -> None:
        """Note that the command has been started."""
        self._began = trio.current_time()

    def after(self, *, failed: bool) -> float:
        """Seconds to wait after this end."""
        lived_long = trio.current_time() > self._began + _LONGEST_DELAY
        before = 0.0 if lived_long else self._seconds
        self._seconds = min(max(_FIRST_DELAY, 2 * before), _LONGEST_DELAY) if failed else 0.0
        return self._seconds


def following(
    unit: ServiceUnit, end: End, *, asked: bool, stored: bool, delay: Delay | None, by_client: bool, waits: bool
) -> Following:
    """Tell what follows an end.

    Args:
        asked: somebody has asked for a restart.
        stored: there is something in its store.
        delay: of a COMMAND, which no unit has limits for; None for a service of a unit file.
        by_client: a client starts it, not a rival.
        waits: there is a client already.
    """
    if asked:
        return Following(now=True, pause=0.0, words="it is started again")
    if restarts(unit, end):
        pause = float("inf") if unit.restart_sec is None else unit.restart_sec
        return Following(now=True, pause=pause, words=f"Restart={unit.restart} starts it again in {pause:g} s")
    failed = end.result != "success"
    pause = delay.after(failed=failed) if delay else 0.0
    if delay and failed and stored:
        # The connections in the store have clients who would wait for a stranger to come.
        words = f"what it stored is kept, and it is started again in {pause:g} s"
        return Following(now=True, pause=pause, words=words)
    words = "a client that waits starts it again" if waits else "the next client starts it again"
    if not by_client:
        words = "it starts again when another service on its sockets does"
    return Following(now=False, pause=pause, words=words + (f", in {pause:g} s at the earliest" if pause else ""))
