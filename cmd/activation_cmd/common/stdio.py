"""Standard streams: in order before anything else, and one line on standard error, never a traceback."""

from __future__ import annotations

import os
import select
import sys

LONGEST_LINE = 4000
"""Bytes. A pipe that has room has room for PIPE_BUF, 4096 bytes; a longer line could wait for a reader."""


def open_missing() -> None:
    """See to it that 0, 1 and 2 are open, or the next socket would be taken for one of them."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def say(program: str, message: str) -> None:
    """Print one line on standard error, unless nobody reads it."""
    write_line(f"{program}: {message}")


def write_line(line: str) -> None:
    """Write one line to standard error. It never waits for a reader: where there is no room, the line is lost."""
    if sys.stderr is None:
        return  # it was closed, and print() would take standard output
    line = "".join(character if character.isprintable() else "?" for character in line[:LONGEST_LINE])
    data = line.encode(sys.stderr.encoding or "utf-8", "backslashreplace")[:LONGEST_LINE] + b"\n"
    try:
        poll = select.poll()
        poll.register(sys.stderr, select.POLLOUT)
        if poll.poll(0):
            # One write, or the lines of several writers run into each other. Nothing stays in a buffer of Python's, for
            # what cannot be flushed at the end makes the exit status 120.
            os.write(sys.stderr.fileno(), data)
    except (OSError, ValueError):
        pass


def reason(error: BaseException) -> str:
    """What went wrong, in words, without an error's number; of a group, as nurseries raise them, the first error's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
