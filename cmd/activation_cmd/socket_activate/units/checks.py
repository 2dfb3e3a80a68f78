"""What does not go together in a unit, or in a service and its sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .accounts import account, find_group, find_user, home
from .directories import directories
from .syntax import Problem, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .assigned import Assigned
    from .files import UnitFile
    from .model import Listen, ServiceUnit, SocketUnit
    from .specifiers import Manager

_BOUND = ("stream", "datagram", "seqpacket")


def socket_problems(file: UnitFile, found: Assigned) -> Iterator[Problem]:
    """What does not go together in a socket unit."""
    fields, where = found.fields, found.where
    listen: Sequence[Listen] = fields.get("listen", [])
    nodes = [each for each in listen if each.kind in (*_BOUND, "fifo") and each.text.startswith("/")]
    if not listen and not found.broken:
        yield Problem(file.path, "has nothing to listen on; expected ListenStream= or another Listen...=")
    if fields.get("symlinks") and len(nodes) != 1:
        yield Problem(where["symlinks"], f"Symlinks= with {len(nodes)} sockets or FIFOs with a path; expected one")
    if (fields.get("message_queue_max_messages") is None) != (fields.get("message_queue_message_size") is None):
        given = where.get("message_queue_max_messages") or where["message_queue_message_size"]
        if any(each.kind == "mqueue" for each in listen):
            yield Problem(
                given,
                "MessageQueueMaxMessages= and MessageQueueMessageSize= go together; expected both of them or neither",
            )
    yield from twice((each, fields.get("reuse_port", False)) for each in listen)
    for link in fields.get("symlinks", []):
        if any(link == each.text for each in listen):
            yield Problem(where["symlinks"], f"Symlinks= has {link}, which the unit listens on; expected another path")
    if not fields.get("accept"):
        return
    for each in listen:
        if each.kind not in ("stream", "seqpacket"):
            yield Problem(each.where, "Accept=yes and what has no connections; expected ListenStream= or Accept=no")
    if "service" in where:
        yield Problem(where["service"], "Service= and Accept=yes; expected Accept=no, or a template of the same name")
    if fields.get("max_connections") == 0:
        yield Problem(where["max_connections"], "MaxConnections= is '0': expected 1 at least")


def twice(lines: Iterable[tuple[Listen, bool]]) -> Iterator[Problem]:
    """Addresses that two lines listen on, each given with whether ReusePort= allows that, as it does but for paths."""
    seen: dict[tuple[str, str], tuple[Listen, bool]] = {}
    for line, again in lines:
        if line.kind not in (*_BOUND, "fifo"):
            continue
        key = ("path" if line.text.startswith("/") else line.kind, line.text)
        first, before = seen.setdefault(key, (line, again))
        shared = again and before and not line.text.startswith(("/", "@"))
        if first is not line and not shared and {first.kind, line.kind} != {"fifo"}:
            yield Problem(line.where, f"{line.text} is listed twice; {first.where} has it already")


def identity_problems(found: Assigned) -> Iterator[Problem]:
    """Users and groups that there are not: User= and Group=, which DynamicUser= would make."""
    fields, where = found.fields, found.where
    dynamic = fields.get("dynamic_user", False)
    if dynamic and not fields.get("user"):
        text = "DynamicUser= is not done here: the service runs as the user that socket-activate runs as"
        yield Problem(where["dynamic_user"], text, "note")
    for field, find in (("user", find_user), ("group", find_group)):
        name = fields.get(field)
        if not name:
            continue
        try:
            find(name)
        except ValueError as error:
            key = f"{field.title()}="
            if dynamic:
                yield Problem(
                    where[field],
                    f"{key} is {shown(name)}: DynamicUser= would make it, which is not done here; expected a {field} "
                    "of this machine",
                )
            else:
                yield Problem(where[field], f"{key} is {shown(name)}: {error}")


def service_problems(file: UnitFile, unit: ServiceUnit, manager: Manager) -> Iterator[Problem]:
    """What a service asks for and cannot have, whatever its sockets are."""
    try:
        home(unit, account(unit))
        directories(unit, manager)
    except ValueError as error:
        yield Problem(file.path, f"cannot run here: {error}")


def passing_problems(
    service: ServiceUnit, where: dict[str, str], sockets: Sequence[SocketUnit], *, accept: bool
) -> Iterator[Problem]:
    """Standard streams that cannot be what they are to be, by the descriptors that the service is passed."""
    names = [name for each in sockets for name in each.descriptor_names[: 1 if accept else None]]
    streams = ("standard_input", "standard_output", "standard_error")
    for field in streams:
        if getattr(service, field) == "socket" and field in where and len(names) != 1:
            many = [line.where for each in sockets for line in each.listen]
            yield Problem(
                where[field],
                f"a standard stream can be one socket, not {len(names)}: {', '.join(many)}; expected one Listen...=",
            )
            return
    for field in streams:
        name = getattr(service, field).partition("fd:")[2]
        if field in where and getattr(service, field).startswith("fd:") and not names.count(name):
            yield Problem(
                where[field], f"no socket is passed as {shown(name)}; expected one of {', '.join(sorted(set(names)))}"
            )
