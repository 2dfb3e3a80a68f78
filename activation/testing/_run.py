"""One run of a daemon, from its start to its end, as far as a child and a daemon inside the test are alike."""

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
"""Seconds that a daemon has at most to react to a client before the test goes on."""

LINES_KEPT = 30
"""Of a daemon's output, to be shown with a complaint."""


@attrs.define(eq=False)
class Run:
    """What a daemon has told since it was started, and how it ended.

    Attributes:
        take: what the test's manager does with a notification's descriptors.
        receiver: where the daemon's notifications arrive.
        told: every assignment, in order.
        output: the last lines that it has written.
        ready: READY=1 was told.
        ending: the manager has asked it to end, or it has told STOPPING=1.
        extended: until when the daemon has asked the manager for patience, in trio's time.
        petted: when it last told WATCHDOG=1, in trio's time.
        watchdog: within how many seconds each WATCHDOG=1 is expected; None for none.
        watchdog_missed: how often that was missed.
        status: how it ended, as of :attr:`subprocess.Popen.returncode`; None before.
        failure: the exception that it ended with, where there is one.
        over: it has ended, and all that it told has arrived.
        killed: the test let it die.
        own_paths: the paths of Unix sockets that it has bound itself, as far as anybody has seen them.
        changed: wakes who waits for any of this.
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
        """Be started, and return when it has ended and its status is known."""
        raise NotImplementedError

    def send_signal(self, number: int) -> None:
        """Send a signal, to a daemon that may have ended."""
        raise NotImplementedError

    def sockets(self) -> set[int]:
        """The inode numbers of the sockets that are open."""
        raise NotImplementedError

    async def react(self) -> None:
        """Wait a moment until it has reacted to a client."""
        raise NotImplementedError

    def leftovers(self) -> list[str]:
        """What it has left behind at its end."""
        raise NotImplementedError

    def accepts(self, notification: Notification) -> bool:
        """Whether the message is the daemon's own, as NotifyAccess=main of systemd.service(5) has it."""
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
        """Whether its end is a success, as of SuccessExitStatus= of systemd.service(5): SIGTERM may kill it."""
        return self.status == 0 or (self.ending and self.status == -signal.SIGTERM)

    def kill(self) -> None:
        """Let it die at once, as of SIGKILL."""
        self.killed = True
        self.send_signal(signal.SIGKILL)

    def see_own_paths(self) -> None:
        """Take down what paths its Unix sockets have, while it has them."""
        self.own_paths |= bound_paths(self.sockets())

    async def accompany(self) -> None:
        """Hear what it tells, from its start to its end."""
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
        """Hear what has arrived."""
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
        """See whether the time for WATCHDOG=1 has passed without it."""
        self.drain()  # what has arrived while the test kept the loop from running was told in time
        if self.watchdog is None or not self.ready or self.ending:
            return
        if trio.current_time() >= self.petted + self.watchdog:
            self.watchdog_missed += 1
            self.petted = trio.current_time()


def bound_paths(inodes: set[int]) -> set[str]:
    """The paths in the file system that these Unix sockets are bound to."""
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
