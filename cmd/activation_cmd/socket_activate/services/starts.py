"""What the processes of a service are started with: the descriptions that processes.execute carries out."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Self

import attrs

from activation_cmd.socket_activate.processes.start import IDENTITY, Start
from activation_cmd.socket_activate.units.accounts import account, home, variables
from activation_cmd.socket_activate.units.directories import directories
from activation_cmd.socket_activate.units.directories import variables as directory_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from activation_cmd.socket_activate.units.accounts import Account
    from activation_cmd.socket_activate.units.model import Command, ServiceUnit
    from activation_cmd.socket_activate.units.specifiers import Manager

# What tells of an activation or a manager. socket-activate may have been activated or managed itself.
OWN_VARIABLES = frozenset(
    [
        *("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID"),
        *("WATCHDOG_USEC", "FDSTORE", "MAINPID", "INVOCATION_ID", "JOURNAL_STREAM", "REMOTE_ADDR", "REMOTE_PORT"),
        "SYSTEMD_EXEC_PID",
    ]
)


@attrs.frozen(kw_only=True)
class Surroundings:
    """What the processes of all services have in common.

    Attributes:
        environment: the variables that every service finds in its environment.
        directory: where it runs if its unit does not say; None for where socket-activate does.
        manager: whose units these are.
        as_units: they are units of files: SIGPIPE is ignored, as IgnoreSIGPIPE= has it.
    """

    environment: Mapping[str, str]
    directory: str | None
    manager: Manager
    as_units: bool


@attrs.frozen
class Starts:
    """Describes the starts of one service.

    Attributes:
        variables: what is in its environment before all that its unit says.
    """

    unit: ServiceUnit
    surroundings: Surroundings
    variables: Mapping[str, str]
    _account: Account | None
    _home: str

    @classmethod
    def of(cls, unit: ServiceUnit, surroundings: Surroundings, variables: Mapping[str, str]) -> Self:
        """Look up the users and groups that the unit names.

        Raises:
            ValueError: one does not exist.
        """
        found = account(unit)
        return cls(unit, surroundings, variables, found, home(unit, found))

    @property
    def uid(self) -> int:
        """The user that the main process starts as."""
        ids = self._ids(self.unit.exec_start)
        return ids[1] if ids else os.geteuid()

    def main(
        self,
        files: Sequence[tuple[str, int]],
        stored: Sequence[tuple[str, int]],
        triggers: Sequence[int],
        notify_address: str | None,
    ) -> Start:
        """The start of the service itself.

        Args:
            files: its sockets, with their names.
            stored: what its store has.
            triggers: the descriptors whose clients it waits for; none to start at once.
            notify_address: of its notify socket, if it has one.
        """
        unit = self.unit
        environment = self._environment(secrets.token_hex(16))
        with_pid = ["SYSTEMD_EXEC_PID"]
        if notify_address:
            environment["NOTIFY_SOCKET"] = notify_address
            if unit.watchdog:
                environment["WATCHDOG_USEC"] = str(round(unit.watchdog * 1e6))
                with_pid.append("WATCHDOG_PID")
            if unit.store_maximum:
                environment["FDSTORE"] = str(unit.store_maximum)
        start = self._base(unit.exec_start, self._unit_environment(environment))
        passed = [*files, *stored]
        return start._replace(
            # A service whose standard streams are the socket is passed nothing else, as under inetd.
            files=[] if "socket" in self.streams else passed,
            triggers=triggers,
            with_pid=with_pid,
            standard=[_stream(each, passed) for each in self.streams],
            before=[self.control(each, environment[IDENTITY], notify_address) for each in unit.exec_start_pre],
        )

    def control(
        self, command: Command, identity: str, notify_address: str | None, more: Mapping[str, str] | None = None
    ) -> Start:
        """A command of ExecStartPre= or ExecReload=, which gets no sockets and rarely the notify socket."""
        environment = self._environment(identity)
        if notify_address and self.unit.notify_access in ("exec", "all"):
            environment["NOTIFY_SOCKET"] = notify_address
        start = self._base(command, self._unit_environment({**environment, **(more or {})}))
        # Streams that are to be a socket have none here, and those that copy such a one copy nothing.
        source, *others = self.streams
        standard = ["null" if source.startswith(_SOCKETS) else source]
        standard += ["inherit" if each.startswith(_SOCKETS) else each for each in others]
        return start._replace(with_pid=["SYSTEMD_EXEC_PID"], standard=[_stream(each, ()) for each in standard])

    @property
    def streams(self) -> tuple[str, str, str]:
        """The three standard streams, as the model has them."""
        return self.unit.standard_input, self.unit.standard_output, self.unit.standard_error

    def _environment(self, identity: str) -> dict[str, str]:
        """The variables that every process of a start finds, without the unit's own."""
        environment = {**self.surroundings.environment, IDENTITY: identity}
        for name in self.unit.pass_environment:
            if name in os.environ and name not in OWN_VARIABLES:
                environment.setdefault(name, os.environ[name])
        if self._account and self.unit.user:
            environment |= variables(self._account)
        return environment | directory_variables(self.unit, self.surroundings.manager) | dict(self.variables)

    def _unit_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Add the unit's own variables, except that it cannot replace INVOCATION_ID, by which processes are found."""
        return {**environment, **{name: value for name, value in self.unit.environment.items() if name != IDENTITY}}

    def _base(self, command: Command, environment: Mapping[str, str]) -> Start:
        """What all commands of the unit have in common."""
        unit = self.unit
        directory = unit.working_directory or self.surroundings.directory
        umask = 0o022 if self.surroundings.as_units and self.surroundings.manager == "system" else None
        return Start(
            program=command.program,
            arguments=command.arguments,
            replace_variables=command.replace_variables,
            environment=environment,
            environment_files=unit.environment_files,
            unset=unit.unset_environment,
            directory=self._home if directory == "~" else directory,
            directory_optional=unit.working_directory_optional,
            groups=self._groups(command),
            account=self._ids(command),
            ignore_sigpipe=self.surroundings.as_units,
            umask=umask if unit.umask is None else unit.umask,
            directories=directories(unit, self.surroundings.manager),
            owner=(self._account.uid, self._account.gid) if self._account else (os.getuid(), os.getgid()),
            optional=command.ignore_failure,
        )

    def _ids(self, command: Command) -> tuple[str, int, int] | None:
        if command.privileged or not self._account:
            return None
        return self._account.name, self._account.uid, self._account.gid

    def _groups(self, command: Command) -> Sequence[int] | None:
        """The groups of the user, and those of SupplementaryGroups= unless a prefix of the command forbids that."""
        if not self._account:
            return None
        if command.privileged or not self._account.more:
            return self._account.groups
        return sorted({*(self._account.groups or ()), *self._account.more})


_SOCKETS = ("socket", "fd:")


def _stream(stream: str, files: Sequence[tuple[str, int]]) -> int | str | None:
    """A standard stream as :class:`Start` has it."""
    if stream.startswith("fd:"):
        return next((number for name, number in files if name == stream[3:]), -1)
    if stream == "socket":
        return files[0][1] if files else None
    return {"null": -1, "inherit": None}.get(stream, stream)
