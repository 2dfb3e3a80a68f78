"""The values of settings: booleans, time spans (systemd.time(7)), sizes, numbers, modes, signals.

Each function returns the value, or raises a ValueError that tells what was expected.
"""

from __future__ import annotations

import math
import re
import signal
from typing import TYPE_CHECKING, Final

from .accounts import find_group, find_user
from .expansion import WHITESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BOOLEANS: Final = dict.fromkeys(("1", "yes", "y", "true", "t", "on"), True) | dict.fromkeys(
    ("0", "no", "n", "false", "f", "off"), False
)
_MICROSECONDS: Final = {
    "usec us µs μs": 1,
    "msec ms": 1000,
    "seconds second sec s": 10**6,
    "minutes minute min m": 60 * 10**6,
    "hours hour hr h": 3600 * 10**6,
    "days day d": 86400 * 10**6,
    "weeks week w": 7 * 86400 * 10**6,
    "months month M": 2629800 * 10**6,
    "years year y": 31557600 * 10**6,
}
_UNITS: Final = {unit: factor for units, factor in _MICROSECONDS.items() for unit in units.split()}
_SPAN = re.compile(
    r"[ \t\n\r]*(?P<number>\+?[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    rf"(?:[ \t\n\r]*(?P<unit>{'|'.join(sorted(_UNITS, key=len, reverse=True))})|[ \t\n\r]+|$)"
)
_SIZE = re.compile(r"[ \t\n\r]*\+?(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]*))?[ \t\n\r]*(?P<unit>[EPTGMKB]?)")
_SIZE_UNITS: Final = ("E", "P", "T", "G", "M", "K", "B", "")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<base16>[0-9a-fA-F]{1,16})|0[bB](?P<base2>[01]{1,64})"
    r"|0(?:[oO](?=[0-7]))?(?P<base8>[0-7]{0,22})|(?P<base10>[1-9][0-9]{0,19}))"
)
INT_MAX: Final = (1 << 31) - 1
_LONGEST: Final = 2**64 - 1


def boolean(text: str) -> bool:
    """Yes or no, in one of six spellings each."""
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("expected yes or no") from None


def choice(*names: str) -> Callable[[str], str]:
    """Make a function that takes one of the names."""

    def chosen(text: str) -> str:
        if text not in names:
            raise ValueError(f"expected {', '.join(names[:-1])} or {names[-1]}")
        return text

    return chosen


def time_span(text: str) -> float:
    """Seconds; ``math.inf`` for infinity."""
    text = text.strip(WHITESPACE)
    if text == "infinity":
        return math.inf
    microseconds = position = 0
    while position < len(text) and (span := _SPAN.match(text, position)):
        whole, _, fraction = span["number"].partition(".")
        factor = _UNITS[span["unit"] or "s"]
        if len(whole) > 20:
            break
        microseconds += int(whole or 0) * factor + int(fraction[:20] or 0) * factor // 10 ** len(fraction[:20])
        position = span.end()
    if not text or position < len(text) or microseconds >= _LONGEST:
        raise ValueError('expected a time such as 5, "2min 200ms" or infinity; a number is in seconds')
    return microseconds / 10**6


def size(text: str) -> int:
    """Bytes; several parts are added up, the larger units first."""
    found, position = 0, 0
    units: Sequence[str] = _SIZE_UNITS
    while position < len(text) or not text:
        match = _SIZE.match(text, position)
        if not match or match["unit"] not in units or len(match[0]) > 40:
            raise ValueError(
                "expected a size in bytes such as 4096, 64K or 1M; of several parts, the larger ones first"
            )
        factor = 1024 ** "BKMGTPE".index(match["unit"] or "B")
        fraction = match["fraction"] or ""
        found += int(match["whole"]) * factor + int(fraction or 0) * factor // 10 ** len(fraction)
        position, units = match.end(), units[units.index(match["unit"]) + 1 :]
    if found > _LONGEST:
        raise ValueError("expected less than 16E")
    return found


def number(text: str) -> int:
    """A whole number of 32 bits, as in C."""
    return c_number(text, (1 << 32) - 1)


