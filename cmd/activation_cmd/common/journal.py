"""Logging to standard error as the journal reads it: with the level in front, sd-daemon(3).

Writing never waits: where nobody reads standard error, lines are lost, and the event loop goes on.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from .stdio import say, write_line

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Of Python's levels, the levels of syslog(3)."""

MOST_RECORDS = 300
"""Records that are written in one interval; clients decide how many there are to write."""
INTERVAL = 30.0
"""Seconds of an interval."""


def log_to_stderr(program: str) -> None:
    """Send the log to standard error: for the journal where it reads that, else for people."""
    handler = _StandardError()
    handler.setFormatter(
        _Prefixed("%(message)s") if journal_reads_stderr() else logging.Formatter(f"{program}: %(message)s")
    )
    handler.addFilter(_Limit())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def say_log(program: str, tell: Callable[[str], object] | None = None) -> None:
    """Say the library's log in the way in which the program says everything else.

    Args:
        tell: says a message; by default :func:`say` does.
    """
    handler = _Say(tell or partial(say, program))
    handler.addFilter(_Limit())
    logging.getLogger("activation").addHandler(handler)


class _Say(logging.Handler):
    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(record.getMessage())


class _StandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in self.format(record).splitlines():
                write_line(line)
        except Exception:
            self.handleError(record)


class _Limit(logging.Filter):
    """Lets so many records through in an interval, and has the first one of the next tell how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._end = 0.0
        self._records = 0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now >= self._end:
            if self._records > MOST_RECORDS:
                record.msg = f"({self._records - MOST_RECORDS} messages before this one were left out) {record.msg}"
            self._end, self._records = now + INTERVAL, 0
        self._records += 1
        return self._records <= MOST_RECORDS


def journal_reads_stderr() -> bool:
    """Whether standard error is what JOURNAL_STREAM of systemd.exec(5) names, by device and inode."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Prefixed(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{LEVELS.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())
