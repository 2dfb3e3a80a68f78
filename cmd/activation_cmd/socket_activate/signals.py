"""The signals that end socket-activate, or have it reload. It must not die of one while it has paths to remove."""

from __future__ import annotations

import signal
from typing import NamedTuple

_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals(NamedTuple):
    """What is heard, and what has been heard so far.

    Attributes:
        heard: numbers of signals.
        early: the numbers of those that have come, in order.
    """

    heard: list[int]
    early: list[int]


def note_signals() -> Signals:
    """Note the signals that come from now on. They act once an event loop runs that raises them again.

    A signal that this process was started to ignore, as under nohup, stays ignored.
    """
    heard: list[int] = [number for number in _HEARD if signal.getsignal(number) != signal.SIG_IGN] or [signal.SIGTERM]
    early: list[int] = []
    for number in heard:
        signal.signal(number, lambda number, _: early.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*heard, signal.SIGCHLD))
    return Signals(heard, early)
