"""One start of a service, from its first process to the last of what it left; systemd.service(5), sd_notify(3)."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from . import processes
from .group import Group, send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from activation import DescriptorStore, Notification, NotifyReceiver

    from .execute import Start
    from .launch import Child, Ending
    from .model import ServiceUnit
    from .reaper import Reaper

Result = Literal["success", "protocol", "timeout", "exit-code", "signal", "core-dump", "watchdog"]
State = Literal["starting", "running", "reloading", "stopping", "killing", "dead"]

CLEAN_SIGNALS = frozenset([signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE])
"""An end by one of these is a success, as SuccessExitStatus= has it."""

NEVER = float("inf")


@attrs.define(eq=False)
class Life:
    """One start of a service. :meth:`run` is all of it; the other methods ask for something, before it or meanwhile.

    Attributes:
        identity: the start's own INVOCATION_ID=...
        result: what systemd calls the service's result.
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
    _group: Group = attrs.field(init=False)
    _main: int = attrs.field(init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)
    _deadline: float = attrs.field(default=NEVER, init=False)
    _watchdog: float = attrs.field(default=NEVER, init=False)
    _watchdog_time: float = attrs.field(default=NEVER, init=False)
    _clock: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _reload_begun: float = attrs.field(default=NEVER, init=False)
    _reload_again: bool = attrs.field(default=False, init=False)
    _status: str | None = attrs.field(default=None, init=False)
    _nursery: trio.Nursery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._main = self.child.pid
        self._group = Group(self.child.pid, self.identity)
        self._watchdog_time = self.unit.watchdog or NEVER
        self._set_deadline(self.unit.timeout_start)

    async def run(self) -> Result:
        """Live; return how it ended."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._follow_start)
            self._nursery.start_soon(self._follow_main, self.child)
            if self.receiver:
                self._nursery.start_soon(self._listen, self.receiver)
            await self._until(self._ended)
            self._drain()
            await self._end_the_rest()
            self._nursery.cancel_scope.cancel()
        self.state = "dead"
        self.reaper.executor.release(self.child.pid)
        return self.result

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
        status = ending.status or 0  # what is not known counts as a success
        if self.result != "success":
            return
        if status > 0:
            self.result = "exit-code"
        elif status < 0 and -status not in CLEAN_SIGNALS:
            self.result = "core-dump" if ending.core else "signal"
        elif self.state == "starting" and self.receiver and self.unit.type != "exec":
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
        if "RELOADING=1" in told:
            self._is_reloading(notification.get("MONOTONIC_USEC"))
        asked = self.state == "reloading" and self._reload_begun < NEVER  # and has not begun yet
        if "READY=1" in told and self.state in ("starting", "reloading") and not asked:
            self._is_running()
        if "STOPPING=1" in told and self.state in ("starting", "running", "reloading"):
            self._stop_by_itself()
        if (status := notification.get("STATUS")) is not None and status != self._status:
            self._status = status
            self.say(f"status: {status}")
        if (microseconds := _number(notification.get("EXTEND_TIMEOUT_USEC"))) is not None:
            self._extend(microseconds / 1e6)
        if (microseconds := _number(notification.get("WATCHDOG_USEC"))) is not None:
            self._watchdog_time = microseconds / 1e6 or NEVER
            self._pet()
        if "WATCHDOG=1" in told:
            self._pet()
        if "WATCHDOG=trigger" in told:
            self._bite()
        if not self.store.take(notification) and notification.fds:
            self.say(f"{len(notification.fds)} descriptors came without FDSTORE=1 and were closed")

    def _set_main(self, text: str, *, trusted: bool) -> None:
        pid = _number(text)
        if pid == self._main:
            return
        # Who is not trusted may only name a process of its own.
        possible = (
            pid is not None and pid not in (0, 1, os.getpid(), self.reaper.executor.pid) and processes.process(pid)
        )
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
        self.state = "running"
        self._set_deadline(None)
        self._pet()
        self._reload_if_asked()

    def _reload_if_asked(self) -> None:
        """Once more, if it was asked for while one was under way: that may have come too early for the last change."""
        if self._reload_again and not self._group.helpers:
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
        self._set_deadline(self.unit.timeout_start)

    def _stop_by_itself(self) -> None:
        self.state = "stopping"
        self._watchdog = NEVER
        self._set_deadline(self.unit.timeout_stop)

    def _pet(self) -> None:
        if self.state in ("running", "reloading"):
            self._watchdog = trio.current_time() + self._watchdog_time
            self._rearm()

    def _bite(self) -> None:
        if self.state in ("starting", "running", "reloading"):
            self.result = "watchdog"
            self._end(signal.SIGABRT)

    # Time

    def _set_deadline(self, seconds: float | None) -> None:
        self._deadline = NEVER if seconds is None else trio.current_time() + seconds
        self._rearm()

    def _extend(self, seconds: float) -> None:
        if self._deadline < NEVER:
            self._deadline = max(self._deadline, trio.current_time() + seconds)
            self._rearm()

    def _rearm(self) -> None:
        self._clock.deadline = min(self._deadline, self._watchdog)

    async def _until(self, event: trio.Event) -> None:
        """Wait for the event, and meanwhile do what the passing of time asks for."""
        while not event.is_set():
            with trio.CancelScope() as self._clock:
                self._rearm()
                await event.wait()
            if self._clock.cancelled_caught:
                self._time_is_over()

    def _time_is_over(self) -> None:
        if self._watchdog <= trio.current_time():
            self.say(f"no WATCHDOG=1 came for {self._watchdog_time:g} s; it is ended by SIGABRT")
            self._bite()
        elif self.state == "starting":
            self.say(f"it was not ready within TimeoutStartSec={self.unit.timeout_start:g}; it is ended")
            self.result = "timeout"
            self._end(self.unit.kill_signal)
        elif self.state == "reloading":
            self.say("the reload took too long; it goes on as it is")
            self._is_running()
        elif self.state == "stopping":
            self.say(f"it did not end within TimeoutStopSec={self.unit.timeout_stop:g}; it is killed")
            if self.result == "success":
                self.result = "timeout"
            self.kill()
        else:
            self._set_deadline(None)

    # What is asked of it

    def stop(self) -> None:
        """Let it end: KillSignal= now, SIGKILL after TimeoutStopSec=."""
        if self.state in ("starting", "running", "reloading"):
            self.say(f"ending pid {self._main}")
            self._end(self.unit.kill_signal)

    def kill(self) -> None:
        """End it at once."""
        self.state = "killing"
        self._watchdog = NEVER
        self._set_deadline(None)
        self._signal(signal.SIGKILL)

    def reload(self) -> None:
        """Let it read its configuration again: SIGHUP for Type=notify-reload, else what ExecReload= says."""
        if self.state in ("starting", "reloading") or self._group.helpers:
            self._reload_again = True
        elif self.state != "running":
            return
        elif self.unit.type == "notify-reload":
            self.state = "reloading"
            self._reload_begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._set_deadline(self.unit.timeout_start)
            send(self._main, signal.SIGHUP)
        elif self.unit.exec_reload:
            self._nursery.start_soon(self._run_reload)

    async def _run_reload(self) -> None:
        for command, start in zip(self.unit.exec_reload, self.control(self._main), strict=True):
            helper = await self.reaper.fork_patiently([start], at_once=True)
            if helper is None:
                return
            self._group.helpers.add(helper.pid)
            try:
                await self._follow_reload(helper)
            finally:
                self._group.helpers.remove(helper.pid)
                self.reaper.executor.release(helper.pid)
            if helper.status and not command.ignore_failure:
                self.say(f"ExecReload= failed: {command.program} ended with status {helper.status}")
                break
        self._reload_if_asked()

    async def _follow_reload(self, helper: Child) -> None:
        with trio.move_on_after(NEVER if self.unit.timeout_start is None else self.unit.timeout_start) as patience:
            await helper.settled()
            if helper.failure:
                self.say(helper.failure)
            await helper.exited.wait()
        if patience.cancelled_caught:
            send(helper.pid, signal.SIGKILL)
            await helper.exited.wait()

    def _end(self, number: int) -> None:
        self.state = "stopping"
        self._watchdog = NEVER
        self._set_deadline(self.unit.timeout_stop)
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
                await self._until(gone)


def _number(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 20):
        return None
    return int(text)
