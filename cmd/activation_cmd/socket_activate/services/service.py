"""A service: what its starts are made of, and its one life at a time."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import attrs

import activation
from activation_cmd.common.stdio import say
from activation_cmd.socket_activate.processes.execute import Start
from activation_cmd.socket_activate.processes.executor import IDENTITY
from activation_cmd.socket_activate.units.accounts import account, home, variables

from .life import Life
from .limits import LimitedSay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from activation_cmd.socket_activate.processes.launch import Child
    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.units.accounts import Account
    from activation_cmd.socket_activate.units.model import Command, ServiceUnit
    from activation_cmd.socket_activate.units.results import End

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
        as_units: they are units of files: SIGPIPE is ignored, as IgnoreSIGPIPE= has it.
    """

    reaper: Reaper
    notify_sockets: NotifySockets
    environment: Mapping[str, str]
    directory: str | None
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
        return self._start(triggers)

    def _start(self, triggers: Sequence[int] = ()) -> Start:
        unit, with_pid = self.unit, ["SYSTEMD_EXEC_PID"]
        environment = {**self.surroundings.environment, IDENTITY: secrets.token_hex(16)}
        for name in unit.pass_environment:
            if name in os.environ and name not in OWN_VARIABLES:
                environment.setdefault(name, os.environ[name])
        if self._account and unit.user:
            environment |= variables(self._account)
        environment |= self.variables
        if self._notify:
            environment["NOTIFY_SOCKET"] = self._notify.address
            if unit.watchdog:
                environment["WATCHDOG_USEC"] = str(round(unit.watchdog * 1e6))
                with_pid.append("WATCHDOG_PID")
            if unit.store_maximum:
                environment["FDSTORE"] = str(unit.store_maximum)
        # The unit may say otherwise, but for what its processes are told by.
        environment |= {name: value for name, value in unit.environment.items() if name != IDENTITY}
        directory = unit.working_directory or self.surroundings.directory
        if directory == "~":
            directory = self._home
        standard = (unit.standard_input, unit.standard_output, unit.standard_error)
        command = unit.exec_start
        return Start(
            program=command.program,
            arguments=command.arguments,
            replace_variables=command.replace_variables,
            # Whose standard streams are the socket is passed no other, as inetd did it.
            files=[] if self._has_standard_socket else [*self.files, *self.store.files()],
            triggers=triggers,
            environment=environment,
            environment_files=unit.environment_files,
            unset=unit.unset_environment,
            with_pid=with_pid,
            standard=[{"null": -1, "inherit": None, "socket": self._standard_socket()}[stream] for stream in standard],
            directory=directory,
            directory_optional=unit.working_directory_optional,
            groups=self._account.groups if self._account else None,
            account=self._ids(command),
            ignore_sigpipe=self.surroundings.as_units,
        )

    def _ids(self, command: Command) -> tuple[str, int, int] | None:
        if command.privileged or not self._account:
            return None
        return self._account.name, self._account.uid, self._account.gid

    @property
    def _has_standard_socket(self) -> bool:
        return "socket" in (self.unit.standard_input, self.unit.standard_output, self.unit.standard_error)

    def _standard_socket(self) -> int | None:
        return self.files[0][1] if self.files else None

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
        start = self._start()
        environment = {**start.environment, "MAINPID": str(main)}
        if self.unit.notify_access not in ("exec", "all"):
            environment.pop("NOTIFY_SOCKET", None)
        environment.pop("WATCHDOG_USEC", None)
        if self.life:
            environment[IDENTITY] = os.fsdecode(self.life.identity).partition("=")[2]
        return [
            start._replace(
                program=command.program,
                arguments=command.arguments,
                replace_variables=command.replace_variables,
                account=self._ids(command),
                environment=environment,
                files=[],
                with_pid=[],
                standard=(-1, None, None),
            )
            for command in self.unit.exec_reload
        ]


def reloads(unit: ServiceUnit) -> bool:
    """Whether the unit says how the service is told to read its configuration again."""
    return unit.type == "notify-reload" or bool(unit.exec_reload)
