"""systemd.syntax(7): the assignments in the text of a unit file, and the words of a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from .expansion import WHITESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Level = Literal["error", "warning", "note"]

LONGEST_LINE: Final = 1 << 20

_LINE_END = re.compile(r"\r\n|\n\r|[\n\r\0]")
_TOKEN = re.compile(
    r"""(?P<space> [ \t\n\r]+ ) | (?P<quote> ["'] )
      | \\ (?P<escape> x[0-9a-fA-F]{2} | [0-7]{3} | u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} | . )
      | [^ \t\n\r"'\\]+ | \\ """,
    re.VERBOSE | re.DOTALL,
)
_LETTERS: Final = dict(zip("abfnrtvs\\\"'", b"\a\b\f\n\r\t\v \\\"'", strict=True))


class Problem(NamedTuple):
    """Something to report about a unit file.

    Attributes:
        where: the file, and the line after a colon.
        message: what was found, and what was expected.
        level: an error keeps the unit from running; a warning is about something that systemd warns of, too, and
            passes over; a note names what systemd does and this program does not.
    """

    where: str
    message: str
    level: Level = "error"


class Assignment(NamedTuple):
    """One ``Key=value``. A value of several lines is one assignment, with the number of its first line."""

    section: str
    key: str
    value: str
    file: str
    line: int

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


def parse(text: str, file: str) -> tuple[list[Assignment], list[Problem]]:
    """Read a unit file.

    Args:
        text: decoded from UTF-8 with surrogateescape.
        file: its name in messages.
    """
    assignments: list[Assignment] = []
    problems: list[Problem] = []
    section: str | None = None
    for number, line in _lines(text):
        key, equals, value = (part.strip(WHITESPACE) for part in line.partition("="))
        if complaint := _unreadable(line):
            problems.append(Problem(f"{file}:{number}", complaint))
        elif line.startswith("["):
            section = line[1:-1]
        elif section is None:
            problems.append(
                Problem(f"{file}:{number}", f"{shown(line)} is in no section; expected [Socket] or the like")
            )
        elif not (key and equals):
            problems.append(Problem(f"{file}:{number}", f"{shown(line)} is no assignment; expected Key=value"))
        else:
            assignments.append(Assignment(section, key, value, file, number))
    return assignments, problems


def _unreadable(line: str) -> str:
    """Why a line cannot be read, or ""."""
    if len(line) > LONGEST_LINE:
        return f"a line of {len(line)} characters is too long; expected {LONGEST_LINE} at most"
    if not line.isascii() and re.search("[\ud800-\udfff]", line):
        return f"{shown(line)} is not in UTF-8; expected a text file"
    if line.startswith("[") and not line.endswith("]"):
        return f"{shown(line)} is no section; expected [Socket] or the like"
    return ""


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that has text, with its number. Continued lines come as one."""
    pieces: list[str] = []
    first = 0
    for number, line in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), 1):
        if line.lstrip(WHITESPACE).startswith(("#", ";")):
            continue
        first = first or number
        if (len(line) - len(line.rstrip("\\"))) % 2:
            pieces.append(line[:-1] + " ")
            continue
        if whole := "".join([*pieces, line]).strip(WHITESPACE):
            yield first, whole
        pieces, first = [], 0
    if whole := "".join(pieces).strip(WHITESPACE):
        yield first, whole


class Word(NamedTuple):
    """One word of a value.

    Attributes:
        text: without quotes, with its escapes replaced. Bytes that are not UTF-8 are decoded by surrogateescape.
        raw: as it is written.
        unknown: escapes that do not exist; they stay in the text as they are written.
    """

    text: str
    raw: str
    unknown: Sequence[str]


def words(value: str) -> list[Word]:
    r"""Split a value at white space outside of quotes, and replace C-style escapes such as ``\x20``.

    Raises:
        ValueError: a quote is not closed.
    """
    found: list[Word] = []
    text, unknown, begin, quote = bytearray(), list[str](), -1, ""
    for token in (*_TOKEN.finditer(value), None):
        if token is None or (token["space"] and not quote):
            if begin >= 0:
                end = token.start() if token else len(value)
                found.append(Word(text.decode("utf-8", "surrogateescape"), value[begin:end], unknown))
            text, unknown, begin = bytearray(), [], -1
            continue
        if begin < 0:
            begin = token.start()
        if token["quote"] and quote in ("", token["quote"]):
            quote = "" if quote else token["quote"]
        elif token["escape"] and (character := _unescaped(token["escape"])):
            text += character
        else:
            unknown += [token[0]] if token["escape"] else []
            text += token[0].encode("utf-8", "surrogateescape")
    if quote:
        raise ValueError(f"expected another {quote} that closes the quotation")
    return found


def _unescaped(escape: str) -> bytes | None:
    """What a C-style escape stands for; None if it does not exist."""
    if len(escape) == 1:
        return bytes([_LETTERS[escape]]) if escape in _LETTERS else None
    code = int(escape, 8) if escape[0].isdigit() else int(escape[1:], 16)
    if escape[0] not in "uU":
        return bytes([code]) if 0 < code < 0x100 else None
    return chr(code).encode("utf-8", "surrogatepass") if 0 < code < 0x110000 else None


def shown(text: str) -> str:
    """A piece of a file for a message: quoted, printable and not too long."""
    text = text if len(text) <= 100 else f"{text[:97]}..."
    return repr(text) if text.isprintable() else ascii(text)
