"""JSON from a file, for a program that has no time for json."""

from __future__ import annotations

import os
import stat

from .values import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(path: str) -> Any:
    """The file's JSON.

    Raises:
        BundleError: it has none.
        OSError: it cannot be read.
    """
    return _parse(_text(path))


def _text(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would be waited for
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleError("it is no regular file; expected one")
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            raise BundleError(f"it is not UTF-8 at byte {error.start}; expected JSON") from None


class _Scanning:
    """What json's own decoder tells its scanner."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(word: str) -> None:
        raise ValueError(f"{word} is no JSON")


def _parse(text: str) -> Any:
    try:
        try:
            # json without its regular expressions: those take longer to load than all of this module.
            from _json import make_scanner

            document, end = make_scanner(_Scanning)(  # type: ignore[arg-type]
                text := text.strip(" \t\n\r"), 0
            )
            if end == len(text):
                return document
        except (ImportError, StopIteration):
            pass
        import json

        return json.loads(text)
    except RecursionError:
        raise BundleError("it is nested too deeply; expected a configuration") from None
    except ValueError as error:
        raise BundleError(f"it is no JSON: {error}") from None
