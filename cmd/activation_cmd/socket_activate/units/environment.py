"""Environment=, EnvironmentFile=, PassEnvironment= and UnsetEnvironment= of systemd.exec(5)."""

from __future__ import annotations

import glob
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .model import EnvironmentFile

_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
# A value consists of quoted pieces, if any, and plain text up to the end of the line. A quotation may span lines, and
# nothing is an error: one that is not closed goes on to the end of the file.
_LINE = re.compile(
    r"""[ \t\n\r]*+ (?: [\#;][^\n\r]*
      | (?P<name> [^=\n\r]+ ) = (?P<quoted> (?: [ \t]* (?: '[^']*'? | "(?: [^"\\] | \\.? )*"? ) )* )
        [ \t]* (?P<plain> (?: [^\n\r\\] | \\.? )* )
      | [^\n\r]+ | \Z )""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"""'([^']*)'?|"((?:[^"\\]|\\.?)*)"?""", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.?)", re.DOTALL)
_PLAIN: Final = re.compile(r"\\(?P<escaped>.?)|[^\\]+", re.DOTALL)


def variable(word: str) -> tuple[str, str]:
    """Take one word of Environment= apart.

    Raises:
        ValueError: it is no assignment.
    """
    name, equals, value = word.partition("=")
    if not equals or not _NAME.fullmatch(name) or _CONTROL.search(value):
        raise ValueError(f"{word[:100]!a} is no variable; expected NAME=value, in quotes if it has spaces")
    return name, value


def variable_name(word: str) -> str:
    """Check one word of PassEnvironment=.

    Raises:
        ValueError: no variable can have that name.
    """
    if not _NAME.fullmatch(word):
        raise ValueError(f"{word[:100]!a} is no variable's name; expected names such as PATH")
    return word


def name_or_variable(word: str) -> str:
    """Check one word of UnsetEnvironment=.

    Raises:
        ValueError: it is neither.
    """
    if "=" in word:
        variable(word)
        return word
    return variable_name(word)


def unset(variables: dict[str, str], words: Iterable[str]) -> None:
    """Remove the variables that are named, or that are named with their value."""
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or variables.get(name) == value:
            variables.pop(name, None)


def read_environment_file(text: str) -> dict[str, str]:
    """Read NAME=value lines as EnvironmentFile= does, much like a shell. Lines that are no assignments are left out."""
    variables: dict[str, str] = {}
    for line in _LINE.finditer(text.partition("\0")[0]):
        if line["name"] and _NAME.fullmatch(name := line["name"].rstrip()):
            variables[name] = "".join(_unquoted(line["quoted"])) + _unescaped(line["plain"])
    return variables


def _unquoted(pieces: str) -> Iterator[str]:
    for piece in _QUOTED.finditer(pieces):
        yield piece[1] if piece[1] is not None else _ESCAPE.sub(_in_double_quotes, piece[2])


def _in_double_quotes(match: re.Match[str]) -> str:
    return match[1] if match[1] in '"\\`$' else "" if match[1] == "\n" else match[0]


def _unescaped(plain: str) -> str:
    """Remove backslashes, those before a line's end together with it, and trailing white space that has none."""
    pieces = list(_PLAIN.finditer(plain))
    texts = [piece[0] if piece["escaped"] is None else piece["escaped"].strip("\n\r") for piece in pieces]
    if pieces and pieces[-1]["escaped"] is None:
        texts[-1] = texts[-1].rstrip(" \t")
    return "".join(texts)


def read_environment_files(files: Iterable[EnvironmentFile | tuple[str, bool]]) -> dict[str, str]:
    """Read the files as they are now. A path may have wildcards, glob(7).

    Raises:
        OSError: a file that is not optional cannot be read.
    """
    variables: dict[str, str] = {}
    for pattern, optional in files:
        for path in sorted(glob.glob(pattern)) or [pattern]:
            try:
                with open(path, encoding="utf-8", errors="surrogateescape", newline="") as opened:
                    variables |= read_environment_file(opened.read())
            except OSError:
                if not optional:
                    raise
    return variables
