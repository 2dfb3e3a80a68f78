"""The service manager of one test: it starts a daemon, waits for it, stops it, and says what it did wrong."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import attrs
import trio

from activation import READY, WATCHDOG, NotifyReceiver
from activation._files import VARIABLES

from . import _sockets
from ._command import CommandRun
from ._in_process import InProcessRun
from ._memory import copied, is_memfd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from activation import DescriptorStore, Notification
    from activation._types import HasFileno, StrOrBytesPath

    from ._run import Run
    from ._sockets import Passed

MANAGERS_VARIABLES = frozenset(
    {*VARIABLES, "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", "MAINPID", "SYSTEMD_EXEC_PID"}
)
"""Variables that a service manager sets. The daemon gets none of those that the test's own process has."""

TOLD_SHOWN = 20
"""The number of assignments that a complaint shows, of those that the daemon told."""


@attrs.define(eq=False)
class Manager:
    """One daemon: all its runs, and what stays from one run to the next.

    Attributes:
        clients: the connections of the test, which are closed at its end.
        status_taken: whether the test has asked how the last run ended.
        not_polled: the names of descriptors that were stored with FDPOLL=0.
        complaints: what the daemon did wrong, to be raised at the end of the test.
    """

    nursery: trio.Nursery
    daemon: Callable[[], Awaitable[object]] | Sequence[StrOrBytesPath]
    passed: list[Passed]
    store: DescriptorStore
    watchdog: float | None
    env: dict[str, str]
    folder: str
    timeout: float
    runs: list[Run] = attrs.field(factory=list)
    clients: list[Any] = attrs.field(factory=list)
    status_taken: bool = False
    not_polled: set[str] = attrs.field(factory=set)
    complaints: list[AssertionError] = attrs.field(factory=list)

    @property
    def run(self) -> Run:
        """The current run, or the last one."""
        return self.runs[-1]

    async def begin(self) -> None:
        """Start the daemon with the sockets and with what is in the store."""
        files: list[tuple[str, int | HasFileno]] = [(passed.name, passed.holder) for passed in self.passed]
        files += self.store.files()
        receiver = NotifyReceiver()
        try:
            run = await self._started(receiver, files)
        except BaseException:
            receiver.close()
            raise
        self.runs.append(run)
        self.status_taken = False
        self.nursery.start_soon(self._accompany, run)

    async def _started(self, receiver: NotifyReceiver, files: list[tuple[str, int | HasFileno]]) -> Run:
        variables = self.env | self._variables(receiver)
        if callable(self.daemon):
            inside = InProcessRun(
                self._take,
                self.watchdog,
                receiver,
                function=self.daemon,
                stored=self._stored_numbers,
                dying=self._part_from_shared_memory,
            )
            inside.prepare(files, variables)
            return inside
        inherited = {name: value for name, value in os.environ.items() if name not in MANAGERS_VARIABLES}
        # Otherwise a daemon in Python that hangs or is killed keeps in its buffer what it has printed.
        inherited.setdefault("PYTHONUNBUFFERED", "1")
        child = CommandRun(self._take, self.watchdog, receiver)
        await child.start(self.daemon, files, inherited | variables)
        return child

    def _variables(self, receiver: NotifyReceiver) -> dict[str, str]:
        variables = {"NOTIFY_SOCKET": receiver.address}
        if self.watchdog is not None:
            variables["WATCHDOG_USEC"] = str(round(self.watchdog * 1e6))
        if self.store.maximum:
            variables["FDSTORE"] = str(self.store.maximum)
        return variables

    def _take(self, notification: Notification) -> None:
        if "FDPOLL=0" in notification.assignments:
            self.not_polled.add(notification.get("FDNAME") or "stored")
        self.store.take(notification)

    async def kill(self) -> None:
        """Kill the daemon, and wait until it has ended."""
        self.run.kill()
        await self.until_over("end after SIGKILL")

    def _part_from_shared_memory(self) -> None:
        """Replace the memory in the store by copies, which the clean-up of a dead daemon cannot change."""
        stored = self.store.files()
        if any(is_memfd(descriptor) for _, descriptor in stored):
            kept = [(name, copied(fd) if is_memfd(fd) else os.dup(fd)) for name, fd in stored]
            self.store.clear()
            for name, descriptor in kept:
                self.store.add([descriptor], name, poll=name not in self.not_polled)

    def _stored_numbers(self) -> list[int]:
        return [descriptor for _, descriptor in self.store.files()]

    async def let_it_react(self) -> None:
        """Give a daemon that is ready a moment to react to a client."""
        if self.run.ready and not self.run.over:
            await self.run.react()

    async def end(self) -> int:
        """Send SIGTERM if the daemon runs, wait until it has ended, and return its status."""
        run = self.run
        if not run.over:
            run.look_at_the_watchdog()
            run.ending = True
            run.send_signal(signal.SIGTERM)
            await self.until_over("end after SIGTERM")
        assert run.status is not None
        return run.status

    async def _accompany(self, run: Run) -> None:
        await run.accompany()
        left = run.leftovers()
        if not run.killed:
            self._look_for_leftovers(run, left)

    def _look_for_leftovers(self, run: Run, left: list[str]) -> None:
        own = [passed.path for passed in self.passed if passed.path]
        known = _sockets.addresses(self.passed)
        left += [f"the socket {path}" for path in sorted(run.own_paths - known) if os.path.exists(path)]
        paths = [os.path.join(self.folder, name) for name in os.listdir(self.folder)]
        left += [f"the path {path}" for path in paths if path not in own]
        if left:
            self.complaints.append(self.complaint(f"the daemon ended and left behind: {'; '.join(left)}", run))
        if gone := [path for path in own if not os.path.exists(path)]:
            said = "the daemon removed a path that belongs to the service manager, so nobody can connect any more"
            self.complaints.append(self.complaint(f"{said}: {'; '.join(gone)}", run))

    async def until_over(self, what: str) -> None:
        """Wait until the daemon has ended. If it does not end in time, kill it."""
        run = self.run
        try:
            await self.until(lambda: run.over, what)
        except AssertionError:
            run.kill()
            raise

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until the condition holds. Otherwise raise the complaint that the daemon did not do ``what``."""
        run = self.run
        since = trio.current_time()
        while not condition():
            if run.over:
                raise self.complaint(f"the daemon ended with {described(run.status)} and did not {what}")
            deadline = max(since + self.timeout, run.extended)
            if trio.current_time() >= deadline:
                raise self.complaint(f"the daemon did not {what} within {deadline - since:g} seconds")
            with trio.move_on_at(deadline):
                await run.changed.park()

    def complaint(self, what: str, run: Run | None = None) -> AssertionError:
        """Return an error that says what the daemon did wrong, in the current run by default."""
        run = run or self.run
        complaint = AssertionError(f"{what}\n{self._account(run)}")
        complaint.__cause__ = run.failure
        return complaint

    def _account(self, run: Run) -> str:
        """Return what the daemon told and wrote."""
        told = [assignment for assignment in run.told if assignment != WATCHDOG]
        shown = ["..."] * (len(told) > TOLD_SHOWN) + told[-TOLD_SHOWN:]
        lines = ["it told: " + (", ".join(shown) or "nothing")]
        lines += ["its last lines:", *(f"    {line}" for line in run.output)] if run.output else ["it wrote nothing"]
        return "\n".join(lines)

    # The end of the test

    async def finish(self) -> list[AssertionError]:
        """Stop the daemon if it still runs, and return everything that it did wrong."""
        self._close_clients()
        try:
            if not self.run.over:
                await self.until(lambda: self.run.ready, f"tell {READY}")
                await self.end()
                self.status_taken = False
        except AssertionError as complaint:
            self.complaints.append(complaint)
        else:
            run = self.run
            if not self.status_taken and not (run.ended_well and run.ready):
                without = "" if run.ready else f" and did not tell {READY}"
                self.complaints.append(self.complaint(f"the daemon ended with {described(run.status)}{without}"))
        await self.abandon()
        for run in self.runs:
            if run.watchdog_missed:
                times = "once" if run.watchdog_missed == 1 else f"{run.watchdog_missed} times"
                said = f"the daemon missed its watchdog {times}: no {WATCHDOG} within {self.watchdog:g} seconds"
                self.complaints.append(self.complaint(said, run))
        return self.complaints

    async def abandon(self, failure: BaseException | None = None) -> None:
        """Kill the daemon if it still runs. Add what it told and wrote to the failure of the test."""
        self._close_clients()
        if isinstance(failure, Exception) and self.runs:
            account = self._account(self.run)
            if account not in str(failure):
                failure.add_note(f"the daemon:\n{account}")
        with trio.CancelScope(shield=True):
            for run in self.runs:
                if not run.over:
                    run.kill()
                while not run.over:
                    await run.changed.park()

    def _close_clients(self) -> None:
        while self.clients:
            client = self.clients.pop()
            getattr(client, "socket", client).close()


def described(status: int | None) -> str:
    """Put an exit status into words."""
    if status is not None and status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"
