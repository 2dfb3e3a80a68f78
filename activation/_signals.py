"""Signals for a daemon, whoever else in the process hears them.

Python runs one handler for a signal, so whoever sets the last one takes the signal from all others. But the
interpreter also writes the number of every signal that has a handler into one descriptor, signal.set_wakeup_fd(),
which trio uses to wake its loop. A daemon reads the numbers there: it hears a signal even if the program has opened a
trio.open_signal_receiver() for it, before or after. What the daemon reads goes on to the descriptor of before.

A receiver puts back the handler that it found, whatever has happened since. One that was there first leaves a daemon
without a handler, and one that ends last leaves the handler of a daemon that is over. So as long as a receiver is in
the way, each turn of the loop looks whether it is gone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
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
    """The signals of this process, while a daemon hears them.

    Attributes:
        before: the handlers of before, where the daemon's was set.
        ended: whether the daemon is over.
    """

    def __init__(self, put: Callable[[int], None]) -> None:
        global _active
        self._put = put
        self.before: dict[int, Any] = {}
        self._covered: set[int] = set()  # the signals for which a receiver is in the way
        self._look_out: _LookOut | None = None
        self.ended = False
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        _active = self

    def catch(self, numbers: Collection[int]) -> None:
        for number in numbers - self.before.keys() - self._covered:
            handler = signal.getsignal(number)
            if _is_receivers(handler):
                self._covered.add(number)  # all that is needed here is that there is a handler
                continue
            owner = getattr(handler, "__self__", None)
            if isinstance(owner, _ProcessSignals) and owner.ended:
                handler = owner.before[number]
            self.before[number] = handler
            signal.signal(number, self._handle)
        self._look_out_for_covered()

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
        self._covered = {number for number in self.before if _is_receivers(signal.getsignal(number))}
        self._look_out_for_covered()
        return ours

    def forget(self) -> None:
        """In a forked child: do what was done before, and leave the sockets and the loop to the parent."""
        self._restore(-1)
        self._close()

    def look(self) -> None:
        """Do what a receiver that is gone has left undone."""
        # Not signal.getsignal(): to find out that a function is none of its enums takes longer than a turn of the loop.
        uncovered = {number for number in self._covered if not _is_receivers(_signal.getsignal(number))}
        if not uncovered:
            return
        self._covered -= uncovered
        if not self.ended:
            self.catch(uncovered)
            return
        for number in uncovered:
            if signal.getsignal(number) == self._handle:
                self._put_back(number)
        self._look_out_for_covered()

    def _look_out_for_covered(self) -> None:
        if self._covered and self._look_out is None:
            self._look_out = _LookOut(self.look)
            trio.lowlevel.add_instrument(self._look_out)
        elif not self._covered and self._look_out is not None:
            trio.lowlevel.remove_instrument(self._look_out)
            self._look_out = None

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
            if number in self.before or number in self._covered:
                self._put(number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        # The daemon is over, a receiver has just put this back, and the loop has not turned since.
        if self.ended:
            self._put_back(number)
            signal.raise_signal(number)

    def _put_back(self, number: int) -> None:
        before = self.before[number]
        # None is a handler that is not Python's: it was there before the interpreter, which cannot set it.
        signal.signal(number, signal.SIG_DFL if before is None else before)

    def _restore(self, fd_before: int) -> list[int]:
        """Restore what was before, but for what somebody else has changed since; return the signals that were ours."""
        ours = [number for number in self.before if signal.getsignal(number) == self._handle]
        for number in ours:
            self._put_back(number)
        current = signal.set_wakeup_fd(fd_before, warn_on_full_buffer=False)
        if current != self._writing.fileno():
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        return ours

    def _close(self) -> None:
        self.ended = True
        self._reading.close()
        self._writing.close()


def _is_receivers(handler: object) -> bool:
    """Whether a trio.open_signal_receiver() has set it."""
    return getattr(handler, "__globals__", None) is _RECEIVERS


class _LookOut(trio.abc.Instrument):
    """Looks at every turn of the loop, and at its end."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        self._look()

    def after_run(self) -> None:
        self._look()


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
