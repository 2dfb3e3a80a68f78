"""What the Listen...= directives of systemd.socket(5) take.

Each function returns the value, or raises a ValueError that tells what was expected.
"""

from __future__ import annotations

import re
from typing import Final

from .values import c_number

_LONGEST_PATH: Final = 107

# netlink(7), by the names that systemd has for them.
NETLINK_FAMILIES: Final = {
    "route": 0,
    "firewall": 3,
    "inet-diag": 4,
    "nflog": 5,
    "xfrm": 6,
    "selinux": 7,
    "iscsi": 8,
    "audit": 9,
    "fib-lookup": 10,
    "connector": 11,
    "netfilter": 12,
    "ip6-fw": 13,
    "dnrtmsg": 14,
    "kobject-uevent": 15,
    "generic": 16,
    "scsitransport": 18,
    "ecryptfs": 19,
}


def message_queue(text: str) -> str:
    """The name of a POSIX message queue, mq_overview(7)."""
    if not re.fullmatch(r"/[^/]{1,254}", text):
        raise ValueError("expected a name such as /queue, with no other slash")
    return text


def netlink(text: str) -> str:
    """A netlink family and, if any, a multicast group."""
    netlink_address(text)
    return text


def netlink_address(text: str) -> tuple[int, int]:
    """The numbers of a netlink family and a multicast group."""
    family, _, group = text.partition(" ")
    try:
        protocol = NETLINK_FAMILIES[family] if family in NETLINK_FAMILIES else c_number(family, (1 << 31) - 1)
        return protocol, c_number(group.strip(" \t") or "0", (1 << 32) - 1)
    except ValueError:
        names = ", ".join(NETLINK_FAMILIES)
        raise ValueError(
            f'expected a netlink family and perhaps a group, such as "kobject-uevent 1"; families are {names}, '
            "and numbers"
        ) from None


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
    import ipaddress  # it takes a while, and most units have paths or ports

    bracketed = text.startswith("[") and text.endswith("]") and "%" not in text
    try:
        found = ipaddress.ip_address(text[1:-1] if bracketed else text)
    except ValueError:
        return False
    return (found.version == 6) == bracketed


def _is_vsock(text: str) -> bool:
    match = re.fullmatch("vsock:([0-9]{0,10}):([0-9]{1,10})", text)
    return match is not None and not any(int(part or 0) >> 32 for part in match.groups())
