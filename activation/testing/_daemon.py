"""What a test does with a daemon, as its service manager and as its clients, and what it sees of it."""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING, Any

import attrs

from activation import READY, RELOADING
from activation._store import state_in

from . import _sockets
from ._manager import described

if TYPE_CHECKING:
    from ._manager import Manager
    from ._sockets import Passed


@attrs.define(eq=False, repr=False)
class Daemon:
    """A daemon under test. :func:`activated` yields it.

    Every method that waits does so for the ``timeout`` of :func:`activated` at most. It raises an AssertionError if the
    daemon ends first or takes longer. The message says what the daemon told, and shows the last lines of its output.
    """

    _manager: Manager

    def __repr__(self) -> str:
        run = self._manager.run
        state = f"ended with {described(run.status)}" if run.over else "running"
        return f"<Daemon {self._manager.daemon!r}, {state}, status {self.status!r}>"

    # What clients do

    def address(self, name: str) -> Any:
        """Return where clients reach the first socket of this name: a path, or a pair of host and port.

        Raises:
            KeyError: no descriptor has this name.
            ValueError: the descriptor is no socket.
        """
        return _sockets.address(self._named(name))

    async def connect(self, name: str) -> Any:
        """Connect to the first socket of this name, and give a daemon that is ready a moment to accept.

        The moment lasts until an async function has nothing left to do but wait, or until a command that tells its
        status tells a new one, but a tenth of a second at most. The end of the block closes what the test leaves open.

        Returns:
            A ``trio.SocketStream`` for "unix" and "tcp", an :class:`activation.SeqpacketChannel` for "seqpacket", and a
            connected trio datagram socket for "udp" and "unix-datagram".

        Raises:
            KeyError: no descriptor has this name.
            ValueError: the descriptor is no socket that takes clients.
            OSError: connect(2) fails.
        """
        client = await _sockets.connect(self._named(name))
        self._manager.clients.append(client)
        await self._manager.let_it_react()
        return client

    def _named(self, name: str) -> Passed:
        for passed in self._manager.passed:
            if passed.name == name:
                return passed
        names = ", ".join(passed.name for passed in self._manager.passed) or "nothing"
        raise KeyError(f"the daemon is passed no socket {name!r}; it is passed {names}")

    # What a service manager sees

    @property
    def told(self) -> list[str]:
        """Every assignment that the daemon has sent by sd_notify(3), in order, over all its starts."""
        return [assignment for run in self._manager.runs for assignment in run.told]

    @property
    def status(self) -> str | None:
        """The text of the last ``STATUS=``; None if the daemon has sent none since its last start."""
        return self._manager.run.status_text

    @property
    def exited(self) -> int | None:
        """How the daemon ended: its exit status, or the negative number of a signal; None while it runs.

        The status of an async function is that of a program with this main function: 0 if it returns, 1 if it raises an
        exception, and whatever a :exc:`SystemExit` says.
        """
        if not self._manager.run.over:
            return None
        self._manager.status_taken = True
        return self._manager.run.status

    @property
    def watchdog_missed(self) -> int:
        """How many times the daemon did not send ``WATCHDOG=1`` in time.

        A service manager kills the daemon the first time. Here, the end of the block raises an AssertionError.
        """
        return sum(run.watchdog_missed for run in self._manager.runs)

    @property
    def stored(self) -> list[str]:
        """The names of the descriptors that the daemon has in the store, oldest first."""
        return [name for name, _ in self._manager.store.files()]

    def stored_state(self, name: str) -> bytes | None:
        """Return what :func:`activation.store_state` stored under this name, or None if there is nothing.

        If a file of the daemon's own is stored under the name, return its contents.

        Raises:
            ValueError: the descriptor that is stored under the name is no file.
        """
        for stored, descriptor in reversed(self._manager.store.files()):
            if stored == name:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ValueError(f"the descriptor {name!r} in the store is no file and has no contents")
                state = state_in(descriptor)
                return os.pread(descriptor, status.st_size, 0) if state is None else state
        return None

    # Waiting for it

    async def ready(self) -> None:
        """Wait until the daemon has sent READY=1 since its last start."""
        await self._manager.until(lambda: self._manager.run.ready, f"tell {READY}")

    async def wait_told(self, assignment: str) -> str:
        """Wait until the daemon has sent this assignment since its last start, and return it.

        Args:
            assignment: for example ``"STATUS=Serving"``. With nothing after the ``=``, as in ``"MAINPID="``, it stands
                for any value.
        """

        def found() -> str | None:
            for told in self._manager.run.told:
                if told == assignment or (assignment.endswith("=") and told.startswith(assignment)):
                    return told
            return None

        await self._manager.until(lambda: found() is not None, f"tell {assignment}")
        told = found()
        assert told is not None
        return told

    async def wait_status(self, text: str) -> None:
        """Wait until :attr:`status` is this text."""
        await self._manager.until(lambda: self.status == text, f"tell STATUS={text}")

    async def wait_exited(self) -> int:
        """Wait until the daemon ends by itself, and return :attr:`exited`."""
        await self._manager.until(lambda: self._manager.run.over, "end")
        status = self.exited
        assert status is not None
        return status

    # What a service manager does

    async def start(self) -> None:
        """Start a daemon that has ended again, with the same sockets and the same store, and wait for READY=1.

        A socket unit does this when a client comes, and so does Restart= of systemd.service(5).

        Raises:
            RuntimeError: the daemon runs.
        """
        if not self._manager.run.over:
            raise RuntimeError("the daemon is running; use restart(), which stops it first")
        await self._manager.begin()
        await self.ready()

    async def reload(self) -> None:
        """Wait for READY=1, send SIGHUP, and wait for RELOADING=1 with MONOTONIC_USEC= and then READY=1.

        ``systemctl reload`` does this to a service with Type=notify-reload, systemd.service(5).
        """
        await self.ready()
        before = len(self._manager.run.told)
        self._manager.run.send_signal(signal.SIGHUP)

        def told() -> list[str]:
            return self._manager.run.told[before:]

        await self._manager.until(lambda: RELOADING in told(), f"tell {RELOADING}")
        await self._manager.until(lambda: READY in told()[told().index(RELOADING) :], f"tell {READY} after {RELOADING}")
        if not any(assignment.startswith("MONOTONIC_USEC=") for assignment in told()):
            raise self._manager.complaint(
                f"the daemon told {RELOADING} without MONOTONIC_USEC=; see activation.monotonic_usec()"
            )

    async def restart(self) -> None:
        """Stop the daemon, start it again with the same sockets and the same store, and wait for READY=1."""
        status = await self._manager.end()
        if not self._manager.run.ended_well:
            raise self._manager.complaint(
                f"the daemon ended with {described(status)} when the test restarted it; expected 0"
            )
        await self._manager.begin()
        await self.ready()

    async def crash(self) -> None:
        """Kill the daemon as ``kill -9`` does, then start it again as :meth:`restart` does.

        A command is killed by SIGKILL. An async function is cancelled, and the clean-up that follows has no effect
        outside of it. Its notifications are not sent. Its descriptors are replaced by dead ones, as if the kernel had
        closed them, so what it sends or writes goes nowhere. Shared memory that it has stored, memfd_create(2), is kept
        as it was at the moment of the crash.

        For an async function, some of a real crash cannot be imitated. It dies only where it awaits, never between two
        instructions, and not at all if it never awaits. Its worker threads go on, with what they have opened, and so
        do its child processes. Files that it has mapped into memory stay mapped. And its clean-up can still do what
        takes no descriptor: remove a file, or change a variable that the test shares.
        """
        await self._manager.kill()
        await self._manager.begin()
        await self.ready()

    async def stop(self) -> int:
        """Send SIGTERM as ``systemctl stop`` does, wait until the daemon has ended, and return :attr:`exited`.

        The store is empty afterwards. A daemon that asks for more time by EXTEND_TIMEOUT_USEC= gets it.
        """
        status = await self._manager.end()
        self._manager.store.clear()
        self._manager.status_taken = True
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal.

        An async function is no process. Its :func:`activation.serve` hears the signal, or else the signal has its
        default effect, which for most is the daemon's death. ``trio.open_signal_receiver()`` and ``signal.signal()`` do
        not hear it.
        """
        self._manager.run.send_signal(number)
