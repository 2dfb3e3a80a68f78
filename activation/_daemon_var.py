"""What a process has once. A daemon that activation.testing runs inside its test has it for itself."""

from __future__ import annotations

from typing import Generic, TypeVar

import trio

from ._environment import surroundings

T = TypeVar("T")


class DaemonVar(Generic[T]):
    """A ``trio.lowlevel.RunVar`` that tells several daemons in one run of trio apart.

    A process runs one daemon. In a test, several may share a run of trio, and each has its own value.
    """

    __slots__ = ("_default", "_of_run")

    def __init__(self, name: str, default: T) -> None:
        self._default = default
        self._of_run: trio.lowlevel.RunVar[T] = trio.lowlevel.RunVar(name, default)

    def get(self) -> T:
        """The value, or the default where none was set."""
        test = surroundings()
        if test is None:
            return self._of_run.get()
        value: T = test.variables.get(self, self._default)
        return value

    def set(self, value: T) -> None:
        """Set the value for the calling task's daemon."""
        test = surroundings()
        if test is None:
            self._of_run.set(value)
        else:
            test.variables[self] = value
