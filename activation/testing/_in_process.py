"""A daemon that is an async function. It runs in the test's own trio; a context variable tells the library so."""

from __future__ import annotations

import contextvars
import gc
import logging
import os
import signal
import threading
import traceback
from typing import TYPE_CHECKING, Any

import attrs
import trio

from activation import _environment
from activation._files import passed_before
from activation._handlers import OURS
from activation._store import close_states

from ._ledger import Account, Ledger
from ._memory import is_memfd
from ._run import REACTION, Run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from activation import Notification
    from activation._types import HasFileno

_current: contextvars.ContextVar[_Surroundings | None] = contextvars.ContextVar("activation_testing", default=None)
_environment.in_test = _current.get

_ledger: trio.lowlevel.RunVar[Ledger] = trio.lowlevel.RunVar("activation_testing_ledger")

_IGNORED = {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT, signal.SIGPIPE}


@attrs.define(eq=False)
class _Surroundings:
    """What the library sees in place of a process: ``activation._environment.Surroundings``."""

    run: InProcessRun
    environ: dict[str, str]
    descriptors: list[int] = attrs.field(factory=list)
    variables: dict[object, Any] = attrs.field(factory=dict)
    hearings: list[Any] = attrs.field(factory=list)
    taken: bool = False
    _thread: int = attrs.field(factory=threading.get_ident)

    def passed(self) -> Sequence[int]:
        """Return the descriptors for files(). From now on they belong to the daemon."""
        if not self.taken:
            self.taken = True
            self.run.account.own(self.descriptors)
        return self.descriptors

    def told(self) -> None:
        """Take in the message at once. A daemon that sends many of them would wait for room in the queue forever."""
        if threading.get_ident() == self._thread:
            self.run.hear_at_once()

    def raise_signal(self, number: int) -> None:
        """Let the serve() of the daemon hear it, or do what the signal does by default."""
        heard = [hearing for hearing in self.hearings if number in hearing.numbers]
        for hearing in heard:
            hearing.put(number)
        if not heard and number not in _IGNORED:
            self.run.die(number)

    def close(self) -> None:
        """Close the descriptors if the daemon never called files()."""
        if not self.taken:
            for descriptor in self.descriptors:
                os.close(descriptor)


@attrs.define(eq=False, kw_only=True)
class InProcessRun(Run):
    """One call of the function.

    Attributes:
        stored: returns the descriptors in the store.
        dying: called at its death, before its clean-up begins.
        killed_by: the number of the signal that killed it.
        left: what it left behind.
    """

    function: Callable[[], Awaitable[object]]
    stored: Callable[[], Sequence[int]]
    dying: Callable[[], object]
    killed_by: int | None = None
    surroundings: _Surroundings = attrs.field(init=False)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    ledger: Ledger = attrs.field(init=False)
    account: Account = attrs.field(factory=Account)
    left: list[str] = attrs.field(factory=list)

    def prepare(self, files: Sequence[tuple[str, int | HasFileno]], env: Mapping[str, str]) -> None:
        """Prepare what the function is going to find."""
        try:
            self.ledger = _ledger.get()
        except LookupError:
            self.ledger = Ledger()
            _ledger.set(self.ledger)
        environ = dict(env)
        if files:
            names = ":".join(name for name, _ in files)
            environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(files)), "LISTEN_FDNAMES": names}
        if "WATCHDOG_USEC" in env:
            environ["WATCHDOG_PID"] = str(os.getpid())
        self.surroundings = _Surroundings(self, environ)
        try:
            for _, item in files:
                self.surroundings.descriptors.append(os.dup(item if isinstance(item, int) else item.fileno()))
        except BaseException:
            self.surroundings.close()
            raise

    async def live(self) -> None:
        handler = _LogLines(self)
        logging.getLogger().addHandler(handler)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._call, name=f"the daemon {self.function!r}")
        finally:
            logging.getLogger().removeHandler(handler)
            self.surroundings.close()

    async def _call(self) -> None:
        _current.set(self.surroundings)
        self.account = self.ledger.open(trio.lowlevel.current_task())
        try:
            status = 0
            try:
                with self.scope:
                    if self.killed_by is None:
                        await self.function()
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else int(error.code is not None)
            except Exception as error:
                self._fail(error)
                status = 1
            except BaseExceptionGroup as errors:
                # A SystemExit in a group ends a program with status 1, as any other exception does.
                if errors.split((Exception, SystemExit))[1] is not None:
                    raise
                self._fail(errors)
                status = 1
            self.status = status if self.killed_by is None else -self.killed_by
            self._close_what_nobody_owns()
            if self.killed_by is None and self.failure is None:
                self.ledger.settle()
                self.left = self._left()
        finally:
            self.surroundings.environ.pop("NOTIFY_SOCKET", None)
            if self.status is None:
                self.status = -signal.SIGKILL  # the test was cancelled
            self.ledger.close(self.account)

    def _fail(self, error: BaseException) -> None:
        if self.killed_by is None:
            self.failure = error
            self.output.extend("".join(traceback.format_exception_only(error)).splitlines())

    def _close_what_nobody_owns(self) -> None:
        """Close what a process may rightly keep open until the kernel closes it."""
        close_states()
        for file in passed_before():
            kept = self.killed_by is not None or file.name.startswith(OURS)
            if file.fileno() >= 0 and (kept or is_memfd(file.fileno())):
                file.close()

    def _left(self) -> list[str]:
        if self.account.descriptors:
            gc.collect()  # closes sockets and files that nothing refers to any more
        left = []
        for number in self.account.still_open():
            what = os.readlink(f"/proc/self/fd/{number}") if os.path.isdir("/proc/self/fd") else "open"
            left.append(f"descriptor {number} ({what})")
        for file in passed_before():
            file.close()
        return left + [f"the task {task.name}" for task in self.account.tasks]

    def send_signal(self, number: int) -> None:
        if self.status is None:
            self.see_own_paths()
            if number == signal.SIGKILL:
                self.die(number)
            else:
                self.surroundings.raise_signal(number)

    def die(self, number: int) -> None:
        """Cancel the function, and cut it off, so that its clean-up has no effect outside of it."""
        if self.killed_by is None and self.status is None:
            self.ledger.settle()
            self.drain()
            self.killed_by = number
            self.surroundings.environ.pop("NOTIFY_SOCKET", None)
            self.scope.cancel()
            self.account.cut()
            self.dying()

    def hear_at_once(self) -> None:
        """Take in what the daemon told during the running step."""
        self.ledger.settle()
        self.drain()
        self.ledger.disown(self.stored())

    def sockets(self) -> set[int]:
        return {inode for _, inode in self.account.descriptors.values()}

    async def react(self) -> None:
        from trio.testing import (
            wait_all_tasks_blocked,  # not above: trio.testing imports pytest where that is installed
        )

        with trio.move_on_after(REACTION):
            await wait_all_tasks_blocked()

    def leftovers(self) -> list[str]:
        return self.left

    def accepts(self, notification: Notification) -> bool:  # noqa: ARG002
        return True

    def pet(self, now: float) -> None:
        # After the loop was stuck, either this runs first, or the task that waits for the deadline.
        if self.watchdog is not None and self.ready and not self.ending and now > self.petted + self.watchdog:
            self.watchdog_missed += 1
        super().pet(now)


class _LogLines(logging.Handler):
    """Adds what one run of a daemon logs to its output."""

    def __init__(self, run: InProcessRun) -> None:
        super().__init__()
        self.run = run
        self.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Add the record if that run logged it."""
        if _current.get() is self.run.surroundings:
            self.run.output.extend(self.format(record).splitlines())
