"""Whether the service manager keeps descriptors at all, and that it gives them up.

Where its store has room for one more descriptor than durable connections need, that is the end of a pipe: the other end
tells when the manager gives the connections up, as socket-activate does before it stops the service. Then there is no
next process, and connections have their time to finish.
"""

from __future__ import annotations

import os
import select
from typing import Final

from ._durable_options import STORED, WATCH
from ._environment import environ
from ._files import passed_before
from ._notify import notify_barrier
from ._store import store, unstore

COUNT: Final = 3
"""Descriptors that durable connections need in the store."""

_PROBE: Final = "activation-durable-probe"

_PATIENCE: Final = 5.0
"""Seconds that a manager has to answer whether it has a store."""


async def missing_store() -> tuple[str | None, bool]:
    """Why no manager keeps descriptors for this process, None if one does; and whether it has room for one more.

    systemd tells since version 254 only. So pipes are stored: where their other ends are closed, nobody has kept them.
    """
    if not environ().get("NOTIFY_SOCKET"):
        return "no service manager has started it (NOTIFY_SOCKET is not set)", False
    reading: list[int] = []
    writing: list[int] = []
    try:
        # What is there and was not passed is of no use: that of a program that this one has replaced by execve(2).
        unstore(STORED)
        unstore(WATCH)
        for _ in range(COUNT + 1):
            for end, ends in zip(os.pipe(), (reading, writing), strict=True):
                ends.append(end)
        store(_PROBE, *writing, poll=False)
        while writing:
            os.close(writing.pop())
        if not await notify_barrier(_PATIENCE):
            return f"the service manager did not answer in {_PATIENCE:g} s", False
        room = len(reading) - hung_up(reading)
        if room < COUNT:
            return f"the service manager kept {room} of {COUNT} descriptors", False
        return None, room > COUNT
    except (OSError, ValueError) as error:
        return str(error), False
    finally:
        for end in reading + writing:
            os.close(end)
        try:
            unstore(_PROBE)
        except OSError:
            pass


def watch() -> int:
    """Store one end of a pipe, or go on with an earlier process's; return the other.

    The manager's copy of that end may be the only one, so that its end is the pipe's.
    """
    left = [file for file in passed_before() if file.name == WATCH and file.fileno() >= 0]
    if len(left) == 1:
        try:
            # The other end again, pipe(7): so nobody takes its place in the store meanwhile.
            reading = os.open(f"/proc/self/fd/{left[0].fileno()}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            pass  # without /proc, or of another user
        else:
            left[0].close()
            return reading
    reading, writing = os.pipe()
    try:
        unstore(WATCH)
        store(WATCH, writing, poll=False)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    for file in left:
        file.close()
    return reading


def hung_up(fds: list[int]) -> int:
    """How many of these ends of pipes have no other end any more."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, 0)
    return len(poll.poll(0))
