"""The test's side: what a service manager and clients do with a daemon, and what they see of it."""

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
    """A daemon that a test runs, as :func:`activated` gives it.

    Whatever waits here waits for ``timeout`` seconds of :func:`activated` at most. What the daemon should have done and
    has not is an AssertionError that says what the daemon had told, and its last lines of output.
    """

    _manager: Manager

    def __repr__(self) -> str:
        run = self._manager.run
        state = f"ended with {described(run.status)}" if run.over else "running"
        return f"<Daemon {self._manager.daemon!r}, {state}, status {self.status!r}>"

    # What clients do

    def address(self, name: str) -> Any:
        """Where clients reach the first socket with this name: a path, or a pair of host and port.

        Raises:
            KeyError: no descriptor has this name.
            ValueError: the descriptor is no socket.
        """
        return _sockets.address(self._named(name))

    async def connect(self, name: str) -> Any:
        """Connect to the first socket with this name, and let the daemon take the client in.

        A daemon that is ready gets its turn first: an async function until it waits for something, a command that tells
        its status until it has told another one, a tenth of a second at most. What the test leaves open is closed at
        the end of the block.

        Returns:
            a ``trio.SocketStream`` for "unix" and "tcp", an :class:`activation.SeqpacketChannel` for "seqpacket", a
            trio datagram socket that is connected for "udp" and "unix-datagram".

        Raises:
            KeyError: no descriptor has this name.
            ValueError: it is no socket that takes clients.
            OSError: as of connect(2).
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
        raise KeyError(f"no socket {name!r} is passed to the daemon; there is {names}")

    # What a service manager sees

    @property
    def told(self) -> list[str]:
        """Every assignment that the daemon has told by sd_notify(3), in order, over all its starts."""
        return [assignment for run in self._manager.runs for assignment in run.told]

    @property
    def status(self) -> str | None:
        """The text of the last ``STATUS=``; None where none was told since the daemon was started last."""
        return self._manager.run.status_text

    @property
    def exited(self) -> int | None:
        """How the daemon has ended: 0 and more is its exit status, less than 0 a signal; None while it runs.

        An async function has the exit status that a program has whose main function it is: 0 when it returns, 1 when it
        raises an exception, and what :exc:`SystemExit` says.
        """
        if not self._manager.run.over:
            return None
        self._manager.status_taken = True
        return self._manager.run.status

    @property
    def watchdog_missed(self) -> int:
        """How often the time for ``WATCHDOG=1`` passed without it, since the first READY=1.

        A service manager would have killed the daemon at the first time. At the end of the block it is an
        AssertionError.
        """
        return sum(run.watchdog_missed for run in self._manager.runs)

    @property
    def stored(self) -> list[str]:
        """The names of the descriptors that the daemon has in the store, oldest first."""
        return [name for name, _ in self._manager.store.files()]

    def stored_state(self, name: str) -> bytes | None:
        """What the daemon has stored under this name by :func:`activation.store_state`; None where it has not.

        Of another file, the newest one under the name, it is the contents.

        Raises:
            ValueError: what is stored under it is no file.
        """
        for stored, descriptor in reversed(self._manager.store.files()):
            if stored == name:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise ValueError(f"the descriptor {name!r} in the store is no file, so it has no contents to read")
                state = state_in(descriptor)
                return os.pread(descriptor, status.st_size, 0) if state is None else state
        return None

    # Waiting for it

    async def ready(self) -> None:
        """Wait until the daemon has told READY=1 since it was started last."""
        await self._manager.until(lambda: self._manager.run.ready, READY)

    async def wait_told(self, assignment: str) -> str:
        """Wait until the daemon has told this since it was started last, and return it.

        Args:
            assignment: such as ``"STATUS=Serving"``; one that ends with the ``=`` stands for any value.
        """

        def found() -> str | None:
            for told in self._manager.run.told:
                if told == assignment or (assignment.endswith("=") and told.startswith(assignment)):
                    return told
            return None

        await self._manager.until(lambda: found() is not None, assignment)
        told = found()
        assert told is not None
        return told

    async def wait_status(self, text: str) -> None:
        """Wait until :attr:`status` is this."""
        await self._manager.until(lambda: self.status == text, f"STATUS={text}")

    async def wait_exited(self) -> int:
        """Wait until the daemon has ended by itself, and return its :attr:`exited`."""
        await self._manager.until(lambda: self._manager.run.over, "end")
        status = self.exited
        assert status is not None
        return status

    # What a service manager does

    async def start(self) -> None:
        """Start the daemon again after it has ended, with the same sockets and what it had stored; wait for READY=1.

        As a socket unit does when a client comes, or Restart= of systemd.service(5).
        """
        if not self._manager.run.over:
            raise RuntimeError("the daemon runs; restart() ends it first")
        await self._manager.begin()
        await self.ready()

    async def reload(self) -> None:
        """Wait until it is ready, send SIGHUP, and wait for RELOADING=1 with MONOTONIC_USEC=, then READY=1.

        ``systemctl reload`` of a service with Type=notify-reload, systemd.service(5).
        """
        await self.ready()
        before = len(self._manager.run.told)
        self._manager.run.send_signal(signal.SIGHUP)

        def told() -> list[str]:
            return self._manager.run.told[before:]

        await self._manager.until(lambda: RELOADING in told(), RELOADING)
        await self._manager.until(lambda: READY in told()[told().index(RELOADING) :], f"{READY} after {RELOADING}")
        if not any(assignment.startswith("MONOTONIC_USEC=") for assignment in told()):
            raise self._manager.complaint(
                f"the daemon told {RELOADING} without MONOTONIC_USEC=; see activation.monotonic_usec()"
            )

    async def restart(self) -> None:
        """Stop the daemon and start it again, with the same sockets and what it had stored; wait for READY=1."""
        status = await self._manager.end()
        if not self._manager.run.ended_well:
            raise self._manager.complaint(
                f"the daemon ended with {described(status)} when it was to restart; expected 0"
            )
        await self._manager.begin()
        await self.ready()

    async def crash(self) -> None:
        """Let the daemon die as of ``kill -9``, then start it again as :meth:`restart` does.

        A command is killed by SIGKILL. An async function is cancelled, and until its clean-up is done, which goes
        unheard, nothing of it reaches anybody: its notifications are not sent, its descriptors are already closed for
        everybody else, so that what it sends or writes goes nowhere, and what it had stored of shared memory
        (memfd_create(2)) is kept as it was in the moment of the crash.

        What that cannot imitate: a death between two instructions, for a cancelled function has always come to an
        ``await``; a function that never awaits; what worker threads do and have opened; files that are mapped into
        memory; what child processes do; and effects that need no descriptor of the daemon, such as removing a file or
        changing a variable of the test.
        """
        await self._manager.kill()
        await self._manager.begin()
        await self.ready()

    async def stop(self) -> int:
        """Send SIGTERM as ``systemctl stop`` does, wait until the daemon has ended, and return its :attr:`exited`.

        It empties the store. A daemon that asks for it by EXTEND_TIMEOUT_USEC= gets more time.
        """
        status = await self._manager.end()
        self._manager.store.clear()
        self._manager.status_taken = True
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal.

        In a daemon that is an async function, those that serve() hears, and those that end a process, have an effect;
        ``trio.open_signal_receiver()`` and ``signal.signal()`` do not hear them.
        """
        self._manager.run.send_signal(number)
