"""Signals for a daemon, whoever else in the process hears them.

Python runs one handler for a signal, so whoever sets the last one takes the signal from all others. But the
interpreter also writes the number of every signal that has a handler into one descriptor, signal.set_wakeup_fd(),
which trio uses to wake its loop. A daemon reads the numbers there: it hears a signal even if the program has opened a
trio.open_signal_receiver() for it, before or after. What the daemon reads goes on to the descriptor of before.
"""

from __future__ import annotations

import inspect
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any

import trio

from ._environment import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

    from ._environment import Surroundings

_RECEIVERS = inspect.unwrap(trio.open_signal_receiver).__globals__
"""The module that the handlers of trio.open_signal_receiver() come from."""


class Signals:
    """The signals that a daemon hears, from the first :meth:`hear` to :meth:`end`.

    The process gives signals to its main thread only. In another one there is nothing to hear.

    Attributes:
        numbers: those that are heard.
    """

    __slots__ = ("_arrivals", "_came", "_process", "_test", "numbers")

    def __init__(self) -> None:
        self.numbers: set[int] = set()
        self._came: list[int] = []
        self._arrivals = trio.lowlevel.ParkingLot()
        self._process: _ProcessSignals | None = None
        self._test: Surroundings | None = surroundings()

    def hear(self, *numbers: int) -> None:
        """Hear these signals, too."""
        if self._test:
            if self not in self._test.hearings:
                self._test.hearings.append(self)
        elif threading.current_thread() is not threading.main_thread():
            return
        elif self._process is None:
            self._process = _ProcessSignals(self.put)
        self.numbers.update(numbers)
        if self._process:
            self._process.catch(self.numbers)

    def put(self, number: int) -> None:
        """Let one of the signals come."""
        self._came.append(number)
        self._arrivals.unpark_all()

    async def next(self) -> int:
        """Wait for the next signal and return its number."""
        while not self._came:
            if self._process:
                await self._process.wait()
            else:
                await self._arrivals.park()
        return self._came.pop(0)

    def end(self, *, taken: Collection[int] = ()) -> None:
        """Hear no more. A signal that came and was not read has the effect that it had before, unless it is taken."""
        raise_signal: Callable[[int], object] = signal.raise_signal
        caught: Collection[int] = self.numbers
        if self._test:
            if self in self._test.hearings:
                self._test.hearings.remove(self)
            raise_signal = self._test.raise_signal
        elif self._process:
            caught = self._process.end()
        late, self._came = self._came, []
        self.numbers = set()
        self._process = None
        for number in late:
            if number in caught and number not in taken:
                raise_signal(number)


class _ProcessSignals:
    """The signals of this process, while a daemon hears them."""

    def __init__(self, put: Callable[[int], None]) -> None:
        global _active
        self._put = put
        self._before: dict[int, Any] = {}
        self._ended = False
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        _active = self

    def catch(self, numbers: Collection[int]) -> None:
        for number in numbers - self._before.keys():
            before = self._before[number] = signal.getsignal(number)
            # A receiver's handler stays: all that is needed here is that there is one.
            if getattr(before, "__globals__", None) is not _RECEIVERS:
                signal.signal(number, self._handle)

    async def wait(self) -> None:
        """Wait until some signal came, and put those that did."""
        await trio.lowlevel.wait_readable(self._reading)
        self._take()

    def end(self) -> list[int]:
        """Put what came, and return the signals that nobody else has heard."""
        global _active
        ours = self._restore(self._fd_before)
        self._take()
        self._close()
        _active = None
        return ours

    def forget(self) -> None:
        """In a forked child: do what was done before, and leave the sockets and the loop to the parent."""
        self._restore(-1)
        self._close()

    def _take(self) -> None:
        try:
            data = self._reading.recv(1 << 12)
        except BlockingIOError:
            return
        if self._fd_before >= 0:
            try:
                os.write(self._fd_before, data)
            except OSError:
                pass  # it is full, so whoever reads there wakes anyway
        for number in data:
            if number in self._before:
                self._put(number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        # A receiver that was opened before our end and closed after it has put this back.
        if self._ended:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)

    def _restore(self, fd_before: int) -> list[int]:
        """Restore what was before, but for what somebody else has changed since; return the signals that were ours."""
        ours = [number for number in self._before if signal.getsignal(number) == self._handle]
        for number in ours:
            signal.signal(number, self._before[number])
        current = signal.set_wakeup_fd(fd_before, warn_on_full_buffer=False)
        if current != self._writing.fileno():
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        return ours

    def _close(self) -> None:
        self._ended = True
        self._reading.close()
        self._writing.close()


_active: _ProcessSignals | None = None
_masks: dict[int, set[int]] = {}
"""By thread, the signals that it blocked before it forked."""


def _before_fork() -> None:
    # A signal that came to the child before it has its own handlers would be lost there, and heard by the parent.
    if _active is not None:
        numbers = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _after_fork() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_forked_child() -> None:
    global _active
    if _active is not None:
        _active.forget()
        _active = None
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_forked_child)
