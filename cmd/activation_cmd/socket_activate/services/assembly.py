"""From what listens to what serves it: the services, of which some share sockets."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import attrs

from .accepting import Accepting
from .notify_socket import NotifySockets
from .on_demand import OnDemand
from .service import Service
from .starts import OWN_VARIABLES, Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack
    from typing import TypeAlias

    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.processes.spare import Spare
    from activation_cmd.socket_activate.sockets.listening import Group, Listening
    from activation_cmd.socket_activate.units.specifiers import Manager

    Unit: TypeAlias = OnDemand | Accepting


@attrs.frozen(kw_only=True)
class Options:
    """What holds for all units of a run.

    Attributes:
        now: services are started at once, not by their first clients.
        environment: what services find in theirs.
        directory: where they run if nothing says; None for here.
        manager: whose units they are.
        as_units: they are units of files; else there is one, of a command line.
        watch: paths; a change in one restarts what runs.
    """

    now: bool = False
    environment: Mapping[str, str]
    directory: str | None = None
    manager: Manager
    as_units: bool
    watch: Sequence[str] = ()


@attrs.define
class Assembly:
    """Makes the services of all sockets, before anything starts.

    Attributes:
        units: what is served.
    """

    options: Options
    listening: Listening
    reaper: Reaper
    spare: Spare
    closing: ExitStack
    units: list[Unit] = attrs.field(factory=list)

    def make(self) -> None:
        """Make the services that the sockets start.

        Raises:
            OSError, ValueError: that of a command line cannot be made.
        """
        notify_sockets = self.closing.enter_context(NotifySockets(self.reaper.executor.announce))
        surroundings = Surroundings(
            environment={name: value for name, value in self.options.environment.items() if name not in OWN_VARIABLES},
            directory=self.options.directory,
            manager=self.options.manager,
            as_units=self.options.as_units,
        )
        for group in self.listening.groups:
            with self.listening.alone(group.pairs[0]):
                self.units.append(self._unit(group, surroundings, notify_sockets))
        self._introduce()

    def _unit(self, group: Group, surroundings: Surroundings, notify_sockets: NotifySockets) -> Unit:
        """Make what serves the sockets of one service."""
        sharing, sockets, made = group.pairs, group.sockets, self.listening.made
        first, names = sharing[0], [pair.socket.name for pair in sharing]
        triggers = [one for name in names for one in made[name]]
        if first.socket.accept:
            return Accepting(first, sockets, triggers, surroundings, self.reaper, notify_sockets)
        inherited = [str(name) for name in first.service.sockets]
        files = [
            (one.name, one.descriptor)
            for name, several in made.items()
            if name in {*names, *inherited}
            for one in several
        ]
        if not files:
            raise ValueError("none of the sockets in its Sockets= could be made")
        service = Service(first.service, surroundings, self.reaper, notify_sockets, files, first.service.name)
        self.closing.callback(service.close)
        flushing = [one.descriptor for pair in sharing if pair.socket.flush_pending for one in made[pair.socket.name]]
        descriptors = [one.descriptor for one in triggers]
        patient = not self.options.as_units
        return OnDemand(service, first.socket, sockets, descriptors, self.spare, patient=patient, flushed=flushing)

    def _introduce(self) -> None:
        """Let services know of each other that are passed the same sockets."""
        passed: dict[int, list[OnDemand]] = {}
        for unit in self.units:
            if isinstance(unit, OnDemand):
                for number in {number for _, number in unit.service.files}:
                    passed.setdefault(number, []).append(unit)
        for number, services in passed.items():
            for one, other in permutations(services, 2):
                one.rivals.setdefault(number, []).append(other)
