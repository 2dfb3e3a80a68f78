"""What --check prints: what would be made and started."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .units.model import Pair, ServiceUnit


def describe(pairs: Sequence[Pair], environment: Mapping[str, str]) -> Iterator[str]:
    """The lines that tell of the pairs."""
    for pair in pairs:
        for listen, name in zip(pair.socket.listen, [*pair.socket.descriptor_names, ""], strict=False):
            yield f"{pair.socket.name}: listens on {listen.text} ({listen.kind}){f', passed as {name}' if name else ''}"
        if pair.alone:
            yield f"{pair.service.name}: starts when another service on its sockets does"
        else:
            when = "for each connection" if pair.socket.accept else "for the first client"
            yield f"{pair.socket.name}: starts {pair.service.name} {when}"
        yield f"{pair.service.name}: runs {_program(pair.service, environment)} (Type={pair.service.type})"
        yield from (f"{pair.service.name}: {line}" for line in _further(pair.service))


def _program(service: ServiceUnit, environment: Mapping[str, str]) -> str:
    command = service.exec_start
    path = environment.get("PATH", os.defpath)
    missing = "" if shutil.which(command.program, path=path) else ", which is no program that can be run here"
    return " ".join([command.program, *command.arguments[1:]]) + missing


def _further(service: ServiceUnit) -> Iterator[str]:
    for command in service.exec_start_pre:
        yield f"first runs {' '.join([command.program, *command.arguments[1:]])}"
    if service.user or service.group:
        yield f"runs as {service.user or 'the same user'}, group {service.group or 'of the user'}"
    for name, stream in (("input", service.standard_input), ("output", service.standard_output)):
        if stream not in ("null", "inherit"):
            yield f"has {stream} as standard {name}"
    if service.restart != "no":
        yield f"is started again, Restart={service.restart}, RestartSec={service.restart_sec}"
    if service.notify_access != "none":
        yield f"may notify, NotifyAccess={service.notify_access}"
    if service.watchdog:
        yield f"has to tell WATCHDOG=1 within {service.watchdog:g} s"
    if service.store_maximum:
        yield f"may store {service.store_maximum} descriptors"
