"""Reads JSON from a file without loading the module json, which takes long."""

from __future__ import annotations

import os
import stat

from .values import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read(path: str) -> Any:
    """Return the file's content.

    Raises:
        BundleError: it is not JSON.
        OSError: it cannot be read.
    """
    return _parse(_text(path))


def _text(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a pipe would wait
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BundleError("it is not a regular file; expected one")
        try:
            return file.read().decode()
        except UnicodeDecodeError as error:
            raise BundleError(f"it is not UTF-8 at byte {error.start}; expected JSON") from None


class _Scanning:
    """The settings of a JSON decoder, as the scanner reads them."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int

    @staticmethod
    def parse_constant(word: str) -> None:
        raise ValueError(f"{word} is not JSON")


def _parse(text: str) -> Any:
    try:
        try:
            # The scanner of json alone: the regular expressions of json take longer to load than all of this module.
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
        raise BundleError(f"it is not JSON: {error}") from None
