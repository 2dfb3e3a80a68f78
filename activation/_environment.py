"""Variables of the environment that a service manager sets, read as strictly as libsystemd reads them."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence
    from typing import Any, Final, Protocol

    class Surroundings(Protocol):
        """What stands in the place of a whole process where activation.testing runs a daemon in the test's own."""

        @property
        def environ(self) -> MutableMapping[str, str]:
            """The variables that the service manager sets, and no others."""

        @property
        def variables(self) -> dict[object, Any]:
            """What a process has once, such as the life that all its serve() share: see DaemonVar."""

        @property
        def hearings(self) -> list[Any]:
            """Who hears the daemon's signals: see hear_signals()."""

        def passed(self) -> Sequence[int]:
            """The descriptors that a process would find at 3, 4, ..."""

        def told(self) -> None:
            """A message has just gone to NOTIFY_SOCKET."""

        def raise_signal(self, number: int) -> None:
            """Do what signal.raise_signal() does to a process."""


_MOST_DIGITS: Final = 20  # of an unsigned 64 bit number, the widest that the protocol has


class ActivationError(Exception):
    """What the service manager or the caller said cannot be true or cannot be used; the message says what to do."""

    __module__ = "activation"  # where users find it, and what a traceback is to say


in_test: Callable[[], Surroundings | None] | None = None
"""Set by activation.testing alone: it finds the calling daemon's surroundings, by a context variable."""


def surroundings() -> Surroundings | None:
    """What a test has put around the calling daemon; None where the daemon has the process for itself."""
    return None if in_test is None else in_test()


def environ() -> MutableMapping[str, str]:
    """Where the service manager's variables are: ``os.environ``, except for a daemon that runs inside its test."""
    test = surroundings()
    return os.environ if test is None else test.environ


def number(variable: str) -> int | None:
    """The variable's value, None where it is unset.

    Raises:
        ActivationError: it is no plain decimal number.
    """
    value = environ().get(variable)
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
    source = environ()
    for variable in variables:
        source.pop(variable, None)