def c_number(text: str, most: int) -> int:
    """A number up to ``most`` as in C: decimal, hexadecimal after 0x, octal after 0 or 0o, binary after 0b."""
    match = _NUMBER.fullmatch(text.lstrip(WHITESPACE))
    if match:
        base = next(base for base in (16, 8, 2, 10) if match[f"base{base}"] is not None)
        found = int(match[f"base{base}"] or "0", base) * (-1 if match["sign"] == "-" else 1)
        if 0 <= found <= most:
            return found
    raise ValueError(f"expected a whole number such as 5 or 0x10, up to {most}")


def optional_number(text: str) -> int | None:
    """A number of 31 bits as in C; a negative one stands for none."""
    unsigned = text.lstrip(WHITESPACE)
    try:
        if unsigned.startswith("-"):
            return c_number(unsigned[1:], INT_MAX + 1) and None
        return c_number(text, INT_MAX)
    except ValueError:
        raise ValueError(f"expected a whole number such as 5 or 0x10, up to {INT_MAX}, or -1 for none") from None


_TYPES_OF_SERVICE: Final = {"low-delay": 16, "throughput": 8, "reliability": 4, "low-cost": 2}


def type_of_service(text: str) -> int | None:
    """The byte of IPTOS=, ip(7); None for -1."""
    if text in _TYPES_OF_SERVICE:
        return _TYPES_OF_SERVICE[text]
    expected = f"expected {', '.join(_TYPES_OF_SERVICE)} or a number up to 255"
    try:
        found = optional_number(text)
    except ValueError:
        raise ValueError(expected) from None
    if (found is None and int(text, 0) != -1) or (found or 0) > 255:
        raise ValueError(expected)
    return found


def bind_ipv6_only(text: str) -> str:
    """BindIPv6Only=: default, both, ipv6-only, or whether it is ipv6-only."""
    if text in ("default", "both", "ipv6-only"):
        return text
    try:
        return "ipv6-only" if boolean(text) else "both"
    except ValueError:
        raise ValueError("expected default, both, ipv6-only, yes or no") from None


def timestamping(text: str) -> str:
    """Which timestamps datagrams come with: off, us or ns."""
    for unit, others in (("us", ("usec", "µs", "μs")), ("ns", ("nsec",))):
        if text == unit or text in others:
            return unit
    try:
        return "ns" if text != "off" and boolean(text) else "off"
    except ValueError:
        raise ValueError("expected off, us or ns") from None


def descriptor_name(text: str) -> str:
    """A name for LISTEN_FDNAMES."""
    if not re.fullmatch("[ -9;-~]{1,255}", text):
        raise ValueError("expected a name in ASCII without a colon, of 255 characters at most")
    return text


def user(text: str) -> str:
    """A user of this machine, by name or by number."""
    find_user(text)
    return text


def group(text: str) -> str:
    """A group of this machine, by name or by number."""
    find_group(text)
    return text


def device(text: str) -> str:
    """The name of a network interface; nothing for any."""
    if text in ("", "*"):
        return ""
    if not re.fullmatch(r"[!-$&-.0-9;-~]{1,15}", text) or text in (".", "..", "all", "default") or text.isdecimal():
        raise ValueError("expected the name of a network interface such as eth0, or nothing")
    return text


def mode(text: str) -> int:
    """An access mode."""
    if not re.fullmatch(r"0*[0-7]{1,4}", text):
        raise ValueError("expected an access mode in octal such as 0660")
    return int(text, 8)


def signal_number(text: str) -> int:
    """The number of a signal, for whichever of its spellings."""
    name = text.removeprefix("SIG")
    if match := re.fullmatch(r"RTMIN(\+[0-9]{1,2})?|RTMAX(-[0-9]{1,2})?", name):
        found = signal.Signals["SIG" + name[:5]] + int(match[1] or match[2] or 0)
    elif re.fullmatch(r"[0-9]{1,2}", text):
        found = int(text)
    else:
        found = int(signal.Signals.__members__.get("SIG" + name, 0))
    if found not in signal.valid_signals():
        raise ValueError("expected a signal such as SIGTERM, TERM or 15")
    return found


def absolute_path(text: str) -> str:
    """A path from /."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError("expected a path from /")
    return text
