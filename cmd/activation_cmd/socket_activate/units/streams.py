"""StandardInput=, StandardOutput= and StandardError= of systemd.exec(5).

What they say becomes one of these texts in the model:

- ``null``; ``inherit``, which is socket-activate's own stream;
- ``socket``; ``fd:NAME``, which is the passed descriptor of that name;
- ``file:PATH``, ``append:PATH``, ``truncate:PATH``;
- ``stdin`` and ``stdout``, which are copies of the service's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .setting import Context

_BOTH_WAYS = ("socket", "fd:")
"""Inputs that output goes to as well, unless StandardOutput= says another."""

_LOG = re.compile(r"(journal|kmsg|syslog)(\+console)?")


def _stream(files: str, *choices: str, expected: str) -> Callable[[str, Context], str]:
    def read(text: str, context: Context) -> str:
        if text in choices:
            return text
        how, colon, rest = text.partition(":")
        if how == "fd":
            return f"fd:{values.descriptor_name(context.replace(rest))}" if rest else "fd:"
        if colon and how in files.split():
            return f"{how}:{values.absolute_path(context.replace(rest))}"
        if _LOG.fullmatch(text) and "append" in files:
            return "log"
        if re.fullmatch("tty|tty-force|tty-fail|data", text):
            raise ValueError(f"it is not done here; expected {expected}")
        raise ValueError(f"expected {expected}")

    return read


INPUT = _stream("file", "null", "socket", expected="null, socket, fd:NAME or file:PATH")
OUTPUT = _stream(
    "file append truncate",
    *("inherit", "null", "socket"),
    expected="inherit, null, socket, journal, fd:NAME, file:PATH, append:PATH or truncate:PATH",
)


def resolved(fields: Mapping[str, str]) -> dict[str, str]:
    """What becomes of the three when all is read: output goes where input comes from, and errors go where output goes.

    The log is where socket-activate's own output and errors go.
    """
    source = _named(fields.get("standard_input", "null"), "stdin")
    output = _named(fields.get("standard_output", "inherit"), "stdout")
    error = _named(fields.get("standard_error", "inherit"), "stderr")
    if output == "inherit" and source.startswith(_BOTH_WAYS):
        output = source
    if error == "inherit":
        error = output
    if error == output and error.startswith(_PATHS):
        error = "stdout"
    if output.startswith(_PATHS) and source.startswith("file:") and _path(output) == _path(source):
        output = "stdin"
    if error.startswith(_PATHS) and source.startswith("file:") and _path(error) == _path(source):
        error = "stdin"
    return {
        "standard_input": source,
        "standard_output": "inherit" if output == "log" else output,
        "standard_error": "inherit" if error == "log" else error,
    }


_PATHS = ("file:", "append:", "truncate:")


def _path(stream: str) -> str:
    return stream.partition(":")[2]


def _named(stream: str, name: str) -> str:
    """``fd`` alone is the descriptor that has the stream's name."""
    return f"fd:{name}" if stream == "fd:" else stream
