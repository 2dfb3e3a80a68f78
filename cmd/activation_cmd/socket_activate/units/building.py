"""From what the files of a unit assign to the unit, if all of it goes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .assigned import assigned
from .checks import identity_problems, service_problems, socket_problems
from .model import ACCEPTED, ServiceUnit, SocketUnit
from .names import UnitName
from .service_settings import SERVICE
from .specifiers import Unit
from .streams import resolved
from .syntax import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from .assigned import Assigned
    from .files import UnitFile
    from .specifiers import Manager

    Say = Callable[[Problem], None]


def socket_unit(file: UnitFile, found: Assigned, say: Say) -> SocketUnit | None:
    """Make a socket unit; return None if not all of it goes together, which is said."""
    problems = list(socket_problems(file, found))
    for problem in problems:
        say(problem)
    if problems or found.broken:
        return None
    fields = found.fields
    accept = fields.get("accept", False)
    fields.setdefault("trigger_limit_burst", 200 if accept else 20)
    descriptor_name = fields.pop("descriptor_name", "") or (ACCEPTED if accept else str(file.name))
    names = [descriptor_name] * len(fields["listen"])
    return SocketUnit(name=str(file.name), descriptor_names=names, **fields)


def instance(template: UnitFile, manager: Manager, argument: str) -> ServiceUnit:
    """Make the service of one connection.

    Args:
        argument: the name of the instance.

    Raises:
        ValueError: the template cannot have such an instance.
    """
    said: list[Problem] = []
    name = UnitName.parse(str(template.name._replace(instance=argument)))
    made = service_unit(template, name, manager, said.append)
    if made is None:
        raise ValueError("; ".join(f"{each.where}: {each.message}" for each in said if each.level == "error"))
    return made[0]


def service_unit(
    file: UnitFile, name: UnitName, manager: Manager, say: Say
) -> tuple[ServiceUnit, dict[str, str]] | None:
    """Make a service with the places of its settings; return None if not all of it goes together, which is said."""
    found = assigned(file, Unit(name, file.path, manager), SERVICE, say)
    problems = list(identity_problems(found))
    for problem in problems:
        say(problem)
    if found.broken or any(problem.level == "error" for problem in problems):
        return None
    fields: dict[str, Any] = found.fields
    commands = fields.get("exec_start", [])
    if len(commands) != 1:
        where = commands[1].where if commands else file.path
        say(Problem(where, f"has {len(commands) or 'no'} commands to start; expected exactly one, in ExecStart="))
        return None
    fields["exec_start"] = commands[0]
    fields["environment"] = dict(fields.get("environment", []))
    if fields.get("timeout_abort", "") == "":
        fields["timeout_abort"] = fields.get("timeout_stop", ServiceUnit._field_defaults["timeout_stop"])
    path, optional = fields.pop("working_directory", (None, False))
    fields.pop("dynamic_user", None)
    notifies = fields.get("type", "").startswith("notify") or fields.get("watchdog") or fields.get("store_maximum")
    if notifies and fields.get("notify_access", "none") == "none":
        fields["notify_access"] = "main"
    unit = ServiceUnit(
        name=str(name), working_directory=path, working_directory_optional=optional, **fields | resolved(fields)
    )
    problems = list(service_problems(file, unit, manager))
    for problem in problems:
        say(problem)
    return None if problems else (unit, found.where)
