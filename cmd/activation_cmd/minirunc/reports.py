"""What minirunc itself has to say: on standard error, and in the file of --log, as runc does."""

from __future__ import annotations

import os
import time

from activation_cmd.common.stdio import say

ERROR, WARNING, DEBUG = "error", "warning", "debug"
FORMATS = ("text", "json")


class _Log:
    """Where and how to log.

    Attributes:
        path: the file of --log, or "".
    """

    path = ""
    form = "text"
    is_debug = False


def use(path: str, form: str, *, is_debug: bool) -> None:
    """Log there and so from now on."""
    _Log.path, _Log.form, _Log.is_debug = path, form, is_debug


def error(message: str) -> None:
    """Tell why the command fails: the caller, and the log."""
    _log(ERROR, message)
    say("minirunc", message)


def remark(message: str) -> None:
    """Tell what does not keep the command from going on: in the log, if there is one."""
    if not _log(WARNING, message):
        say("minirunc", message)


def debug(message: str) -> None:
    """Tell what is done, with --debug."""
    if _Log.is_debug and not _log(DEBUG, message):
        say("minirunc", message)


def _log(level: str, message: str) -> bool:
    """Write a line into the log; return whether there is one that could be written."""
    if not _Log.path:
        return False
    from _json import encode_basestring_ascii as quoted  # json itself takes long to load

    text, time = quoted(message), quoted(now())
    if _Log.form == "json":
        line = f'{{"level":"{level}","msg":{text},"time":{time}}}\n'
    else:
        line = f"time={time} level={level} msg={text}\n"
    try:
        # Nobody has to read it: a pipe would be waited for.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(_Log.path, flags, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def now() -> str:
    """The time as RFC 3339 has it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09}Z"
