"""Reaping: every child that ends, and the orphans of services, which socket-activate adopts and ends."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.common.stdio import reason, say

from . import launch, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .executor import Executor
    from .launch import Child, Ending
    from .start import Start

_PAUSE = 1.0
"""Seconds until the next try, when no process can be forked."""

_PATIENCE = 10.0
"""Seconds that an orphan has to end after SIGTERM."""

_PR_SET_CHILD_SUBREAPER = 36


@attrs.define(eq=False)
class Reaper:
    """Starts children and learns when they end. Nothing else may reap in this process.

    Attributes:
        disabled: the executor was killed, and nothing can be started any more.
    """

    executor: Executor
    disabled: bool = attrs.field(default=False, init=False)
    # The program that became socket-activate may have had children before: they are not ended here.
    _inherited: set[int] = attrs.field(factory=set, init=False)
    _children: dict[int, Ending] = attrs.field(factory=dict, init=False)

    def fork(self, starts: Sequence[Start], *, at_once: bool) -> Child:
        """As :func:`launch.fork`."""
        try:
            child = launch.fork(starts, self.executor, at_once=at_once)
        except (BrokenPipeError, ConnectionResetError):
            if not self.disabled:
                say(
                    "socket-activate",
                    "its executor was killed, without which nothing can be started; all services are ended",
                )
                self.disabled = True
                signal.raise_signal(signal.SIGTERM)
            raise
        self._children[child.pid] = child
        return child

    async def fork_patiently(self, starts: Sequence[Start], *, at_once: bool) -> Child | None:
        """The same, but try again while there are too many processes; None if nothing can be started any more."""
        while True:
            try:
                return self.fork(starts, at_once=at_once)
            except (BrokenPipeError, ConnectionResetError):
                return None
            except OSError as error:
                say("socket-activate", f"nothing can be started now: {reason(error)}")
                await trio.sleep(_PAUSE)

    async def end_of(self, pid: int) -> Ending:
        """Wait for the end of a process. How it ended is known only if it is a child of this one by then."""
        ending = self._children.setdefault(pid, launch.Ending())
        await gone(pid)
        if (left := table.process(pid)) and left.parent == os.getpid():
            await ending.exited.wait()
        self._children.pop(pid, None)
        return ending

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reap, until cancelled."""
        # Orphans of services become children of this process: PR_SET_CHILD_SUBREAPER of prctl(2).
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._inherited = {found.pid for found in table.descendants(os.getpid())}
        with trio.open_signal_receiver(signal.SIGCHLD) as signals:
            task_status.started()
            async for _ in signals:
                while self._reap():
                    pass

    def _reap(self) -> bool:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return False
        if ended is None:
            return False
        self._inherited.discard(ended.si_pid)
        if child := self._children.pop(ended.si_pid, None):
            child.status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
            child.core = ended.si_code == os.CLD_DUMPED
            child.exited.set()
        else:
            self.executor.release(ended.si_pid)  # it may have been the child ahead
        return True

    def spare(self, pids: Iterable[int]) -> None:
        """Leave these running, and what they start, when everything else is ended."""
        self._inherited.update(pids)

    async def end_orphans(self) -> None:
        """End the orphans that could not be assigned to a service, and the child that was forked ahead."""
        self.executor.end_ahead()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with trio.move_on_after(_PATIENCE):
                while left := [found.pid for found in table.descendants(os.getpid(), self._inherited)]:
                    for pid in left:
                        table.send(pid, number)
                    for pid in left:
                        await gone(pid)


async def gone(pid: int) -> None:
    """Wait for the end of a process, which need not be a child."""
    await trio.lowlevel.checkpoint()
    while True:
        try:
            pidfd = os.pidfd_open(pid)
            break
        except ProcessLookupError:
            return
        except OSError:  # there are no descriptors left
            await trio.sleep(_PAUSE)
    try:
        await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
