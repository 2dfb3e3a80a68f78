"""Sends what the container tells its service manager on to the one that minirunc has.

The container's processes may send as much as they like and whatever they like: that holds up neither the signals to the
container nor its end, and a limited number of lines tells of it.
"""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

import activation
from activation_cmd.common.stdio import reason

if TYPE_CHECKING:
    import _socket

_LOG: Final = logging.getLogger("activation.minirunc")

LONGEST_MESSAGE: Final = 4096
"""Bytes of the longest message that systemd accepts."""

LAST_WORDS: Final = 5.0
"""Seconds within which the manager has to accept the last messages."""

# The main process is the container's first process, whatever the container says: the container ends with it. And the
# container only knows numbers of its own PID namespace.
OURS: Final = ("MAINPID=", "MAINPIDFDID=")


class NotifyProxy:
    """Forwards every message as it is, in order, with its descriptors.

    This includes barriers: the container's barrier ends when the manager has closed its copy of the descriptor.

    Attributes:
        announced: whether the manager knows the container's first process as the main process.
    """

    announced = False

    def __init__(self, sock: _socket.socket, pid: int) -> None:
        """Take over the socket, which was bound before the receiver was loaded."""
        self._receiver = activation.NotifyReceiver(fileno=sock.detach())
        self._pid = pid
        self._sending = trio.Lock()
        self._complaint = ""

    async def run(self) -> None:
        """Forward messages until cancelled. Call :meth:`finish` first, or a message may be lost."""
        while True:
            await trio.lowlevel.wait_readable(self._receiver)
            await self._drain()

    async def finish(self) -> None:
        """Forward what is left, and name minirunc as the main process, so that the manager learns the exit status."""
        with trio.move_on_after(LAST_WORDS):
            await self._drain()
            if self.announced and await self._tell((f"MAINPID={os.getpid()}",), []):
                await self._barrier()

    async def _barrier(self) -> None:
        """Wait until the manager has read that: it does not take a process that has ended for the main process."""
        try:
            reading, writing = os.pipe()
        except OSError:
            return  # no descriptors are left; mostly the manager is soon enough
        with os.fdopen(reading, "rb", 0) as answer:
            with os.fdopen(writing, "wb", 0):
                told = await self._tell(("BARRIER=1",), [writing])
            if told:
                await trio.lowlevel.wait_readable(answer)

    async def _drain(self) -> None:
        async with self._sending:
            while notification := self._receiver.receive_nowait():
                await self._send_on(notification)
                # Not every message takes a wait, and there may always be a next one.
                await trio.lowlevel.checkpoint()

    async def _send_on(self, notification: activation.Notification) -> None:
        assignments = tuple(assignment for assignment in notification.assignments if _goes_on(assignment))
        try:
            if activation.READY in assignments and not self.announced:
                await self._announce(assignments, notification.fds)
            elif assignments:
                await self._tell(assignments, notification.fds)
        finally:
            notification.close()

    async def _announce(self, assignments: tuple[str, ...], fds: list[int]) -> None:
        # In one message: with NotifyAccess=main the manager ignores the next one. And whoever waits for READY=1 finds
        # the main process known.
        main = (f"MAINPID={self._pid}",)
        if len("\n".join(main + assignments).encode(errors="surrogateescape")) <= LONGEST_MESSAGE:
            self.announced = await self._tell(main + assignments, fds)
        else:
            await self._tell(assignments, fds)
            self.announced = await self._tell(main, [])

    async def _tell(self, assignments: tuple[str, ...], fds: list[int]) -> bool:
        """Tell the manager, in a thread, so that a manager that does not read holds up no signals."""
        tell = partial(activation.notify, *assignments, fds=fds)
        try:
            try:
                return await trio.to_thread.run_sync(tell, abandon_on_cancel=True)
            except RuntimeError:  # no thread can be started
                return tell()
        except (OSError, ValueError, activation.ActivationError) as error:
            if reason(error) != self._complaint:
                self._complaint = reason(error)
                _LOG.warning("%s", self._complaint)
            return False


def _goes_on(assignment: str) -> bool:
    name, equals, _ = assignment.partition("=")
    return bool(name and equals) and not assignment.startswith(OURS)
