"""Signals for several at once: every serve() of a process hears them, in whatever order those begin and end.

trio.open_signal_receiver() gives a signal to one receiver only, and receivers have to end in the reverse order.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ._environment import surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@attrs.define(eq=False)
class Hearing:
    """The signals that one serve() listens to, and those that came and were not taken yet."""

    numbers: frozenset[int]
    came: list[int] = attrs.field(factory=list)
    arrival: trio.Event = attrs.field(factory=trio.Event)

    def put(self, number: int) -> None:
        self.came.append(number)
        self.arrival.set()

    async def next(self) -> int:
        """Wait for the next signal and return its number."""
        while not self.came:
            self.arrival = trio.Event()
            await self.arrival.wait()
        return self.came.pop(0)


@attrs.define(eq=False)
class _Switchboard:
    """Whoever hears signals in this run of trio, and what they do when nobody does any more."""

    hearings: list[Hearing] = attrs.field(factory=list)
    before: dict[int, Any] = attrs.field(factory=dict)

    def deliver(self, number: int) -> None:
        heard = [hearing for hearing in self.hearings if number in hearing.numbers]
        for hearing in heard:
            hearing.put(number)
        if not heard:
            signal.raise_signal(number)  # it came while the last one left: the handler of before has it


_switchboard: trio.lowlevel.RunVar[_Switchboard] = trio.lowlevel.RunVar("activation_signals")


@contextmanager
def hear_signals(*numbers: int) -> Iterator[Hearing]:
    """Hear the signals within the block. In a thread that is not the main one there are none to hear.

    A signal that came and was not taken until the last hearer's end has the effect that it had before.
    """
    hearing = Hearing(frozenset(numbers))
    if test := surroundings():
        test.hearings.append(hearing)
        try:
            yield hearing
        finally:
            test.hearings.remove(hearing)
            for number in hearing.came:
                if not any(number in other.numbers for other in test.hearings):
                    test.raise_signal(number)
        return
    if threading.current_thread() is not threading.main_thread():
        yield hearing
        return
    try:
        board = _switchboard.get()
    except LookupError:
        board = _Switchboard()
        _switchboard.set(board)
    token = trio.lowlevel.current_trio_token()

    def handler(number: int, _: FrameType | None) -> None:
        token.run_sync_soon(board.deliver, number)

    board.hearings.append(hearing)
    try:
        for number in hearing.numbers - board.before.keys():
            board.before[number] = signal.signal(number, handler)
        yield hearing
    finally:
        board.hearings.remove(hearing)
        unheard = {number for number in hearing.numbers if not any(number in other.numbers for other in board.hearings)}
        for number in unheard:
            signal.signal(number, board.before.pop(number))
        for number in hearing.came:
            if number in unheard:
                signal.raise_signal(number)
