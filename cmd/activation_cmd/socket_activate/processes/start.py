"""The description of a start, which socket-activate sends to its executor. Standard library only."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from activation_cmd.socket_activate.units.directories import Directory

CHOICE = struct.Struct("i")
"""The first bytes of an order: 0 until the child has chosen a start, then the number of that start, from 1."""


IDENTITY = "INVOCATION_ID"
"""The variable that has another value for each start. Every process that a service starts inherits it."""

CHOSEN = b"\0"
"""What a child sends when its client has come and ExecStartPre= has commands to run before the exec."""


class Start(NamedTuple):
    """Everything that a start needs, in types that can be sent.

    Attributes:
        program: a path, or a name to be looked up in the PATH of the environment.
        arguments: argument 0 first, ``$NAME`` not yet replaced.
        files: what is passed: names and descriptors.
        triggers: the descriptors at which clients are waited for.
        environment: without the variables that have the child's number, and without those of the files.
        environment_files: each with whether it may be missing.
        unset: names to remove in the end, and ``NAME=value`` to remove only that value.
        with_pid: the names of variables whose value is to be the child's number.
        standard: what 0, 1 and 2 are to be: a descriptor, -1 for /dev/null, None for what they are; or a text as the
            model has it, of a file or of another of the three.
        groups: to change to; None for no change.
        account: user's name, uid and gid to change to; None for no change.
        ignore_sigpipe: as IgnoreSIGPIPE= has it for services; the default action otherwise.
        umask: to change to; None for no change.
        directories: folders that it is to find.
        owner: the user and the group that these belong to.
        before: commands that have to succeed first, ExecStartPre=.
        optional: of such a command, that it may fail.
    """

    program: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    replace_variables: bool = True
    files: Sequence[tuple[str, int]] = ()
    triggers: Sequence[int] = ()
    environment_files: Sequence[tuple[str, bool]] = ()
    unset: Sequence[str] = ()
    with_pid: Sequence[str] = ()
    standard: Sequence[int | str | None] = (-1, None, None)
    directory: str | None = None
    directory_optional: bool = False
    groups: Sequence[int] | None = None
    account: tuple[str, int, int] | None = None
    ignore_sigpipe: bool = False
    umask: int | None = None
    directories: Sequence[Directory] = ()
    owner: Sequence[int] | None = None
    before: Sequence[Start] = ()
    optional: bool = False

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """What was sent as a sequence of its values."""
        start = cls(*values)
        return start._replace(before=[cls(*each) for each in start.before])

    @property
    def is_simple(self) -> bool:
        """Whether nothing but its exec has to wait for the client."""
        return not (self.environment_files or self.directories or self.before)

    def descriptors(self) -> set[int]:
        """All that it refers to."""
        standard = {number for number in self.standard if isinstance(number, int) and number >= 0}
        return {number for _, number in self.files} | {*self.triggers} | standard

    def renumbered(self, numbers: Mapping[int, int]) -> Start:
        """The same start with other numbers for its descriptors."""
        return self._replace(
            files=[(name, numbers[number]) for name, number in self.files],
            triggers=[numbers[number] for number in self.triggers],
            standard=[numbers.get(each, each) if isinstance(each, int) else each for each in self.standard],
        )
