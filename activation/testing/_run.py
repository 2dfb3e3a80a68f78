"""One run of a daemon, from its start to its end: what a child process and an async function have in common."""

from __future__ import annotations

import collections
import signal
from typing import TYPE_CHECKING

import attrs
import trio

from activation import READY, STOPPING, WATCHDOG, NotifyReceiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from activation import Notification

REACTION = 0.1
"""Seconds that a daemon has, at most, to react to a new client before the test goes on."""

LINES_KEPT = 30
"""The number of lines of output that a complaint shows."""


@attrs.define(eq=False)
class Run:
    """What a daemon has told since its start, and how it ended.

    Attributes:
        take: called with each notification, to take descriptors for the store.
        watchdog: how many seconds may pass between two WATCHDOG=1; None for any number.
        receiver: where the notifications of the daemon arrive.
        told: every assignment, in order.
        output: the last lines that the daemon wrote.
        ready: whether it has told READY=1.
        ending: whether it was told to stop, or has told STOPPING=1.
        extended: the time, on trio's clock, until which the daemon has asked for patience.
        petted: the time, on trio's clock, of the last WATCHDOG=1.
        watchdog_missed: how many times WATCHDOG=1 was late.
        status: as :attr:`subprocess.Popen.returncode`; None before the end.
        failure: the exception that an async function ended with, if any.
        over: whether the daemon has ended, and everything that it told has arrived.
        killed: whether the test killed it.
        own_paths: the paths that the daemon itself has bound Unix sockets to, as far as they were seen.
        changed: where tasks wait for any of this to change.
    """

    take: Callable[[Notification], object]
    watchdog: float | None
    receiver: NotifyReceiver
    told: list[str] = attrs.field(factory=list)
    output: collections.deque[str] = attrs.field(factory=lambda: collections.deque(maxlen=LINES_KEPT))
    ready: bool = False
    ending: bool = False
    extended: float = -float("inf")
    petted: float = 0.0
    watchdog_missed: int = 0
    status: int | None = None
    failure: BaseException | None = None
    over: bool = False
    killed: bool = False
    own_paths: set[str] = attrs.field(factory=set)
    changed: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)

    # What a child and a daemon inside the test do differently.

    async def live(self) -> None:
        """Run until the daemon has ended and :attr:`status` is known."""
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        """Send a signal. It has no effect on a daemon that has ended."""
        raise NotImplementedError

    def sockets(self) -> set[int]:
        """Return the inode numbers of the sockets that the daemon has open."""
        raise NotImplementedError

    async def react(self) -> None:
        """Give the daemon a moment to react to a client."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """Return what the daemon left behind at its end."""
        raise NotImplementedError

    def accepts(self, notification: Notification) -> bool:
        """Whether the message counts: NotifyAccess=main of systemd.service(5) wants it from the main process."""
        raise NotImplementedError

    # What they do alike.

    @property
    def status_text(self) -> str | None:
        """The text of the last STATUS=."""
        for assignment in reversed(self.told):
            if assignment.startswith("STATUS="):
                return assignment.removeprefix("STATUS=")
        return None

    @property
    def ended_well(self) -> bool:
        """Whether the end is a success. A stop may kill it by SIGTERM: SuccessExitStatus= of systemd.service(5)."""
        return self.status == 0 or (self.ending and self.status == -signal.SIGTERM)

    def kill(self) -> None:
        """Kill it at once, as SIGKILL does."""
        self.killed = True
        self.send_signal(signal.SIGKILL)

    def see_own_paths(self) -> None:
        """Note the paths of its Unix sockets, while it has them open."""
        self.own_paths |= bound_paths(self.sockets())

    async def accompany(self) -> None:
        """Run the daemon, and hear what it tells, until it has ended."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen)
                if self.watchdog is not None:
                    nursery.start_soon(self._watch, self.watchdog)
                await self.live()
                nursery.cancel_scope.cancel()
            self.drain()
        finally:
            self.receiver.close()
            self.over = True
            self.changed.unpark_all()

    async def _listen(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.receiver)
            self.drain()

    def drain(self) -> None:
        """Take in all notifications that have arrived."""
        while self.receiver.fileno() >= 0 and (notification := self.receiver.receive_nowait()):
            self._hear(notification)

    def _hear(self, notification: Notification) -> None:
        if notification.is_barrier:
            notification.close()
            return
        if not self.accepts(notification):
            self.output.append(
                f"(process {notification.pid} told {', '.join(notification.assignments)}; only the main process may: "
                "NotifyAccess=main)"
            )
            notification.close()
            return
        now = trio.current_time()
        for assignment in notification.assignments:
            self.told.append(assignment)
            name, _, value = assignment.partition("=")
            if assignment == READY and not self.ready:
                self.ready, self.petted = True, now
            elif assignment == STOPPING:
                self.ending = True
            elif assignment == WATCHDOG:
                self.pet(now)
            elif name == "EXTEND_TIMEOUT_USEC" and value.isdecimal():
                self.extended = now + int(value) / 1e6
        self.take(notification)
        notification.close()
        if READY in notification.assignments:
            self.see_own_paths()
        self.changed.unpark_all()

    def pet(self, now: float) -> None:
        """Take in one WATCHDOG=1."""
        self.petted = now

    async def _watch(self, allowed: float) -> None:
        while not self.ready:
            await self.changed.park()
        while not self.ending:
            await trio.sleep_until(self.petted + allowed)
            self.look_at_the_watchdog()

    def look_at_the_watchdog(self) -> None:
        """Count a WATCHDOG=1 that is late."""
        self.drain()  # a message that came in time while the test blocked the loop is not late
        if self.watchdog is None or not self.ready or self.ending:
            return
        if trio.current_time() >= self.petted + self.watchdog:
            self.watchdog_missed += 1
            self.petted = trio.current_time()


def bound_paths(inodes: set[int]) -> set[str]:
    """Return the paths in the file system that these Unix sockets are bound to."""
    paths = set()
    try:
        with open("/proc/net/unix", errors="surrogateescape") as table:
            next(table)
            for line in table:
                # Num: RefCount Protocol Flags Type St Inode Path
                fields = line.rstrip("\n").split(maxsplit=7)
                if len(fields) == 8 and fields[7].startswith("/") and int(fields[6]) in inodes:
                    paths.add(fields[7])
    except OSError:
        pass  # not Linux
    return paths
