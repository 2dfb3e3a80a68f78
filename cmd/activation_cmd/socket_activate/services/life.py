"""One start of a service, from its first process to the last of what it left; systemd.service(5), sd_notify(3)."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from activation_cmd.socket_activate.processes import table
from activation_cmd.socket_activate.processes.control import run_commands
from activation_cmd.socket_activate.processes.group import Group
from activation_cmd.socket_activate.processes.table import send
from activation_cmd.socket_activate.units.results import End, result_of

from .timers import NEVER, Timers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from activation import DescriptorStore, Notification, NotifyReceiver
    from activation_cmd.socket_activate.processes.execute import Start
    from activation_cmd.socket_activate.processes.launch import Child, Ending
    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.units.model import FailureMode, ServiceUnit
    from activation_cmd.socket_activate.units.results import Result

State = Literal["starting", "running", "reloading", "stopping", "killing", "dead"]


@attrs.define(eq=False)
class Life:
    """One start of a service. :meth:`run` is all of it; the other methods ask for something, before it or meanwhile.

    Attributes:
        identity: the start's own INVOCATION_ID=...
        result: what systemd calls the service's result.
        status: how the main process ended, as ``subprocess`` has it.
    """

    unit: ServiceUnit
    child: Child
    identity: bytes
    reaper: Reaper
    receiver: NotifyReceiver | None
    store: DescriptorStore
    control: Callable[[int], Sequence[Start]]
    """Gives what ExecReload= has to be run, for the main process of that number."""
    say: Callable[[str], None]
    state: State = "starting"
    result: Result = "success"
    status: int | None = None
    _group: Group = attrs.field(init=False)
    _main: int = attrs.field(init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _timers: Timers = attrs.field(init=False)
    _running_until: float = attrs.field(default=NEVER, init=False)
    _aborted: bool = attrs.field(default=False, init=False)
    _reload_begun: float = attrs.field(default=NEVER, init=False)
    _reload_again: bool = attrs.field(default=False, init=False)
    _commanded: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set but while the commands of ExecReload= run."""
    _announced: str = attrs.field(default="", init=False)
    _told_status: str | None = attrs.field(default=None, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._main = self.child.pid
        self._group = Group(self.child.pid, self.identity)
        self._timers = Timers(self.unit.watchdog or NEVER)
        self._timers.set(self.unit.timeout_start)
        self._commanded.set()

    async def run(self) -> End:
        """Live; return how it ended."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._follow_start)
            self._nursery.start_soon(self._follow_main, self.child)
            if self.receiver:
                self._nursery.start_soon(self._listen, self.receiver)
            await self._timers.until(self._ended, self._time_is_over)
            self._timers.muzzle()
            if self.state == "reloading":
                await self._timers.until(self._commanded, self._time_is_over)
            self._drain()
            await self._end_the_rest()
            await self.child.exited.wait()  # its number is free now: another process was the main one
            self._nursery.cancel_scope.cancel()
        self.state = "dead"
        self.reaper.executor.release(self.child.pid)
        return End(self.result, self.status)

    async def _follow_start(self) -> None:
        await self.child.settled()
        if self.child.failure:
            self.say(self.child.failure)
        elif self.unit.type == "exec" and self.state == "starting":
            self._is_running()

    async def _follow_main(self, child: Child) -> None:
        if self.unit.type == "simple" and self.state == "starting":
            self._is_running()
        await child.exited.wait()
        if self._main == child.pid:
            self._drain()
        if self._main == child.pid:  # it may just have told of another
            self._judge(child)
            self._ended.set()

    async def _follow_another(self, pid: int) -> None:
        ending = await self.reaper.end_of(pid)
        self._drain()
        if self._main == pid:
            self._judge(ending)
            self._ended.set()

    def _judge(self, ending: Ending) -> None:
        """Tell the result by how the main process ended, unless there is one that came first."""
        self.status = ending.status
        if self.result != "success":
            return
        self.result = result_of(ending.status, self.unit.success_statuses, core=ending.core)
        if self.result == "success" and self.state == "starting" and self.unit.type in ("notify", "notify-reload"):
            self.result = "protocol"
            self.say(f"it ended before it told READY=1, which Type={self.unit.type} has to")

    # What it tells

    async def _listen(self, receiver: NotifyReceiver) -> None:
        while True:
            self._take(await receiver.receive())

    def _drain(self) -> None:
        """Take what was told before the end that was just seen."""
        while self.receiver and (notification := self.receiver.receive_nowait()):
            self._take(notification)

    def _take(self, notification: Notification) -> None:
        try:
            if notification.is_barrier:
                return
            if not self._may_notify(notification.pid):
                self.say(
                    f"a notification of pid {notification.pid} was dropped: NotifyAccess={self.unit.notify_access} and "
                    f"the main process is {self._main}"
                )
            elif "BARRIER=1" in notification.assignments:
                self.say("a BARRIER=1 was not alone in its notification, which was dropped")
            else:
                self._do(notification)
        finally:
            notification.close()

    def _may_notify(self, pid: int) -> bool:
        access = self.unit.notify_access
        if access == "all":
            return self._group.owns(pid)
        return pid == self._main or (access == "exec" and pid in self._group.helpers)

    def _do(self, notification: Notification) -> None:
        told = notification.assignments
        if (main := notification.get("MAINPID")) is not None:
            self._set_main(main, trusted=notification.uid == 0)
        if step := next((each for each in reversed(told) if each in _STEPS), ""):  # the last one counts
            self._announced = step
            self._take_step(step, notification)
        if (status := notification.get("STATUS")) is not None and status != self._told_status:
            self._told_status = status
            self.say(f"status: {status}")
        if (microseconds := _number(notification.get("EXTEND_TIMEOUT_USEC"))) is not None:
            self._timers.extend(microseconds / 1e6)
        if (microseconds := _number(notification.get("WATCHDOG_USEC"))) is not None:
            self._timers.patience = microseconds / 1e6 or NEVER
            self._pet()
        if "WATCHDOG=1" in told:
            self._pet()
        if "WATCHDOG=trigger" in told:
            self._bite()
        if not self.store.take(notification) and notification.fds:
            self.say(f"{len(notification.fds)} descriptors came without FDSTORE=1 and were closed")

    def _take_step(self, step: str, notification: Notification) -> None:
        asked = self.state == "reloading" and (self._reload_begun < NEVER or self._is_commanding)  # and is not over
        if step == "READY=1" and self.state in ("starting", "reloading") and not asked:
            self._is_running()
        elif step == "RELOADING=1":
            self._is_reloading(notification.get("MONOTONIC_USEC"))
        elif step == "STOPPING=1" and self.state == "running":
            self._stop_by_itself()

    def _set_main(self, text: str, *, trusted: bool) -> None:
        pid = _number(text)
        if pid == self._main:
            return
        # Who is not trusted may only name a process of its own.
        possible = pid is not None and pid not in (0, 1, os.getpid(), self.reaper.executor.pid) and table.process(pid)
        if pid is None or not possible or not (trusted or self._group.owns(pid)):
            self.say(f"MAINPID={text} was ignored: that is no process of this service")
            return
        self._main = pid
        self.say(f"the main process is now pid {pid}")
        self._nursery.start_soon(self._follow_another, pid)

    # What happens to it

    def _is_running(self) -> None:
        if self.state == "starting" and self.unit.type not in ("simple", "exec"):
            self.say("it is ready")
        if self._running_until == NEVER and self.unit.runtime_max is not None:
            extra = random.uniform(0, self.unit.runtime_randomized_extra)  # noqa: S311
            self._running_until = trio.current_time() + self.unit.runtime_max + extra
        self.state = "running"
        self._timers.set_at(self._running_until)
        self._pet()
        if self._announced == "STOPPING=1":  # before it was the time for it
            self._stop_by_itself()
        elif self._reload_again:
            # Asked for while one was under way, which may have come too early for the last change.
            self._reload_again = False
            self.reload()

    def _is_reloading(self, monotonic: str | None) -> None:
        if self.state != "running" and not (self.state == "reloading" and self._reload_begun < NEVER):
            return
        asked = self._reload_begun if self.unit.type == "notify-reload" else 0
        if asked < NEVER and (_number(monotonic) or 0) < asked:
            return  # told before it was asked
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
        self._drain()
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
            self.say("the reload took too long; it goes on as it is")
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

    # What is asked of it

    def stop(self) -> None:
        """Let it end: KillSignal= now, SIGKILL after TimeoutStopSec=."""
        if self.state in ("starting", "running", "reloading") or self._aborted:
            self.say(f"ending pid {self._main}")
            self._end(self.unit.kill_signal)

    def kill(self) -> None:
        """End it at once."""
        self.state = "killing"
        self._timers.muzzle()
        self._timers.set(None)
        self._signal(signal.SIGKILL)

    def reload(self) -> None:
        """Let it read its configuration again: SIGHUP for Type=notify-reload, else what ExecReload= says."""
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
                self._is_reloading(None)  # if that is what it still does

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
        main = set() if self._ended.is_set() else {self._main}
        for pid in main.union(self._group.members()):
            send(pid, number)

    async def _end_the_rest(self) -> None:
        """End what the main process left behind, as KillMode=control-group does."""
        if self._group.members() and self.state != "killing":
            self._end(self.unit.kill_signal)
        while self._group.members():
            if self.state == "killing":
                self._signal(signal.SIGKILL)
            gone = trio.Event()
            async with trio.open_nursery() as nursery:

                async def wait(gone: trio.Event = gone) -> None:
                    await self._group.members_gone()
                    gone.set()

                nursery.start_soon(wait)
                await self._timers.until(gone, self._time_is_over)


_STEPS = frozenset(["READY=1", "RELOADING=1", "STOPPING=1"])


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 20) or int(text) >= _INFINITY:
        return None
    return int(text)


_INFINITY = 2**64 - 1
"""Microseconds; and no number is higher."""
