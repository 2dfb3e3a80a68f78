"""Variables of the environment that a service manager sets, read as strictly as libsystemd reads them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_MOST_DIGITS: Final = 20  # of an unsigned 64 bit number, the widest that the protocol has


class ActivationError(Exception):
    """What the service manager or the caller said cannot be true or cannot be used; the message says what to do."""

    __module__ = "activation"  # where users find it, and what a traceback is to say


def number(variable: str) -> int | None:
    """The variable's value, None where it is unset.

    Raises:
        ActivationError: it is no plain decimal number.
    """
    value = os.environ.get(variable)
    if value is None:
        return None
    # Not int() alone: it also takes signs, spaces, underscores and the digits of every script.
    if not (value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS):
        shown = value if len(value) <= 60 else value[:60] + "..."
        raise ActivationError(
            f"{variable} is {shown!r}; expected a plain decimal number of at most {_MOST_DIGITS} digits; "
            "whatever started this process must set it so, or unset it"
        )
    return int(value)


def unset(*variables: str) -> None:
    """Remove the variables from this process's environment."""
    for variable in variables:
        os.environ.pop(variable, None)
