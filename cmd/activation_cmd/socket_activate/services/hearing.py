"""What a service says of itself: who may notify, and what becomes of each notification; sd_notify(3)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, cast, get_args

import attrs

from activation_cmd.socket_activate.processes import table
from activation_cmd.socket_activate.units.model import Access

if TYPE_CHECKING:
    from collections.abc import Callable

    from activation import DescriptorStore, Notification, NotifyReceiver
    from activation_cmd.socket_activate.processes.group import Group

    from .limits import LimitedSay


_MOST_MESSAGES: Final = 512


@functools.cache
def _longest_queue() -> int:
    """How many messages the kernel queues at a socket, unix(7): so many may precede a process's end."""
    try:
        with open("/proc/sys/net/unix/max_dgram_qlen") as file:
            return int(file.read()) + 1
    except (OSError, ValueError):
        return _MOST_MESSAGES


@attrs.define(eq=False)
class Hearing:
    """Receives the notifications of one start, checks the senders, and acts on what is not about the state.

    Attributes:
        access: who may notify, NotifyAccess= or the service's own NOTIFYACCESS=.
        main: the number of the main process.
        starter: the number of a process that runs ExecStartPre=, as long as it does; 0 otherwise.
    """

    receiver: NotifyReceiver | None
    access: Access
    main: int
    group: Group
    store: DescriptorStore
    act: Callable[[Notification], None]
    """Is called with each notification that counts, for everything but STATUS=, NOTIFYACCESS= and the store."""
    say: LimitedSay
    complain: LimitedSay
    """Has a limit of its own, so that complaints do not suppress the service's status."""
    starter: int = 0
    _status: str | None = attrs.field(default=None, init=False)

    async def listen(self) -> None:
        """Receive until cancelled. Each notification is a turn of the event loop: no sender can hold that up."""
        while self.receiver:
            self._take(await self.receiver.receive())

    def catch_up(self) -> None:
        """Take what was sent before the end that was just seen, and not what somebody sends meanwhile."""
        for _ in range(_longest_queue()):
            if not self.receiver or (notification := self.receiver.receive_nowait()) is None:
                return
            self._take(notification)

    def _take(self, notification: Notification) -> None:
        try:
            if notification.is_barrier:
                return
            if not self._may_notify(notification.pid):
                self.complain(
                    f"a notification of pid {notification.pid} was dropped: NotifyAccess={self.access} and the main "
                    f"process is {self.main}"
                )
            elif "BARRIER=1" in notification.assignments:
                self.complain("a notification was dropped: BARRIER=1 has to be alone in it")
            else:
                self._obey(notification)
        finally:
            notification.close()

    def _may_notify(self, pid: int) -> bool:
        if self.access == "none":
            return False
        if self.access == "all":
            return self.group.owns(pid)
        return pid == self.main or (self.access == "exec" and self._is_control(pid))

    def _is_control(self, pid: int) -> bool:
        """Whether it is a process of ExecReload= or ExecStartPre=."""
        if pid in self.group.helpers:
            return True
        return bool(self.starter and (found := table.process(pid)) and found.parent == self.starter)

    def _obey(self, notification: Notification) -> None:
        if (access := notification.get("NOTIFYACCESS")) is not None:
            if access in get_args(Access):
                self.access = cast("Access", access)
            else:
                self.complain(f"NOTIFYACCESS={access} was ignored; expected one of {', '.join(get_args(Access))}")
        if (status := notification.get("STATUS")) is not None and status != self._status:
            self._status = status
            self.say(f"status: {status}")
        self.act(notification)
        if not self.store.take(notification) and notification.fds:
            self.complain(f"{len(notification.fds)} descriptors came without FDSTORE=1 and were closed")
