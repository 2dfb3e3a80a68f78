"""Variables in command lines, systemd.service(5). Standard library only, because the executor uses it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WHITESPACE = " \t\n\r"
_BRACED = re.compile(r"\$\$|\$\{([^}:]*)\}")
_PIECE = re.compile(
    r"""(?P<space> [ \t\n\r]+ ) | (?P<quote> ["'] ) | \\(?P<escaped> .? ) | [^ \t\n\r"'\\]+""",
    re.VERBOSE | re.DOTALL,
)


def expanded(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Replace variables in the arguments of a command.

    ``${NAME}`` is replaced in place, ``$NAME`` as a word of its own by the variable's words, ``$$`` by one ``$``. A
    variable that is not set is empty.
    """
    found: list[str] = []
    for argument in arguments:
        if argument.startswith("$") and argument[1:2] not in ("$", "{"):
            found += _split_variable(environment.get(argument[1:], ""))
        else:
            found.append(_BRACED.sub(lambda match: _replaced(match, environment), argument))
    return found


def _replaced(match: re.Match[str], environment: Mapping[str, str]) -> str:
    return "$" if match[1] is None else environment.get(match[1], "")


def _split_variable(value: str) -> list[str]:
    """Split at white space outside of quotes. A backslash escapes the next character, and nothing is an error."""
    found: list[str] = []
    begun, quote = False, ""
    for piece in _PIECE.finditer(value.strip(WHITESPACE)):
        if piece["space"] and not quote:
            begun = False
            continue
        if not begun:
            found.append("")
            begun = True
        if piece["quote"] and quote in ("", piece["quote"]):
            quote = "" if quote else piece["quote"]
        else:
            found[-1] += piece[0] if piece["escaped"] is None else piece["escaped"]
    return found
