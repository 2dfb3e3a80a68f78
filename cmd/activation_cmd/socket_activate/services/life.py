"""One start of a service, from its first process to the end of its last one; systemd.service(5), sd_notify(3)."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.socket_activate.processes import table
from activation_cmd.socket_activate.processes.control import run_commands
from activation_cmd.socket_activate.processes.table import send
from activation_cmd.socket_activate.units.results import End, result_of

from .hearing import Hearing
from .stopping import Stoppable
from .timers import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from activation import DescriptorStore, Notification, NotifyReceiver
    from activation_cmd.socket_activate.processes.execute import Start
    from activation_cmd.socket_activate.processes.launch import Child, Ending

    from .limits import LimitedSay


@attrs.define(eq=False, kw_only=True)
class Life(Stoppable):
    """One start of a service. :meth:`run` is all of it; the other methods ask for something, before it or meanwhile.

    Attributes:
        status: how the main process ended, as ``subprocess`` has it; None as long as nobody knows.
    """

    receiver: NotifyReceiver | None
    store: DescriptorStore
    control: Callable[[int], Sequence[Start]]
    """Gives what ExecReload= has to run, for the main process of that number."""
    say_status: LimitedSay
    complain: LimitedSay
    status: int | None = None
    _hearing: Hearing = attrs.field(init=False)
    _running_until: float = attrs.field(default=NEVER, init=False)
    _reload_begun: float = attrs.field(default=NEVER, init=False)
    """When Type=notify-reload was asked to reload and has not answered yet, by CLOCK_MONOTONIC in microseconds."""
    _reload_again: bool = attrs.field(default=False, init=False)
    _commanded: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Is not set while the commands of ExecReload= run."""
    _announced: str = attrs.field(default="", init=False)
    _nursery: trio.Nursery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        Stoppable.__attrs_post_init__(self)
        self._hearing = Hearing(
            receiver=self.receiver,
            access=self.unit.notify_access,
            main=self._main,
            group=self._group,
            store=self.store,
            act=self._act_on,
            say=self.say_status,
            complain=self.complain,
            starter=self.child.pid if self._prepares else 0,
        )
        self._timers.set(self.unit.timeout_start)
        self._commanded.set()

    async def run(self) -> End:
        """Follow the service to the end of its last process; return how it ended."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._follow_start)
            self._nursery.start_soon(self._follow_main, self.child)
            self._nursery.start_soon(self._hearing.listen)
            await self._timers.until(self._ended, self._time_is_over)
            self._timers.muzzle()
            if self.state == "reloading":
                await self._timers.until(self._commanded, self._time_is_over)
            self._hearing.catch_up()
            await self._end_the_rest()
            await self.child.exited.wait()  # its number is free now: another process was the main one
            self._nursery.cancel_scope.cancel()
        self.state = "dead"
        self.reaper.executor.release(self.child.pid)
        return End(self.result, self.status)

    @property
    def _prepares(self) -> bool:
        """Whether commands of ExecStartPre= come before the service."""
        return bool(self.unit.exec_start_pre)

    async def _follow_start(self) -> None:
        await self.child.settled()
        self._hearing.starter = 0
        if self.child.failure:
            self.say(self.child.failure)
        elif self.state == "starting":
            if self.unit.type == "exec" or (self.unit.type == "simple" and self._prepares):
                self._is_running()
            elif self._prepares:
                self._timers.set(self.unit.timeout_start)

    async def _follow_main(self, child: Child) -> None:
        if self.unit.type == "simple" and self.state == "starting" and not self._prepares:
            self._is_running()
        await child.exited.wait()
        if self._main == child.pid:
            self._hearing.catch_up()
        if self._main == child.pid:  # it may just have named another
            self._judge(child)
            self._ended.set()

    async def _follow_another(self, pid: int) -> None:
        ending = await self.reaper.end_of(pid)
        self._hearing.catch_up()
        if self._main == pid:
            self._judge(ending)
            self._ended.set()

    def _judge(self, ending: Ending) -> None:
        """Set the result by how the main process ended, unless there is one already."""
        self.status = ending.status
        if self.result != "success":
            return
        self.result = result_of(ending.status, self.unit.success_statuses, core=ending.core)
        if self.result == "success" and self.state == "starting" and self.unit.type in ("notify", "notify-reload"):
            self.result = "protocol"
            self.say(f"it ended before it sent READY=1, which Type={self.unit.type} asks for")

    # What the service says

    def _act_on(self, notification: Notification) -> None:
        told = notification.assignments
        if (main := notification.get("MAINPID")) is not None:
            self._set_main(main, trusted=notification.uid == 0)
        if step := next((each for each in reversed(told) if each in _STEPS), ""):  # the last one counts
            self._announced = step
            self._take_step(step, notification)
        if (microseconds := _number(notification.get("EXTEND_TIMEOUT_USEC"))) is not None:
            self._timers.extend(microseconds / 1e6)
        if (microseconds := _number(notification.get("WATCHDOG_USEC"))) is not None:
            self._timers.patience = microseconds / 1e6 or NEVER
            self._pet()
        if "WATCHDOG=1" in told:
            self._pet()
        if "WATCHDOG=trigger" in told:
            self._bite()

    def _set_main(self, text: str, *, trusted: bool) -> None:
        pid = _number(text)
        if pid == self._main:
            return
        # A sender that is not root may only name a process of this service.
        possible = pid is not None and pid not in (0, 1, os.getpid(), self.reaper.executor.pid) and table.process(pid)
        if pid is None or not possible or not (trusted or self._group.owns(pid)):
            self.complain(f"MAINPID={text} was ignored: that is no process of this service")
            return
        self._main = self._hearing.main = pid
        self.say_status(f"the main process is now pid {pid}")
        self._nursery.start_soon(self._follow_another, pid)

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
        if asked < NEVER and (_number(monotonic) or 0) < asked:
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
        self._hearing.catch_up()
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


_STEPS = frozenset(["READY=1", "RELOADING=1", "STOPPING=1"])


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) >= _INFINITY:
        return None
    return int(text)


_INFINITY = 2**64 - 1
"""Microseconds; and no number is higher."""
