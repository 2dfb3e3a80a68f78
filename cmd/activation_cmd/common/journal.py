"""Logging to standard error as the journal reads it: with the level in front, sd-daemon(3)."""

from __future__ import annotations

import logging
import os
import sys

from .stdio import say

LEVELS = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Of Python's levels, the levels of syslog(3)."""


def log_to_stderr(program: str) -> None:
    """Send the log to standard error: for the journal where it reads that, else for people."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        _Prefixed("%(message)s") if journal_reads_stderr() else logging.Formatter(f"{program}: %(message)s")
    )
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def say_log(program: str) -> None:
    """Say the library's log, as whatever else the program says: that never waits for who reads it."""
    logging.getLogger("activation").addHandler(_Say(program))


class _Say(logging.Handler):
    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    def emit(self, record: logging.LogRecord) -> None:
        say(self._program, record.getMessage())


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
