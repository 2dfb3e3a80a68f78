"""Reading the socket units that are named on the command line, and the service of each."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from .assigned import assigned
from .building import instance, service_unit, socket_unit
from .checks import passing_problems, twice
from .files import own_name, read_unit
from .model import Pair, SocketUnit
from .names import UnitName
from .socket_settings import SOCKET
from .specifiers import Unit, own_manager
from .syntax import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .files import UnitFile
    from .model import ServiceUnit
    from .specifiers import Manager

    Say = Callable[[Problem], None]

_EXAMPLE = "0"
"""The name of an instance."""


def load(paths: Sequence[str], manager: Manager | None = None) -> tuple[list[Pair], list[Problem]]:
    """Read socket units and the service of each.

    Args:
        paths: of the ``.socket`` files. A service, a template, drop-ins are looked for in the same folder, and where a
            link leads to. The sockets in Sockets= of a service are read, too. A ``.service`` file is for a service that
            none of the sockets starts, but that has some in Sockets=; it may be an instance of a template there.
        manager: whose units these are; by default the system's for root, a user's for everybody else.

    Returns:
        The pairs that have no error, in order, and all that is to be said. Sockets of one service share one
        ServiceUnit.
    """
    loading = _Loading(manager or own_manager())
    for path in paths:
        loading.load(path)
    loading.load_inherited()
    pairs = loading.checked()
    return pairs, loading.problems


class _Loading:
    """What was read so far."""

    def __init__(self, manager: Manager) -> None:
        self.manager: Manager = manager
        self.problems: list[Problem] = []
        self._pairs: list[Pair] = []
        self._named: dict[UnitName, str] = {}
        # Each service, and where its settings are.
        self._services: dict[str, tuple[ServiceUnit, dict[str, str]] | None] = {}
        # By the name of a service, where it was looked for.
        self._folders: dict[str, Sequence[str]] = {}

    def load(self, path: str) -> None:
        """Read a socket unit and its service, or a service that others share their sockets with."""
        name = _unit_name(path, self.problems.append)
        if name is None:
            return
        own = own_name(path, name)
        if before := self._named.get(own):
            if os.path.realpath(before) == os.path.realpath(path):
                self.problems.append(Problem(path, "is listed twice", "warning"))
            else:
                text = f"is another {own} than {before}; expected one unit of each name"
                self.problems.append(Problem(path, text))
            return
        self._named[own] = path
        if name.type == "service":
            self._load_alone(path, name)
            return
        file = read_unit([os.path.dirname(path)], name, self.problems.append, "expected the path of a socket unit")
        if file and (pair := self._pair(file)):
            self._pairs.append(pair)

    def _load_alone(self, path: str, name: UnitName) -> None:
        service = self._service([os.path.dirname(path)], name, "expected the path of a service unit")
        if service and not service.sockets:
            text = "has no Sockets=, so that nothing starts it; expected the .socket file that is for it"
            self.problems.append(Problem(path, text))
        elif service:
            self._pairs.append(Pair(SocketUnit(name=service.name, listen=(), service=service.name), service))

    def load_inherited(self) -> None:
        """Read the sockets that services name in Sockets=, as systemd starts them with the service."""
        for pair in self._pairs:  # which grows meanwhile
            for name in pair.service.sockets:
                paths = [os.path.join(folder, str(name)) for folder in self._folders[pair.service.name]]
                path = next(filter(os.path.lexists, paths), None)
                if path and name not in self._named:
                    self.load(path)
                elif name not in self._named:
                    self._named[name] = ""
                    found = self._services[pair.service.name]
                    where = found[1]["sockets"] if found else paths[0]
                    text = f"Sockets= names {name}, which is not there; the service goes without it"
                    self.problems.append(Problem(where, text, "warning"))

    def _pair(self, file: UnitFile) -> Pair | None:
        say = self.problems.append
        found = assigned(file, Unit(file.name, file.path, self.manager), SOCKET, say)
        accept = found.fields.get("accept", False)
        named = found.fields.pop("service", None)
        service_name = named or UnitName(file.name.prefix, "" if accept else file.name.instance, "service")
        expected = f"{file.path} is for it; expected it next to that" + ("" if accept else ", or another in Service=")
        socket = socket_unit(file, found, say)
        template = read_unit(file.folders, service_name, say, expected) if accept else None
        service = self._example(template) if accept else self._service(file.folders, service_name, expected)
        if not socket or not service:
            return None
        socket = socket._replace(service=str(service_name) if accept else service.name)
        make_instance = partial(instance, template, self.manager) if template else None
        return Pair(socket, service, make_instance)

    def _example(self, template: UnitFile | None) -> ServiceUnit | None:
        """A service of the template, which shows what is wrong with it."""
        if template is None:
            return None
        name = template.name._replace(instance=_EXAMPLE)
        made = service_unit(template, name, self.manager, self.problems.append)
        if made:
            self._services[made[0].name] = made
            self._folders[made[0].name] = template.folders
        return made[0] if made else None

    def _service(self, folders: Sequence[str], name: UnitName, expected: str) -> ServiceUnit | None:
        """The service of that name; the same one for all its sockets."""
        own = next((own_name(path, name) for each in folders if os.path.lexists(path := f"{each or '.'}/{name}")), name)
        if str(own) not in self._services:
            file = read_unit(folders, name, self.problems.append, expected)
            made = service_unit(file, file.name, self.manager, self.problems.append) if file else None
            self._services[str(own)] = made
            if file:
                self._folders[str(own)] = file.folders
        found = self._services[str(own)]
        return found[0] if found else None

    def checked(self) -> list[Pair]:
        """The pairs, of which those are left out that have an error."""
        wrong: set[str] = set()
        by_service: dict[int, list[Pair]] = {}
        for pair in self._pairs:
            by_service.setdefault(id(pair.service), []).append(pair)
        by_name = [(UnitName.parse(pair.socket.name), pair.socket) for pair in self._pairs]
        for name, found in self._services.items():
            if found is None:
                continue
            service, where = found
            own = by_service.get(id(service), [])
            inherited = [each for socket, each in by_name if socket in service.sockets] if service.sockets else []
            sockets = [pair.socket for pair in own] + [each for each in inherited if each.service != service.name]
            accept = any(pair.socket.accept for pair in own)
            problems = list(passing_problems(service, where, sockets, accept=accept)) if own else []
            if own and all(pair.alone for pair in own) and all(each.accept for each in inherited):
                text = "Sockets= names no socket that starts another service, with which this one could start"
                problems.append(Problem(where["sockets"], text))
            self.problems += problems
            if problems:
                wrong.add(name)
        double = list(twice((line, pair.socket.reuse_port) for pair in self._pairs for line in pair.socket.listen))
        self.problems += double
        places = {problem.where for problem in double}
        started = {pair.service.name for pair in self._pairs if not pair.alone}
        return [
            pair
            for pair in self._pairs
            if pair.service.name not in wrong
            and not (pair.alone and pair.service.name in started)
            and places.isdisjoint(line.where for line in pair.socket.listen)
        ]


def _unit_name(path: str, say: Say) -> UnitName | None:
    try:
        name = UnitName.parse(os.path.basename(path))
    except ValueError as error:
        say(Problem(path, f"cannot be a unit; {error}"))
        return None
    if name.type not in ("socket", "service") or name.instance == "":
        text = "expected a file such as foobar.socket, foobar@instance.socket or foobar@instance.service"
        say(Problem(path, f"is no unit to start; {text}"))
        return None
    return name
