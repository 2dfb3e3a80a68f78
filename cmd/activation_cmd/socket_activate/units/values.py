"""The values of settings: booleans, time spans (systemd.time(7)), sizes, modes, signals, addresses.

Each function returns the value, or raises a ValueError that tells what was expected.
"""

from __future__ import annotations

import ipaddress
import math
import re
import signal
from typing import TYPE_CHECKING, Final

from .accounts import find_group, find_user
from .expansion import WHITESPACE

if TYPE_CHECKING:
    from collections.abc import Callable

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
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)[ \t]*([BKMGTPE]?)")
INT_MAX: Final = (1 << 31) - 1
_LONGEST: Final = 2**64 - 1
_LONGEST_PATH: Final = 107


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
    """Bytes."""
    match = _SIZE.fullmatch(text)
    if not match or len(match[1]) > 30:
        raise ValueError("expected a size in bytes such as 4096, 64K or 1M")
    whole, _, fraction = match[1].partition(".")
    factor = 1024 ** "BKMGTPE".index(match[2] or "B")
    found: int = int(whole) * factor + int(fraction or 0) * factor // 10 ** len(fraction)
    if found > _LONGEST:
        raise ValueError("expected less than 16E")
    return found


def number(text: str) -> int:
    """A whole number of 32 bits, as in C."""
    return c_number(text, (1 << 32) - 1)


def c_number(text: str, most: int) -> int:
    """A number up to ``most`` as in C: decimal, hexadecimal after 0x, octal after 0."""
    for form, base in ((r"0[xX]([0-9a-fA-F]{1,16})", 16), ("0([0-7]{1,16})", 8), ("(0|[1-9][0-9]{0,15})", 10)):
        if (match := re.fullmatch(form, text)) and (found := int(match[1], base)) <= most:
            return found
    raise ValueError(f"expected a whole number such as 5 or 0x10, up to {most}")


def mark(text: str) -> int:
    """A firewall mark."""
    return c_number(text, INT_MAX)


_TYPES_OF_SERVICE: Final = {"low-delay": 16, "throughput": 8, "reliability": 4, "low-cost": 2}


def type_of_service(text: str) -> int:
    """The byte of IPTOS=, ip(7)."""
    if text in _TYPES_OF_SERVICE:
        return _TYPES_OF_SERVICE[text]
    try:
        return c_number(text, 255)
    except ValueError:
        raise ValueError(f"expected {', '.join(_TYPES_OF_SERVICE)} or a number up to 255") from None


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


def message_queue(text: str) -> str:
    """The name of a POSIX message queue, mq_overview(7)."""
    if not re.fullmatch(r"/[^/]{1,254}", text):
        raise ValueError("expected a name such as /queue, with no other slash")
    return text


def netlink(text: str) -> str:
    """A netlink family and, if any, a multicast group."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*([ \t]+[0-9]{1,10})?", text):
        raise ValueError('expected a netlink family and perhaps a group, such as "kobject-uevent 1"')
    return text


def unix_address(text: str) -> str:
    """A path, or ``@`` and an abstract name."""
    if not re.fullmatch("[/@].+", text, re.DOTALL) or len(text.encode("utf-8", "surrogateescape")) > _LONGEST_PATH:
        raise ValueError(f"expected a path from / or @abstract, of {_LONGEST_PATH} bytes at most")
    return text


def address(text: str) -> str:
    """Where to listen for streams or datagrams."""
    if text.startswith(("/", "@")):
        return unix_address(text)
    host, colon, port = text.rpartition(":")
    if text.startswith("vsock:"):
        valid = _is_vsock(text)
    else:
        valid = _is_port(port.partition("%")[0] if colon else port) and (not colon or _is_host(host))
    if not valid:
        raise ValueError("expected a path from /, @abstract, port, v4:port, [v6]:port or vsock:cid:port")
    return text


def _is_port(text: str) -> bool:
    return bool(re.fullmatch("[1-9][0-9]{0,4}", text)) and int(text) < 1 << 16


def _is_host(text: str) -> bool:
    bracketed = text.startswith("[") and text.endswith("]") and "%" not in text
    try:
        found = ipaddress.ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        return False
    return (found.version == 6) == bracketed


def _is_vsock(text: str) -> bool:
    match = re.fullmatch("vsock:([0-9]{0,10}):([0-9]{1,10})", text)
    return match is not None and not any(int(part or 0) >> 32 for part in match.groups())
