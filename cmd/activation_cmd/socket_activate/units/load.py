"""Reading the socket units that are named on the command line, and the service of each."""

from __future__ import annotations

import difflib
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from .files import read_unit
from .known import KNOWN
from .model import ACCEPTED, Pair, ServiceUnit, SocketUnit
from .settings import SERVICE, SOCKET, Context
from .specifiers import UnitName
from .syntax import Problem, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .files import UnitFile
    from .settings import Setting
    from .syntax import Assignment, Level

    Say = Callable[[Problem], None]
    Services = dict[tuple[str, UnitName], ServiceUnit | None]

# Nobody can observe these: they need no note.
_NOTHING_TO_DO = frozenset(["Description", "Documentation", "SourcePath", "CollectMode"])
_EXAMPLE = "0"
"""The name of an instance."""


def load(paths: Sequence[str]) -> tuple[list[Pair], list[Problem]]:
    """Read socket units and the service of each.

    Args:
        paths: of the ``.socket`` files. A service, a template, drop-ins are looked for in the same folder.

    Returns:
        The pairs that have no error, in order, and all that is to be said. Sockets of one service share one
        ServiceUnit.
    """
    problems: list[Problem] = []
    services: Services = {}
    named: dict[UnitName, str] = {}
    pairs: list[Pair] = []
    for path in dict.fromkeys(paths):
        name = _socket_name(path, problems.append)
        if name is None:
            continue
        if name in named:
            problems.append(Problem(path, f"is another {name} than {named[name]}; expected one unit of each name"))
            continue
        named[name] = path
        if pair := _pair(os.path.dirname(path), name, services, problems.append):
            pairs.append(pair)
    return pairs, problems


def _socket_name(path: str, say: Say) -> UnitName | None:
    try:
        name = UnitName.parse(os.path.basename(path))
    except ValueError as error:
        say(Problem(path, f"cannot be a unit; {error}"))
        return None
    if name.type != "socket" or name.instance == "":
        say(Problem(path, "is no socket unit; expected a file such as foobar.socket or foobar@instance.socket"))
        return None
    return name


def _pair(folder: str, name: UnitName, services: Services, say: Say) -> Pair | None:
    file = read_unit(folder, name, say, "expected the path of a socket unit")
    if file is None:
        return None
    settings = _settings(file, name, SOCKET, say)
    accept = settings.fields.get("accept", False)
    named = settings.fields.pop("service", None)
    service_name = named or UnitName(name.prefix, "" if accept else name.instance, "service")
    socket = _socket(file, name, service_name, settings, say)
    expected = f"{file.path} is for it; expected it next to that" + ("" if accept else ", or another in Service=")
    if accept:
        template = read_unit(folder, service_name, say, expected)
        service = _service(template, attrs.evolve(service_name, instance=_EXAMPLE), say) if template else None
        instance = partial(_instance, template, service_name) if template else None
        return Pair(socket, service, instance) if socket and service else None
    if (folder, service_name) not in services:
        found = read_unit(folder, service_name, say, expected)
        services[folder, service_name] = _service(found, service_name, say) if found else None
    service = services[folder, service_name]
    return Pair(socket, service) if socket and service else None


@attrs.define
class _Settings:
    """What the assignments set: the model's fields, and the file and line of each; whether there are errors."""

    fields: dict[str, Any] = attrs.field(factory=dict)
    where: dict[str, str] = attrs.field(factory=dict)
    broken: bool = False


def _socket(file: UnitFile, name: UnitName, service: UnitName, settings: _Settings, say: Say) -> SocketUnit | None:
    """Make the unit, if all of it goes together."""
    problems = list(_contradictions(file, settings))
    for problem in problems:
        say(problem)
    if problems or settings.broken:
        return None
    fields = settings.fields
    accept = fields.get("accept", False)
    fields.setdefault("trigger_limit_burst", 200 if accept else 20)
    descriptor_name = fields.pop("descriptor_name", "") or (ACCEPTED if accept else str(name))
    return SocketUnit(
        name=str(name), service=str(service), descriptor_names=[descriptor_name] * len(fields["listen"]), **fields
    )


def _contradictions(file: UnitFile, settings: _Settings) -> Iterator[Problem]:
    """What does not go together in a socket unit."""
    fields, where = settings.fields, settings.where
    listen = fields.get("listen", [])
    kinds = ("stream", "datagram", "seqpacket", "fifo")
    nodes = [each for each in listen if each.kind in kinds and each.text.startswith("/")]
    if not listen and not settings.broken:
        yield Problem(file.path, "has nothing to listen on; expected ListenStream= or another Listen...=")
    if fields.get("symlinks") and len(nodes) != 1:
        yield Problem(where["symlinks"], f"Symlinks= with {len(nodes)} sockets or FIFOs with a path; expected one")
    if not fields.get("accept"):
        return
    for each in listen:
        if each.kind not in ("stream", "seqpacket"):
            yield Problem(each.where, "Accept=yes and what has no connections; expected ListenStream= or Accept=no")
    if "service" in where:
        yield Problem(where["service"], "Service= and Accept=yes; expected Accept=no, or a template of the same name")
    if fields.get("max_connections") == 0:
        yield Problem(where["max_connections"], "MaxConnections= is '0': expected 1 at least")


