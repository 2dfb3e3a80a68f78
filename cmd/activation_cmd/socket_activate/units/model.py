"""The model: what a pair of units says, whether it comes from files or from a command line."""

from __future__ import annotations

import signal
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .names import UnitName

Kind = Literal["stream", "datagram", "seqpacket", "fifo", "special", "netlink", "mqueue"]
Type = Literal["simple", "exec", "notify", "notify-reload"]
Restart = Literal["no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"]
FailureMode = Literal["terminate", "abort", "kill"]
Access = Literal["none", "main", "exec", "all"]
KillMode = Literal["control-group", "mixed", "process"]
Preserve = Literal["no", "restart", "yes"]

ACCEPTED = "connection"
"""The name of what Accept=yes passes, unless FileDescriptorName= says another."""


class Listen(NamedTuple):
    """One line of Listen...=, or one -l.

    Attributes:
        kind: which of the directives it is.
        text: the address, path or name, as written and with its specifiers replaced.
        where: the file and line, ``foobar.socket:4``; nothing for a command line.
    """

    kind: Kind
    text: str
    where: str


class SocketUnit(NamedTuple):
    """What systemd.socket(5) has that a service or a client can observe. Times in seconds, sizes in bytes."""

    name: str
    listen: Sequence[Listen]
    socket_mode: int = 0o666
    directory_mode: int = 0o755
    socket_user: str = ""
    socket_group: str = ""
    backlog: int = 4096
    bind_ipv6_only: Literal["default", "both", "ipv6-only"] = "default"
    free_bind: bool = False
    reuse_port: bool = False
    no_delay: bool = False
    keep_alive: bool = False
    keep_alive_time: int | None = None
    keep_alive_interval: int | None = None
    keep_alive_probes: int | None = None
    defer_accept: int | None = None
    broadcast: bool = False
    pass_credentials: bool = False
    pass_security: bool = False
    pass_pidfd: bool = False
    accept_file_descriptors: bool = True
    pass_packet_info: bool = False
    protocol: Literal["", "udplite", "sctp", "mptcp"] = ""
    flush_pending: bool = False
    timestamping: Literal["off", "us", "ns"] = "off"
    priority: int | None = None
    mark: int | None = None
    ip_tos: int | None = None
    ip_ttl: int | None = None
    tcp_congestion: str = ""
    transparent: bool = False
    bind_to_device: str = ""
    receive_buffer: int | None = None
    send_buffer: int | None = None
    pipe_size: int | None = None
    writable: bool = False
    message_queue_max_messages: int | None = None
    message_queue_message_size: int | None = None
    symlinks: Sequence[str] = ()
    remove_on_stop: bool = True
    descriptor_names: Sequence[str] = ()
    """One for each Listen; "" is no name. Unit files give all sockets the same name."""
    accept: bool = False
    max_connections: int = 64
    max_connections_per_source: int = 0
    """Per host of the clients; 0 is no limit."""
    trigger_limit_interval: float = 2.0
    trigger_limit_burst: int = 20
    service: str = ""
    """The service's name; with Accept=yes the template's, ``foobar@.service``."""


class Command(NamedTuple):
    """One command line of Exec...=.

    Attributes:
        program: what to execute: a path, or a name that is looked up in the PATH.
        arguments: all of them, argument 0 first, ``$NAME`` not yet replaced.
        ignore_failure: the prefix ``-``.
        replace_variables: false with the prefix ``:``.
        privileged: User= and Group= do not apply, because of the prefix ``+``, ``!`` or ``!!``.
    """

    program: str
    arguments: Sequence[str]
    ignore_failure: bool = False
    replace_variables: bool = True
    privileged: bool = False
    where: str = ""


class EnvironmentFile(NamedTuple):
    """A file of ``NAME=value`` lines, read at each start; an optional one (prefix ``-``) may be missing."""

    path: str
    optional: bool


class ServiceUnit(NamedTuple):
    """What of systemd.service(5) and systemd.exec(5) a service can observe. Times in seconds, None for infinity."""

    name: str
    exec_start: Command
    type: Type = "simple"
    exec_start_pre: Sequence[Command] = ()
    exec_reload: Sequence[Command] = ()
    environment: Mapping[str, str] = MappingProxyType({})
    environment_files: Sequence[EnvironmentFile] = ()
    pass_environment: Sequence[str] = ()
    unset_environment: Sequence[str] = ()
    """Names, and ``NAME=value`` for what is to go only if it has that value."""
    working_directory: str | None = None
    """An absolute path, or ``~`` for the user's home."""
    working_directory_optional: bool = False
    user: str = ""
    group: str = ""
    supplementary_groups: Sequence[str] = ()
    umask: int | None = None
    """None for the manager's: of a system 0022, of a user what socket-activate has."""
    standard_input: str = "null"
    """As :mod:`.streams` has it; so are the next two."""
    standard_output: str = "inherit"
    standard_error: str = "inherit"
    sockets: Sequence[UnitName] = ()
    """Socket units whose descriptors it is passed although they start another service."""
    runtime_directory: Sequence[str] = ()
    """Relative paths, with colons before the symlinks to them; so are the next four."""
    state_directory: Sequence[str] = ()
    cache_directory: Sequence[str] = ()
    logs_directory: Sequence[str] = ()
    configuration_directory: Sequence[str] = ()
    runtime_directory_mode: int = 0o755
    state_directory_mode: int = 0o755
    cache_directory_mode: int = 0o755
    logs_directory_mode: int = 0o755
    configuration_directory_mode: int = 0o755
    runtime_directory_preserve: Preserve = "no"
    restart: Restart = "no"
    restart_sec: float | None = 0.1
    start_limit_interval: float | None = 10.0
    start_limit_burst: int = 5
    restart_prevented: Collection[int] = ()
    """Exit statuses, and signals as negative numbers; so are the next two."""
    restart_forced: Collection[int] = ()
    success_statuses: Collection[int] = ()
    timeout_start: float | None = 90.0
    timeout_stop: float | None = 90.0
    timeout_abort: float | None = 90.0
    timeout_start_failure_mode: FailureMode = "terminate"
    timeout_stop_failure_mode: FailureMode = "terminate"
    runtime_max: float | None = None
    runtime_randomized_extra: float = 0.0
    kill_signal: int = signal.SIGTERM
    watchdog_signal: int = signal.SIGABRT
    watchdog: float | None = None
    kill_mode: KillMode = "control-group"
    notify_access: Access = "none"
    store_maximum: int = 0
    store_preserve: Preserve = "restart"
    non_blocking: bool = False


class Pair(NamedTuple):
    """A socket unit and its service.

    Attributes:
        service: with Accept=yes, an example of what the template makes.
        instance: with Accept=yes, makes the service of a connection. Its argument is the instance's name, between @ and
            ``.service``. It raises ValueError if the template cannot have such an instance.
    """

    socket: SocketUnit
    service: ServiceUnit
    instance: Callable[[str], ServiceUnit] | None = None

    @property
    def alone(self) -> bool:
        """Whether this is a service that no socket unit starts. Its socket listens on nothing, and has its name."""
        return self.socket.name == self.service.name
