"""One start of a service, from its first process to the end of its last one; systemd.service(5), sd_notify(3)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.socket_activate.processes import table
from activation_cmd.socket_activate.units.results import End, result_of

from .hearing import Hearing
from .running import Running, number_in
from .timers import NEVER

if TYPE_CHECKING:
    from activation import DescriptorStore, Notification, NotifyReceiver
    from activation_cmd.socket_activate.processes.launch import Child, Ending

    from .limits import LimitedSay


@attrs.define(eq=False, kw_only=True)
class Life(Running):
    """One start of a service. :meth:`run` is all of it; the other methods ask for something, before it or meanwhile.

    Attributes:
        status: how the main process ended, as ``subprocess`` has it; None as long as nobody knows.
    """

    receiver: NotifyReceiver | None
    store: DescriptorStore
    say_status: LimitedSay
    complain: LimitedSay
    status: int | None = None
    _hearing: Hearing = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        Running.__attrs_post_init__(self)
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
            self._catch_up()
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
            self._catch_up()
        if self._main == child.pid:  # it may just have named another
            self._judge(child)
            self._ended.set()

    async def _follow_another(self, pid: int) -> None:
        ending = await self.reaper.end_of(pid)
        self._catch_up()
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

    def give_up_store(self) -> None:
        """Close what is stored, also what was sent and not read yet, and keep nothing more."""
        self._catch_up()
        self.store.maximum = 0
        self.store.clear()

    def _catch_up(self) -> None:
        self._hearing.catch_up()

    # What the service says

    def _act_on(self, notification: Notification) -> None:
        told = notification.assignments
        if (main := notification.get("MAINPID")) is not None:
            self._set_main(main, trusted=notification.uid == 0)
        if step := next((each for each in reversed(told) if each in _STEPS), ""):  # the last one counts
            self._announced = step
            self._take_step(step, notification)
        if (microseconds := number_in(notification.get("EXTEND_TIMEOUT_USEC"))) is not None:
            self._timers.extend(microseconds / 1e6)
        if (microseconds := number_in(notification.get("WATCHDOG_USEC"))) is not None:
            self._timers.patience = microseconds / 1e6 or NEVER
            self._pet()
        if "WATCHDOG=1" in told:
            self._pet()
        if "WATCHDOG=trigger" in told:
            self._bite()

    def _set_main(self, text: str, *, trusted: bool) -> None:
        pid = number_in(text)
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


_STEPS = frozenset(["READY=1", "RELOADING=1", "STOPPING=1"])
