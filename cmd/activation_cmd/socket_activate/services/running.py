"""The states of a service that has begun: starting, running, reloading, and what follows when their time is over."""

from __future__ import annotations

import random
import signal
import time
from abc import abstractmethod
from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.socket_activate.processes.control import run_commands
from activation_cmd.socket_activate.processes.table import send

from .stopping import Stoppable
from .timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from activation import Notification
    from activation_cmd.socket_activate.processes.start import Start


@attrs.define(eq=False, kw_only=True)
class Running(Stoppable):
    """What the states of a service lead to, and what leads to them."""

    control: Callable[[int], Sequence[Start]]
    """Describes the commands of ExecReload=, for the main process of that number."""
    _running_until: float = attrs.field(default=NEVER, init=False)
    _reload_begun: float = attrs.field(default=NEVER, init=False)
    """When Type=notify-reload was asked to reload and has not answered yet, by CLOCK_MONOTONIC in microseconds."""
    _reload_again: bool = attrs.field(default=False, init=False)
    _commanded: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Is not set while the commands of ExecReload= run."""
    _announced: str = attrs.field(default="", init=False)
    """The last of READY=1, RELOADING=1 and STOPPING=1 that the service has sent."""
    _nursery: trio.Nursery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        Stoppable.__attrs_post_init__(self)
        self._commanded.set()
        self._timers.set(self.unit.timeout_start)

    @abstractmethod
    def _catch_up(self) -> None:
        """Take what the service has sent so far."""

    # What the service says, and what happens to it

    def _take_step(self, step: str, notification: Notification) -> None:
        # The answer to a reload counts once it has begun.
        asked = self.state == "reloading" and (self._reload_begun < NEVER or self._is_commanding)
        if step == "READY=1" and self.state in ("starting", "reloading") and not asked:
            self._is_running()
        elif step == "RELOADING=1":
            self._is_reloading(notification.get("MONOTONIC_USEC"))
        elif step == "STOPPING=1" and self.state == "running":
            self._stop_by_itself()

    def _is_running(self) -> None:
        if self.state == "starting" and self.unit.type not in ("simple", "exec"):
            self.say("it is ready")
        if self._running_until == NEVER and self.unit.runtime_max is not None:
            extra = random.uniform(0, self.unit.runtime_randomized_extra)  # noqa: S311
            self._running_until = trio.current_time() + self.unit.runtime_max + extra
        self.state = "running"
        self._timers.set_at(self._running_until)
        self._pet()
        if self._announced == "STOPPING=1":  # which came too early to count
            self._stop_by_itself()
        elif self._reload_again:
            # It was asked for during another reload, which may have come too early for the last change.
            self._reload_again = False
            self.reload()

    def _is_reloading(self, monotonic: str | None) -> None:
        if self.state != "running" and not (self.state == "reloading" and self._reload_begun < NEVER):
            return
        asked = self._reload_begun if self.unit.type == "notify-reload" else 0
        if asked < NEVER and (number_in(monotonic) or 0) < asked:
            return  # this began before the reload was asked for
        self._reload_begun = NEVER
        self.state = "reloading"
        self._timers.set(self.unit.timeout_start)

    def _stop_by_itself(self) -> None:
        self.state = "stopping"
        self._timers.muzzle()
        self._timers.set(self.unit.timeout_stop)

    def _pet(self) -> None:
        if self.state not in ("killing", "dead"):
            self._timers.feed()

    def _bite(self) -> None:
        if self.state not in ("killing", "dead"):
            if self.result == "success":
                self.result = "watchdog"
            self._abort()

    # Time

    def _time_is_over(self) -> None:
        self._catch_up()
        if not self._timers.are_over:
            return
        unit = self.unit
        if self._timers.is_hungry:
            self.say(f"no WATCHDOG=1 came for {self._timers.patience:g} s; it is aborted")
            self._bite()
        elif self.state == "starting":
            self.say(f"it was not ready within TimeoutStartSec={unit.timeout_start:g}; it is ended")
            self.result = "timeout"
            self._end_by(unit.timeout_start_failure_mode)
        elif self.state == "running":
            self.say(f"it has run for RuntimeMaxSec={unit.runtime_max:g}; it is ended")
            self.result = "timeout"
            self._end(unit.kill_signal)
        elif self._is_commanding and self.state == "reloading":
            self.say("the command of ExecReload= took too long; it is killed")
            self._timers.set(None)
            for pid in self._group.helpers:
                send(pid, signal.SIGKILL)
        elif self.state == "reloading":
            self.say("the reload took too long; the service goes on as it is")
            self._is_running()
        elif self.state == "stopping":
            if self.result == "success":
                self.result = "timeout"
            again = unit.timeout_stop_failure_mode == "abort" and not self._aborted
            name, seconds = ("Abort", unit.timeout_abort) if self._aborted else ("Stop", unit.timeout_stop)
            self.say(f"it did not end within Timeout{name}Sec={seconds:g}; it is {'aborted' if again else 'killed'}")
            self._end_by("abort" if again else "kill")
        else:
            self._timers.set(None)

    # Reloading

    def reload(self) -> None:
        """Have the service read its configuration again: by SIGHUP for Type=notify-reload, else by ExecReload=."""
        if self.state in ("starting", "reloading"):
            self._reload_again = True
        elif self.state != "running":
            return
        elif self.unit.type == "notify-reload":
            self.state = "reloading"
            self._reload_begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._timers.set(self.unit.timeout_start)
            send(self._main, signal.SIGHUP)
        elif self.unit.exec_reload:
            self.state = "reloading"
            self._commanded = trio.Event()
            self._nursery.start_soon(self._run_reload)

    @property
    def _is_commanding(self) -> bool:
        return not self._commanded.is_set()

    async def _run_reload(self) -> None:
        def begins() -> None:
            if self.state == "reloading":
                self._timers.set(self.unit.timeout_start)

        starts = self.control(self._main)
        await run_commands(self.unit.exec_reload, starts, self.reaper, self._group, self.say, begins)
        self._commanded.set()
        if self.state == "reloading" and not self._ended.is_set():
            self._is_running()
            if self._announced == "RELOADING=1":
                self._is_reloading(None)  # if the service still does it


def number_in(text: str | None) -> int | None:
    """The number that an assignment has, None if it has none."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) >= _INFINITY:
        return None
    return int(text)


_INFINITY = 2**64 - 1
"""Microseconds; and no number is higher."""