def _instance(template: UnitFile, name: UnitName, argument: str) -> ServiceUnit:
    """The service of one connection."""
    said: list[Problem] = []
    service = _service(template, UnitName.parse(str(attrs.evolve(name, instance=argument))), said.append)
    if service is None:
        raise ValueError("; ".join(f"{each.where}: {each.message}" for each in said if each.level == "error"))
    return service


def _service(file: UnitFile, name: UnitName, say: Say) -> ServiceUnit | None:
    """Make the unit, if all of it goes together."""
    settings = _settings(file, name, SERVICE, say)
    fields = settings.fields
    commands = fields.get("exec_start", [])
    if settings.broken:
        return None
    if len(commands) != 1:
        where = commands[1].where if commands else file.path
        say(Problem(where, f"has {len(commands) or 'no'} commands to start; expected exactly one, in ExecStart="))
        return None
    fields["exec_start"] = commands[0]
    fields["environment"] = dict(fields.get("environment", []))
    if fields.get("timeout_abort", "") == "":
        fields["timeout_abort"] = fields.get("timeout_stop", attrs.fields(ServiceUnit).timeout_stop.default)
    path, optional = fields.pop("working_directory", (None, False))
    notifies = fields.get("type", "").startswith("notify") or fields.get("watchdog") or fields.get("store_maximum")
    if notifies and fields.get("notify_access", "none") == "none":
        fields["notify_access"] = "main"
    return ServiceUnit(
        name=str(name), working_directory=path, working_directory_optional=optional, **fields | _streams(fields)
    )


def _streams(fields: Mapping[str, str]) -> dict[str, str]:
    """What becomes of the standard streams: output goes where input comes from, and errors go where output goes."""
    source = fields.get("standard_input", "null")
    output = fields.get("standard_output", "inherit")
    error = fields.get("standard_error", "inherit")
    if output == "inherit" and source == "socket":
        output = "socket"
    if error == "inherit":
        error = output
    return {
        "standard_input": "null" if source == "journal" else source,
        "standard_output": "inherit" if output == "journal" else output,
        "standard_error": "inherit" if error == "journal" else error,
    }


def _settings(file: UnitFile, name: UnitName, known: Mapping[str, Mapping[str, Setting]], say: Say) -> _Settings:
    """Read the values of all assignments that are known here; name the others."""
    settings = _Settings(broken=file.broken)
    others: dict[str, list[Assignment]] = {}
    warned: set[tuple[str, str]] = set()
    for assignment in file.assignments:
        section, key = assignment.section, assignment.key
        if setting := known.get(section, {}).get(key):
            _set(settings, setting, assignment, partial(Context, name, file.path), say)
        elif problem := _unknown(assignment, [*known, "Install"]):
            if (assignment.file, problem.message) not in warned:
                say(problem)
            warned.add((assignment.file, problem.message))
        elif section in known and key in KNOWN[section] and key not in _NOTHING_TO_DO:
            others.setdefault(assignment.file, []).append(assignment)
    for each in others.values():
        keys = ", ".join(dict.fromkeys(f"{assignment.key}=" for assignment in each))
        say(Problem(each[0].where, f"not done here, passed over from this line on: {keys}", "note"))
    return settings


def _set(
    settings: _Settings, setting: Setting, assignment: Assignment, context: Callable[..., Context], say: Say
) -> None:
    value, where = assignment.value, assignment.where

    def tell(message: str, level: Level = "error") -> None:
        say(Problem(where, f"{assignment.key}= is {shown(value)}: {message}", level))

    try:
        found = setting.read(value, context(where, tell)) if value or not setting.repeated else []
    except ValueError as error:
        tell(str(error))
        settings.broken = True
        return
    for field in setting.fields:
        settings.where[field] = where
        if setting.repeated:
            settings.fields[field] = [*settings.fields.get(field, []), *found] if value else []
        else:
            settings.fields[field] = found


def _unknown(assignment: Assignment, sections: Sequence[str]) -> Problem | None:
    """What is to be said if systemd does not know the setting, either."""
    section, key = assignment.section, assignment.key
    if section.startswith("X-") or key.startswith("X-") or key in KNOWN.get(section, ()):
        return None
    if section not in sections:
        message = f"[{section}] is passed over; expected {', '.join(map('[{}]'.format, sections))}"
    else:
        other = next((other for other in sections if key in KNOWN[other]), None)
        near = difflib.get_close_matches(key, sorted(KNOWN[section]), 1, 0.8)
        hint = f"; it belongs in [{other}]" if other else f"; is {near[0]}= meant?" if near else ""
        message = f"{key}= is not known in [{section}] and passed over{hint}"
    return Problem(assignment.where, message, "warning")
