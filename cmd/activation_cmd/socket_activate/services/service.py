"""A service: what its starts are made of, and its one life at a time."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

import activation
from activation_cmd.common.stdio import say
from activation_cmd.socket_activate.processes.execute import Start
from activation_cmd.socket_activate.processes.executor import IDENTITY
from activation_cmd.socket_activate.units.accounts import account, home, variables
from activation_cmd.socket_activate.units.directories import directories, runtime_paths
from activation_cmd.socket_activate.units.directories import variables as directory_variables

from .life import Life
from .limits import LimitedSay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from activation_cmd.socket_activate.processes.launch import Child
    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.units.accounts import Account
    from activation_cmd.socket_activate.units.model import Command, ServiceUnit
    from activation_cmd.socket_activate.units.results import End
    from activation_cmd.socket_activate.units.specifiers import Manager

    from .notify_socket import NotifySocket, NotifySockets

# What tells of an activation or a manager, of which socket-activate itself may have been the object.
OWN_VARIABLES = frozenset(
    [
        *("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_PID"),
        *("WATCHDOG_USEC", "FDSTORE", "MAINPID", "INVOCATION_ID", "JOURNAL_STREAM", "REMOTE_ADDR", "REMOTE_PORT"),
        "SYSTEMD_EXEC_PID",
    ]
)


@attrs.frozen
class Surroundings:
    """What all services of a run have in common.

    Attributes:
        environment: what every service finds in its environment.
        directory: where it runs if its unit does not say; None for where socket-activate does.
        manager: whose units these are.
        as_units: they are units of files: SIGPIPE is ignored, as IgnoreSIGPIPE= has it.
    """

    reaper: Reaper
    notify_sockets: NotifySockets
    environment: Mapping[str, str]
    directory: str | None
    manager: Manager
    as_units: bool


@attrs.define(eq=False)
class Service:
    """A service and what it is passed.

    Attributes:
        name: for messages.
        files: its sockets, with their names.
        standard_socket: what standard streams that say ``socket`` are connected to.
        variables: what is to be in its environment before all that its unit says.
    """

    unit: ServiceUnit
    surroundings: Surroundings
    files: Sequence[tuple[str, int]]
    name: str
    variables: Mapping[str, str] = attrs.field(factory=dict)
    store: activation.DescriptorStore = attrs.field(init=False)
    life: Life | None = attrs.field(default=None, init=False)
    _notify: NotifySocket | None = attrs.field(init=False)
    _account: Account | None = attrs.field(init=False)
    _home: str = attrs.field(init=False)
    _say_status: LimitedSay = attrs.field(init=False)
    _complain: LimitedSay = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        if self._has_standard_socket and len(self.files) != 1:
            raise ValueError(f"{self.unit.name}: standard streams can be one socket, not {len(self.files)}")
        self._account = account(self.unit)
        self._home = home(self.unit, self._account)
        self._say_status, self._complain = LimitedSay(self.say), LimitedSay(self.say)
        self._notify = None
        if self.unit.notify_access != "none":
            ids = self._ids(self.unit.exec_start)
            self._notify = self.surroundings.notify_sockets.make(ids[1] if ids else os.geteuid())
        self.store = activation.DescriptorStore(self.unit.store_maximum)

    def close(self) -> None:
        """Let go of the store and the notifications. The files are whoever's made them."""
        self.store.close()
        if self._notify:
            self._notify.close()

    def say(self, message: str) -> None:
        """Print a line about this service."""
        say("socket-activate", f"{self.name}: {message}")

    def start(self, triggers: Sequence[int] = ()) -> Start:
        """What the next start needs."""
        blocking = self._has_standard_socket or not self.unit.non_blocking
        for _, number in self.files:
            os.set_blocking(number, blocking)  # the last run may have changed what all share
        unit = self.unit
        environment = self._environment(secrets.token_hex(16))
        with_pid = ["SYSTEMD_EXEC_PID"]
        if self._notify:
            environment["NOTIFY_SOCKET"] = self._notify.address
            if unit.watchdog:
                environment["WATCHDOG_USEC"] = str(round(unit.watchdog * 1e6))
                with_pid.append("WATCHDOG_PID")
            if unit.store_maximum:
                environment["FDSTORE"] = str(unit.store_maximum)
        files = [*self.files, *self.store.files()]
        start = self._base(unit.exec_start, self._unit_environment(environment))
        return start._replace(
            # Whose standard streams are the socket is passed no other, as inetd did it.
            files=[] if self._has_standard_socket else files,
            triggers=triggers,
            with_pid=with_pid,
            standard=[self._stream(each, files) for each in self._streams],
            before=[self._control(command, environment[IDENTITY]) for command in unit.exec_start_pre],
        )

    def _environment(self, identity: str) -> dict[str, str]:
        """What every process of a start finds, before all that the unit says."""
        environment = {**self.surroundings.environment, IDENTITY: identity}
        for name in self.unit.pass_environment:
            if name in os.environ and name not in OWN_VARIABLES:
                environment.setdefault(name, os.environ[name])
        if self._account and self.unit.user:
            environment |= variables(self._account)
        return environment | directory_variables(self.unit, self.surroundings.manager) | dict(self.variables)

    def _unit_environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        """With what the unit says, but for what the processes of a start are told by."""
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

    def _control(self, command: Command, identity: str, more: Mapping[str, str] | None = None) -> Start:
        """What a command of ExecStartPre= or ExecReload= needs: none of the sockets, and rarely the notify socket."""
        environment = self._environment(identity)
        if self._notify and self.unit.notify_access in ("exec", "all"):
            environment["NOTIFY_SOCKET"] = self._notify.address
        start = self._base(command, self._unit_environment({**environment, **(more or {})}))
        # What is to be a socket is none here, and what copies it copies none.
        standard = ["null" if each.startswith(("socket", "fd:")) else each for each in self._streams[:1]]
        standard += ["inherit" if each.startswith(("socket", "fd:")) else each for each in self._streams[1:]]
        return start._replace(with_pid=["SYSTEMD_EXEC_PID"], standard=[self._stream(each, ()) for each in standard])

    def _ids(self, command: Command) -> tuple[str, int, int] | None:
        if command.privileged or not self._account:
            return None
        return self._account.name, self._account.uid, self._account.gid

    def _groups(self, command: Command) -> Sequence[int] | None:
        """Those of the user, and those of SupplementaryGroups= unless a prefix of the command is against that."""
        if not self._account:
            return None
        if command.privileged or not self._account.more:
            return self._account.groups
        return sorted({*(self._account.groups or ()), *self._account.more})

    @property
    def _streams(self) -> tuple[str, str, str]:
        return self.unit.standard_input, self.unit.standard_output, self.unit.standard_error

    @property
    def _has_standard_socket(self) -> bool:
        return "socket" in self._streams

    def _stream(self, stream: str, files: Sequence[tuple[str, int]]) -> int | str | None:
        """As :class:`Start` has it."""
        if stream.startswith("fd:"):
            return next((number for name, number in files if name == stream[3:]), -1)
        if stream == "socket":
            return self.files[0][1] if self.files else None
        return {"null": -1, "inherit": None}.get(stream, stream)

    def begin(self, child: Child) -> Life:
        """A child has become this service: what there is to ask of it from now on. To be followed by :meth:`live`."""
        assert child.start
        identity = f"{IDENTITY}={child.start.environment[IDENTITY]}".encode()
        self.life = Life(
            unit=self.unit,
            child=child,
            identity=identity,
            reaper=self.surroundings.reaper,
            receiver=self._notify.receiver if self._notify else None,
            store=self.store,
            control=self._reload_starts,
            say=self.say,
            say_status=self._say_status,
            complain=self._complain,
        )
        return self.life

    async def live(self) -> End:
        """Follow what began, to its end."""
        assert self.life
        try:
            return await self.life.run()
        finally:
            self.life = None

    def _reload_starts(self, main: int) -> list[Start]:
        identity = os.fsdecode(self.life.identity).partition("=")[2] if self.life else secrets.token_hex(16)
        return [self._control(command, identity, {"MAINPID": str(main)}) for command in self.unit.exec_reload]

    def remove_runtime_directories(self, *, again: bool) -> None:
        """Remove the folders of RuntimeDirectory= when it has ended, as RuntimeDirectoryPreserve= says.

        Args:
            again: it is started again by itself.
        """
        import shutil

        preserve = self.unit.runtime_directory_preserve
        if preserve == "yes" or (preserve == "restart" and again):
            return
        for path in runtime_paths(self.unit, self.surroundings.manager):
            with suppress(OSError):
                if os.path.islink(path):
                    os.unlink(path)
                else:
                    shutil.rmtree(path)

    def release_store(self, *, again: bool) -> None:
        """Close what is stored when it has ended, as FileDescriptorStorePreserve= says."""
        preserve = self.unit.store_preserve
        if preserve == "no" or (preserve == "restart" and not again):
            self.store.clear()


def reloads(unit: ServiceUnit) -> bool:
    """Whether the unit says how the service is told to read its configuration again."""
    return unit.type == "notify-reload" or bool(unit.exec_reload)
