"""How a service is stopped: by a signal first, by force when its time is over; systemd.kill(5)."""

from __future__ import annotations

import signal
from abc import abstractmethod
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from activation_cmd.socket_activate.processes.group import Group
from activation_cmd.socket_activate.processes.table import send

from .timers import NEVER, Timers

if TYPE_CHECKING:
    from collections.abc import Callable

    from activation_cmd.socket_activate.processes.launch import Child
    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.units.model import FailureMode, ServiceUnit
    from activation_cmd.socket_activate.units.results import Result

State = Literal["starting", "running", "reloading", "stopping", "killing", "dead"]


@attrs.define(eq=False, kw_only=True)
class Stoppable:
    """What every state of a service's life has in common: it can be stopped.

    Attributes:
        identity: the start's own INVOCATION_ID=...
        state: where the service is in its life.
        result: what systemd calls the service's result.
    """

    unit: ServiceUnit
    child: Child
    identity: bytes
    reaper: Reaper
    say: Callable[[str], None]
    state: State = "starting"
    result: Result = "success"
    _group: Group = attrs.field(init=False)
    _timers: Timers = attrs.field(init=False)
    _main: int = attrs.field(init=False)
    """The number of the main process."""
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The main process has ended."""
    _aborted: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._main = self.child.pid
        self._group = Group(self.child.pid, self.identity)
        self._timers = Timers(self.unit.watchdog or NEVER)

    def stop(self) -> None:
        """Send KillSignal= now, and SIGKILL after TimeoutStopSec=."""
        if self.state in ("starting", "running", "reloading") or self._aborted:
            self.say(f"ending pid {self._main}")
            self._end(self.unit.kill_signal)

    def kill(self) -> None:
        """End it at once."""
        self.state = "killing"
        self._timers.muzzle()
        self._timers.set(None)
        self._signal(signal.SIGKILL)

    def _end_by(self, mode: FailureMode) -> None:
        if mode == "terminate":
            self._end(self.unit.kill_signal)
        elif mode == "abort":
            self._abort()
        else:
            self.kill()

    def _abort(self) -> None:
        self._end(self.unit.watchdog_signal)
        self._aborted = True
        self._timers.set(self.unit.timeout_abort)

    def _end(self, number: int) -> None:
        self.state = "stopping"
        self._aborted = False
        self._timers.muzzle()
        self._timers.set(self.unit.timeout_stop)
        self._signal(number)

    def _signal(self, number: int) -> None:
        """Send a signal to the processes that KillMode= names."""
        targets = set(self._group.helpers)
        if not self._ended.is_set():
            targets.add(self._main)
        if self.unit.kill_mode == "control-group" or (self.unit.kill_mode == "mixed" and number == signal.SIGKILL):
            targets.update(self._group.members())
        for pid in targets:
            send(pid, number)

    async def _end_the_rest(self) -> None:
        """End what the main process has left behind, as KillMode= says."""
        left = self._group.members()
        if self.unit.kill_mode == "process":
            self.reaper.spare(left)
            return
        if left and self.state != "killing":
            if self.unit.kill_mode == "mixed":
                self.kill()
            else:
                self._end(self.unit.kill_signal)
        while left:
            if self.state == "killing":
                self._signal(signal.SIGKILL)
            gone = trio.Event()
            async with trio.open_nursery() as nursery:

                async def wait(gone: trio.Event = gone) -> None:
                    await self._group.members_gone()
                    gone.set()

                nursery.start_soon(wait)
                await self._timers.until(gone, self._time_is_over)
            left = self._group.members()

    @abstractmethod
    def _time_is_over(self) -> None:
        """Do what the state asks for when its time is over; set another time, or none."""
