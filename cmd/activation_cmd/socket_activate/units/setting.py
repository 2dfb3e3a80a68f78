"""How the value of a setting is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .command_lines import unknown_escapes
from .specifiers import Unit, replace_specifiers
from .syntax import words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .syntax import Level


class Context:
    """What a value is read for.

    Attributes:
        unit: what the specifiers in it depend on.
        where: the value's file and line.
        say: reports a problem of this value that is no error.
        replaced: what came of texts with specifiers.
    """

    def __init__(self, unit: Unit, where: str, say: Callable[[str, Level], None]) -> None:
        self.unit = unit
        self.where = where
        self.say = say
        self.replaced: list[str] = []

    def replace(self, text: str) -> str:
        """Replace the specifiers."""
        found = replace_specifiers(text, self.unit)
        if found != text:
            self.replaced.append(found)
        return found

    def words(self, value: str) -> list[str]:
        """Split a value into words and replace their specifiers."""
        self.warn_of_escapes(value)
        return [self.replace(word.text) for word in words(value)]

    def warn_of_escapes(self, value: str) -> None:
        """Report the escapes that are none."""
        if unknown := unknown_escapes(value):
            self.say(rf"{' '.join(unknown)} is no escape and stays as it is; expected \\ for a backslash", "warning")


class Setting(NamedTuple):
    """How to read a key.

    Attributes:
        fields: of the model; all of them get the same value.
        read: makes the value of a text, or raises ValueError.
        repeated: each time it is given adds to a list, and an empty value empties it.
    """

    fields: Sequence[str]
    read: Callable[[str, Context], Any]
    repeated: bool = False


def plain(fields: str, read: Callable[[str], Any]) -> Setting:
    """A setting without specifiers; the fields are the words of a text."""
    return Setting(fields.split(), lambda text, _: read(text))


def replaced(field: str, check: Callable[[str], Any] = str) -> Setting:
    """A text with specifiers; an empty one is none."""
    return Setting([field], lambda text, context: check(context.replace(text)) if text else "")


def word_list(field: str, check: Callable[[str], Any]) -> Setting:
    """Words with specifiers, of several lines perhaps."""
    return Setting([field], lambda text, context: [check(word) for word in context.words(text)], repeated=True)


def refused(why: str) -> Setting:
    """A setting that decides what a service gets, and is not done here: more than a no or nothing is an error."""

    def read(text: str, _context: Context) -> None:
        if text.lower() not in ("", "no", "false", "off", "0", "n", "f"):
            raise ValueError(f"it is not done here: {why}")

    return Setting([], read)
