"""Exec...=: "Command lines" in systemd.service(5)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .expansion import expanded
from .model import Command
from .syntax import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .syntax import Word

_PREFIXES = re.compile("[-@:+!]*")
_PRIVILEGED: Final = ("", "+", "!", "!!")


def commands(value: str, replace: Callable[[str], str], where: str) -> list[Command]:
    """Read one Exec...=, of one command or several.

    Args:
        replace: replaces specifiers.
        where: the file and line.

    Raises:
        ValueError: it is not well-formed.
    """
    return [_command(line, replace, where) for line in _split(words(value))]


def _split(line: Iterable[Word]) -> Iterator[list[Word]]:
    """Yield the command lines between semicolons, except empty ones."""
    command: list[Word] = []
    for word in line:
        # A semicolon in quotes, or after a backslash, is an argument.
        if word.raw != ";":
            command.append(word)
        elif command:
            yield command
            command = []
    if command:
        yield command


def _command(line: Sequence[Word], replace: Callable[[str], str], where: str) -> Command:
    first, *rest = line
    match = _PREFIXES.match(first.text)
    assert match
    prefixes, privileged = match[0], re.sub("[^+!]", "", match[0])
    if privileged not in _PRIVILEGED or any(prefixes.count(prefix) > 1 for prefix in "-@:"):
        raise ValueError(f"{prefixes} cannot stand before a program; expected each of - @ : once, and + or ! or !!")
    program = replace(first.text[len(prefixes) :])
    if not program or ("/" in program and (program[0] != "/" or program[-1] == "/")) or program in (".", ".."):
        raise ValueError(f"{program!r} is no program; expected a path from /, or a name that is looked up in PATH")
    if not program.isprintable():
        raise ValueError(f"{program!a} is no program; expected no control characters in it")
    arguments = [";" if word.raw == r"\;" else replace(word.text) for word in rest]
    if "@" in prefixes and not arguments:
        raise ValueError("expected argument 0 after the program, because of the prefix @")
    return Command(
        program=program,
        arguments=arguments if "@" in prefixes else [program, *arguments],
        ignore_failure="-" in prefixes,
        replace_variables=":" not in prefixes,
        privileged=bool(privileged),
        where=where,
    )


def unknown_escapes(value: str) -> list[str]:
    r"""The escapes that do not exist, except ``\;``."""
    return [escape for word in words(value) if word.raw != r"\;" for escape in word.unknown]


def expand(command: Command, environment: Mapping[str, str]) -> list[str]:
    """Return the arguments, argument 0 first, with variables replaced."""
    return expanded(command.arguments, environment) if command.replace_variables else list(command.arguments)
