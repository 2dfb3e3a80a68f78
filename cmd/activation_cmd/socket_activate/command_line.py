"""The pair of units that a command line with addresses and a COMMAND stands for."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from activation_cmd.common.addresses import parse

from .sockets.making import resolve
from .units import values
from .units.model import ACCEPTED, Command, Listen, Pair, ServiceUnit, SocketUnit
from .units.syntax import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .units.model import Kind

CLEAN = ("TERM", "PATH", "USER", "HOME")
"""What systemd-socket-activate keeps of its environment."""

TRIGGERS = 100
"""After so many starts in two seconds that each left a client waiting, COMMAND is given up."""


def listens(addresses: Sequence[tuple[Kind, str]]) -> list[Listen]:
    """Check the addresses.

    Raises:
        ValueError: one has no known form.
    """
    seen: set[tuple[str, str]] = set()
    for kind, text in addresses:
        if "\0" in text:
            raise ValueError(f"{text!r} has a null character, which no address can have")
        if kind != "fifo":
            address = parse(text)
            if kind == "seqpacket" and address.family != socket.AF_UNIX:
                raise ValueError(f"{text!r} has no sequential packets; expected a path or @abstract")
            key = ("path" if "/" in text else kind, text)
            if key in seen:
                raise ValueError(f"{text!r} is listed twice; expected each address once")
            seen.add(key)
    return [Listen(kind, text, "") for kind, text in addresses]


def names(given: str | None, count: int) -> list[str]:
    """Read --fdname: a name for each socket, or one for all.

    Raises:
        ValueError: the number of names is another, or a name cannot be passed.
    """
    found = given.split(":") if given else [""]
    if len(found) == 1:
        found *= count
    if len(found) != count:
        raise ValueError(f"--fdname has {len(found)} names for {count} addresses; expected one, or one for each")
    for name in filter(None, found):
        try:
            values.descriptor_name(name)
        except ValueError as error:
            raise ValueError(f"--fdname has {shown(name)}: {error}") from None
    return found


def environment(assignments: Sequence[str], *, clean: bool) -> dict[str, str]:
    """The environment of COMMAND: this process's, or what systemd-socket-activate keeps of it, and -E.

    Raises:
        ValueError: an assignment has no name.
    """
    found = {name: value for name, value in os.environ.items() if not clean or name in CLEAN}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name or "\0" in assignment:
            raise ValueError(f"--setenv {assignment!r} has no name; expected NAME=VALUE, or NAME for its value here")
        if equals:
            found[name] = value
        else:
            found[name] = os.environ.get(name, "")
    return found


STORE = 64
"""Descriptors that COMMAND may store, at most; FileDescriptorStoreMax= of a unit."""

UNIT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unit_environment(assignments: Sequence[str], *, clean: bool) -> dict[str, str]:
    """The environment of services from unit files: this process's, or only a PATH, and -E.

    Raises:
        ValueError: an assignment has no name.
    """
    found = environment(assignments, clean=clean)
    if clean:
        said = {assignment.partition("=")[0] for assignment in assignments}
        found = {"PATH": UNIT_PATH} | {name: value for name, value in found.items() if name in said}
    return found


def pair(
    listen: Sequence[Listen],
    names: Sequence[str],
    program: str,
    command: Sequence[str],
    *,
    accept: bool,
    inetd: bool,
) -> Pair:
    """Make the pair. Names of hosts are looked up.

    Args:
        program: what to execute for the first word of the command.

    Raises:
        OSError, ValueError: there is no such host.
    """
    name = os.path.basename(command[0])
    service = ServiceUnit(
        name=name,
        exec_start=Command(program=program, arguments=command, replace_variables=False),
        standard_input="socket" if inetd else "null",
        standard_output="socket" if inetd else "inherit",
        start_limit_burst=0,
        notify_access="main",
        store_maximum=0 if accept else STORE,
    )
    unit = SocketUnit(
        name=name,
        listen=[resolve(line) for line in listen],
        descriptor_names=[name or ACCEPTED for name in names] if accept else names,
        accept=accept,
        max_connections=1 << 16,
        trigger_limit_burst=0 if accept else TRIGGERS,
        service=name,
    )
    return Pair(unit, service, (lambda _: service) if accept else None)
