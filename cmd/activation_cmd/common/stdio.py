"""Standard streams: in order before anything else, and one line on standard error, never a traceback."""

from __future__ import annotations

import os
import select
import sys

LONGEST_LINE = 4000
"""Characters; what a pipe takes at once, if it takes anything, is not much more."""


def open_missing() -> None:
    """See to it that 0, 1 and 2 are open, or the next socket would be taken for one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def say(program: str, message: str) -> None:
    """Print one line on standard error. Whether anybody reads it makes no difference to what the command does."""
    if sys.stderr is None:
        return  # it was closed, and print() would take standard output
    line = f"{program}: {message}"[:LONGEST_LINE]
    line = "".join(character if character.isprintable() else "?" for character in line)
    try:
        poll = select.poll()
        poll.register(sys.stderr, select.POLLOUT)
        if poll.poll(0):  # else nobody reads, and the write would wait for that
            # One write, also where standard error is not buffered, or the lines of several writers run into each other.
            print(f"{line}\n", end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def reason(error: BaseException) -> str:
    """What went wrong, in words, without an error's number; of a group, as nurseries raise them, the first error's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
