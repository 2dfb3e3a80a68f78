"""The settings that are done here: each key, the field of the model that it fills, and how its value is read."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import attrs

from . import values
from .command_lines import commands, unknown_escapes
from .environment import name_or_variable, variable, variable_name
from .expansion import WHITESPACE
from .model import EnvironmentFile, Listen
from .results import status
from .specifiers import UnitName, replace_specifiers
from .syntax import words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .model import Command, Kind
    from .syntax import Level


@attrs.frozen
class Context:
    """What a value is read for.

    Attributes:
        name: the unit's.
        file: its unit file, whether the value is of a drop-in or not.
        where: the value's file and line.
        say: adds a problem here that is no error.
    """

    name: UnitName
    file: str
    where: str
    say: Callable[[str, Level], None]

    def replace(self, text: str) -> str:
        """Replace the specifiers."""
        return replace_specifiers(text, self.name, self.file)

    def words(self, value: str) -> list[str]:
        """Split a value into words and replace their specifiers."""
        self.warn_of_escapes(value)
        return [self.replace(word.text) for word in words(value)]

    def warn_of_escapes(self, value: str) -> None:
        """Say which escapes are none."""
        if unknown := unknown_escapes(value):
            self.say(rf"{' '.join(unknown)} is no escape and stays as it is; expected \\ for a backslash", "warning")


@attrs.frozen
class Setting:
    """How to read a key.

    Attributes:
        fields: of the model; what they are given is the same.
        read: makes the value of a text, or raises ValueError.
        repeated: each time it is given adds to a list, and an empty value empties it.
    """

    fields: Sequence[str]
    read: Callable[[str, Context], Any]
    repeated: bool = False


def _plain(field: str, read: Callable[[str], Any]) -> Setting:
    return Setting(field.split(), lambda text, _: read(text))


def _replaced(field: str, check: Callable[[str], Any] = str) -> Setting:
    """A text with specifiers; an empty one is none."""
    return Setting([field], lambda text, context: check(context.replace(text)) if text else "")


def _listen(kind: Kind, check: Callable[[str], str]) -> Setting:
    def read(text: str, context: Context) -> list[Listen]:
        return [Listen(kind, check(context.replace(text)), context.where)]

    return Setting(["listen"], read, repeated=True)


def _exec(field: str) -> Setting:
    def read(text: str, context: Context) -> list[Command]:
        context.warn_of_escapes(text)
        return commands(text, context.replace, context.where)

    return Setting([field], read, repeated=True)


def _symlinks(text: str, context: Context) -> list[str]:
    return [values.absolute_path(word) for word in context.words(text)]


def _variables(text: str, context: Context) -> list[tuple[str, str]]:
    return [variable(word) for word in context.words(text)]


def _names(text: str, context: Context) -> list[str]:
    return [variable_name(word) for word in context.words(text)]


_LAST: Final = frozenset(["LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"])


def _unset(text: str, context: Context) -> list[str]:
    words = [name_or_variable(word) for word in context.words(text)]
    if passed := [word for word in words if word.partition("=")[0] in _LAST]:
        context.say(f"{' '.join(passed)} cannot be unset here, for it is set last of all", "warning")
    return words


def _statuses(text: str, _context: Context) -> list[int]:
    return [status(word) for word in re.findall(f"[^{WHITESPACE}]+", text)]


def _environment_file(text: str, context: Context) -> list[EnvironmentFile]:
    path = values.absolute_path(context.replace(text.removeprefix("-")))
    return [EnvironmentFile(path, optional=text.startswith("-"))]


def _working_directory(text: str, context: Context) -> tuple[str | None, bool]:
    path = context.replace(text.removeprefix("-"))
    checked = path if path in ("", "~") else values.absolute_path(path)
    return checked or None, text.startswith("-")


def _stream(*choices: str, others: str, instead: str) -> Callable[[str, Context], str]:
    """A standard stream: one of the choices. What else systemd knows is ``journal`` for the model, and named."""

    def read(text: str, context: Context) -> str:
        if not re.fullmatch(others, text):
            return values.choice(*choices)(text)
        context.say(f"{text} is not done here; the service gets {instead}", "note")
        return "journal"

    return read


_INPUT: Final = _stream("null", "socket", others="tty|tty-force|tty-fail|data|file:.*|fd(:.*)?", instead="/dev/null")
_OUTPUT: Final = _stream(
    "inherit",
    "null",
    "socket",
    others=r"(journal|kmsg|syslog)(\+console)?|tty|(file|append|truncate):.*|fd(:.*)?",
    instead="that of socket-activate",
)


def _type(text: str) -> str:
    if text in ("forking", "oneshot", "dbus", "idle"):
        raise ValueError("it is not done here; expected simple, exec, notify or notify-reload")
    return values.choice("simple", "exec", "notify", "notify-reload")(text)


def _service_name(text: str, context: Context) -> UnitName:
    name = UnitName.parse(context.replace(text))
    if name.type != "service" or name.instance == "":
        raise ValueError("expected the name of a service such as foobar.service")
    return name


def _whole_seconds(text: str) -> int | None:
    """For the kernel, which takes no parts of seconds, and refuses what is too much; 0 leaves its own."""
    return int(min(values.time_span(text), values.INT_MAX + 1)) or None


def _size(text: str) -> int | None:
    return values.size(text) or None


def _count(text: str) -> int | None:
    return values.number(text) or None


def _abort_timeout(text: str) -> float | str | None:
    return _seconds(text) if text else ""


def _seconds(text: str) -> float | None:
    seconds = values.time_span(text)
    return None if math.isinf(seconds) else seconds


def _timeout(text: str) -> float | None:
    # Once 0 was the only way to say infinity.
    return _seconds(text) or None


SOCKET: Final[Mapping[str, Mapping[str, Setting]]] = {
    "Unit": {},
    "Socket": {
        "ListenStream": _listen("stream", values.address),
        "ListenDatagram": _listen("datagram", values.address),
        "ListenSequentialPacket": _listen("seqpacket", values.unix_address),
        "ListenFIFO": _listen("fifo", values.absolute_path),
        "ListenSpecial": _listen("special", values.absolute_path),
        "ListenNetlink": _listen("netlink", values.netlink),
        "ListenMessageQueue": _listen("mqueue", values.message_queue),
        "SocketMode": _plain("socket_mode", values.mode),
        "DirectoryMode": _plain("directory_mode", values.mode),
        "SocketUser": _replaced("socket_user", values.user),
        "SocketGroup": _replaced("socket_group", values.group),
        "Backlog": _plain("backlog", values.number),
        "BindIPv6Only": _plain("bind_ipv6_only", values.choice("default", "both", "ipv6-only")),
        "FreeBind": _plain("free_bind", values.boolean),
        "ReusePort": _plain("reuse_port", values.boolean),
        "NoDelay": _plain("no_delay", values.boolean),
        "KeepAlive": _plain("keep_alive", values.boolean),
        "KeepAliveTimeSec": _plain("keep_alive_time", _whole_seconds),
        "KeepAliveIntervalSec": _plain("keep_alive_interval", _whole_seconds),
        "KeepAliveProbes": _plain("keep_alive_probes", _count),
        "DeferAcceptSec": _plain("defer_accept", _whole_seconds),
        "Broadcast": _plain("broadcast", values.boolean),
        "PassCredentials": _plain("pass_credentials", values.boolean),
        "PassSecurity": _plain("pass_security", values.boolean),
        "PassPacketInfo": _plain("pass_packet_info", values.boolean),
        "Timestamping": _plain("timestamping", values.timestamping),
        "Priority": _plain("priority", values.number),
        "Mark": _plain("mark", values.mark),
        "IPTOS": _plain("ip_tos", values.type_of_service),
        "IPTTL": _plain("ip_ttl", values.number),
        "TCPCongestion": _plain("tcp_congestion", str),
        "Transparent": _plain("transparent", values.boolean),
        "BindToDevice": _plain("bind_to_device", values.device),
        "ReceiveBuffer": _plain("receive_buffer", _size),
        "SendBuffer": _plain("send_buffer", _size),
        "PipeSize": _plain("pipe_size", _size),
        "Writable": _plain("writable", values.boolean),
        "MessageQueueMaxMessages": _plain("message_queue_max_messages", _count),
        "MessageQueueMessageSize": _plain("message_queue_message_size", _count),
        "Symlinks": Setting(["symlinks"], _symlinks, repeated=True),
        "RemoveOnStop": _plain("remove_on_stop", values.boolean),
        "FileDescriptorName": _replaced("descriptor_name", values.descriptor_name),
        "Accept": _plain("accept", values.boolean),
        "MaxConnections": _plain("max_connections", values.number),
        "MaxConnectionsPerSource": _plain("max_connections_per_source", values.number),
        "TriggerLimitIntervalSec": _plain("trigger_limit_interval", values.time_span),
        "TriggerLimitBurst": _plain("trigger_limit_burst", values.number),
        "Service": Setting(["service"], _service_name),
    },
}

_START_LIMIT: Final = {
    "StartLimitInterval": _plain("start_limit_interval", _seconds),
    "StartLimitBurst": _plain("start_limit_burst", values.number),
}
SERVICE: Final[Mapping[str, Mapping[str, Setting]]] = {
    "Unit": _START_LIMIT | {"StartLimitIntervalSec": _START_LIMIT["StartLimitInterval"]},
    "Service": {
        "Type": _plain("type", _type),
        "ExecStart": _exec("exec_start"),
        "ExecReload": _exec("exec_reload"),
        "Environment": Setting(["environment"], _variables, repeated=True),
        "PassEnvironment": Setting(["pass_environment"], _names, repeated=True),
        "UnsetEnvironment": Setting(["unset_environment"], _unset, repeated=True),
        "EnvironmentFile": Setting(["environment_files"], _environment_file, repeated=True),
        "WorkingDirectory": Setting(["working_directory"], _working_directory),
        "User": _replaced("user", values.user),
        "Group": _replaced("group", values.group),
        "StandardInput": Setting(["standard_input"], _INPUT),
        "StandardOutput": Setting(["standard_output"], _OUTPUT),
        "StandardError": Setting(["standard_error"], _OUTPUT),
        "Restart": _plain(
            "restart",
            values.choice("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"),
        ),
        "RestartSec": _plain("restart_sec", _seconds),
        "RestartPreventExitStatus": Setting(["restart_prevented"], _statuses, repeated=True),
        "RestartForceExitStatus": Setting(["restart_forced"], _statuses, repeated=True),
        "SuccessExitStatus": Setting(["success_statuses"], _statuses, repeated=True),
        **_START_LIMIT,  # where they were before they came to [Unit]
        "TimeoutSec": _plain("timeout_start timeout_stop", _timeout),
        "TimeoutStartSec": _plain("timeout_start", _timeout),
        "TimeoutStopSec": _plain("timeout_stop", _timeout),
        "TimeoutAbortSec": _plain("timeout_abort", _abort_timeout),
        "TimeoutStartFailureMode": _plain("timeout_start_failure_mode", values.choice("terminate", "abort", "kill")),
        "TimeoutStopFailureMode": _plain("timeout_stop_failure_mode", values.choice("terminate", "abort", "kill")),
        "RuntimeMaxSec": _plain("runtime_max", _seconds),
        "RuntimeRandomizedExtraSec": _plain("runtime_randomized_extra", values.time_span),
        "KillSignal": _plain("kill_signal", values.signal_number),
        "WatchdogSignal": _plain("watchdog_signal", values.signal_number),
        "WatchdogSec": _plain("watchdog", _timeout),
        "NotifyAccess": _plain("notify_access", values.choice("none", "main", "exec", "all")),
        "FileDescriptorStoreMax": _plain("store_maximum", values.number),
        "NonBlocking": _plain("non_blocking", values.boolean),
    },
}
