"""From pairs of units to what serves them: all sockets first, then the services, of which some share sockets."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from itertools import permutations
from typing import TYPE_CHECKING

import attrs

from activation_cmd.common.stdio import reason, say
from activation_cmd.socket_activate.sockets.making import MadeSockets

from .accepting import Accepting
from .notify_socket import NotifySockets
from .on_demand import OnDemand
from .service import Service
from .starts import OWN_VARIABLES, Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.processes.spare import Spare
    from activation_cmd.socket_activate.sockets.making import Made
    from activation_cmd.socket_activate.units.model import Pair
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
    """Makes everything that listens, before anything starts.

    Attributes:
        units: what is served.
        failed: a unit of a file could not be made; the others live on.
    """

    options: Options
    reaper: Reaper
    spare: Spare
    closing: ExitStack
    units: list[Unit] = attrs.field(factory=list)
    failed: bool = False
    listening: int = 0
    """On how many addresses."""
    _made: dict[str, list[Made]] = attrs.field(factory=dict)
    """By the name of the socket unit."""

    def make(self, pairs: Sequence[Pair]) -> None:
        """Make all sockets, and the services that they start.

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
        sockets: dict[int, MadeSockets] = {}
        groups: dict[int, list[Pair]] = {}
        for pair in pairs:
            key = id(pair if pair.socket.accept else pair.service)
            if key not in sockets:
                sockets[key] = self.closing.enter_context(MadeSockets(self.reaper.executor.announce))
            with self._alone(pair):
                self._made[pair.socket.name] = sockets[key].make(pair.socket)
                groups.setdefault(key, []).append(pair)
                for listen in pair.socket.listen:
                    say("socket-activate", f"listening on {listen.text}")
                self.listening += len(pair.socket.listen)
        for key, sharing in groups.items():
            with self._alone(sharing[0]):
                self.units.append(self._unit(sharing, sockets[key], surroundings, notify_sockets))
        self._introduce()

    @contextmanager
    def _alone(self, pair: Pair) -> Iterator[None]:
        """In this block, an error fails the unit of a file and no other, as under systemd."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not self.options.as_units:
                raise
            say("socket-activate", f"{pair.socket.name} failed: {reason(error)}")
            self.failed = True

    def _unit(
        self,
        sharing: Sequence[Pair],
        sockets: MadeSockets,
        surroundings: Surroundings,
        notify_sockets: NotifySockets,
    ) -> Unit:
        """Make what serves the sockets of one service."""
        first, names = sharing[0], [pair.socket.name for pair in sharing]
        triggers = [one for name in names for one in self._made[name]]
        if first.socket.accept:
            return Accepting(first, sockets, triggers, surroundings, self.reaper, notify_sockets)
        inherited = [str(name) for name in first.service.sockets]
        files = [
            (one.name, one.descriptor)
            for name, made in self._made.items()
            if name in {*names, *inherited}
            for one in made
        ]
        if not files:
            raise ValueError("none of the sockets in its Sockets= could be made")
        service = Service(first.service, surroundings, self.reaper, notify_sockets, files, first.service.name)
        self.closing.callback(service.close)
        flushing = [
            one.descriptor for pair in sharing if pair.socket.flush_pending for one in self._made[pair.socket.name]
        ]
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
