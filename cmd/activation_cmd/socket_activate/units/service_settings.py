"""The settings of services that are done here: each key, the field that it fills, and how its value is read."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from . import values
from .command_lines import commands
from .environment import name_or_variable, variable, variable_name
from .expansion import WHITESPACE
from .model import EnvironmentFile
from .names import UnitName
from .results import status
from .setting import Context, Setting, plain, refused, replaced, word_list
from .streams import INPUT, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model import Command


def _exec(field: str) -> Setting:
    def read(text: str, context: Context) -> list[Command]:
        context.warn_of_escapes(text)
        return commands(text, context.replace, context.where)

    return Setting([field], read, repeated=True)


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


_TYPE: Final = values.choice("simple", "exec", "notify", "notify-reload")


def _type(text: str) -> str:
    if text in ("forking", "oneshot", "dbus", "idle"):
        raise ValueError("it is not done here; expected simple, exec, notify or notify-reload")
    return _TYPE(text)


_KILL_MODE: Final = values.choice("control-group", "mixed", "process")


def _kill_mode(text: str, context: Context) -> str:
    if text == "none":
        context.say("systemd advises against it; the main process is ended, as with process", "warning")
        return "process"
    return _KILL_MODE(text)


def _socket_name(text: str) -> UnitName:
    name = UnitName.parse(text)
    if name.type != "socket" or name.instance == "":
        raise ValueError("expected names of socket units such as foobar.socket")
    return name


def _directory(text: str) -> str:
    """One of RuntimeDirectory= and its kin: a relative path, and after a colon that of a symlink to it."""
    if text.count(":") > 1:
        raise ValueError("expected one symlink at most after a colon, as in foobar:link")
    for path in text.split(":"):
        if not path or path.startswith("/") or {"", ".", ".."} & set(path.rstrip("/").split("/")):
            raise ValueError("expected relative paths such as foobar or foobar/data, without .. in them")
    return ":".join(path.rstrip("/") for path in text.split(":"))


def _abort_timeout(text: str) -> float | str | None:
    return _seconds(text) if text else ""


def _seconds(text: str) -> float | None:
    seconds = values.time_span(text)
    return None if math.isinf(seconds) else seconds


def _timeout(text: str) -> float | None:
    # Once 0 was the only way to say infinity.
    return _seconds(text) or None


_PRESERVE: Final = values.choice("no", "restart", "yes")


def _preserve(text: str) -> str:
    try:
        return "yes" if values.boolean(text) else "no"
    except ValueError:
        return _PRESERVE(text)


def _umask(text: str) -> int | None:
    return values.mode(text) if text else None


DIRECTORIES: Final = ("Runtime", "State", "Cache", "Logs", "Configuration")

_START_LIMIT: Final = {
    "StartLimitInterval": plain("start_limit_interval", _seconds),
    "StartLimitBurst": plain("start_limit_burst", values.number),
}
SERVICE: Final[Mapping[str, Mapping[str, Setting]]] = {
    "Unit": _START_LIMIT | {"StartLimitIntervalSec": _START_LIMIT["StartLimitInterval"]},
    "Service": {
        "Type": plain("type", _type),
        "ExecStart": _exec("exec_start"),
        "ExecStartPre": _exec("exec_start_pre"),
        "ExecReload": _exec("exec_reload"),
        "Environment": word_list("environment", variable),
        "PassEnvironment": word_list("pass_environment", variable_name),
        "UnsetEnvironment": Setting(["unset_environment"], _unset, repeated=True),
        "EnvironmentFile": Setting(["environment_files"], _environment_file, repeated=True),
        "WorkingDirectory": Setting(["working_directory"], _working_directory),
        "User": replaced("user"),
        "Group": replaced("group"),
        "SupplementaryGroups": word_list("supplementary_groups", values.group),
        "DynamicUser": plain("dynamic_user", values.boolean),
        "UMask": plain("umask", _umask),
        "StandardInput": Setting(["standard_input"], INPUT),
        "StandardOutput": Setting(["standard_output"], OUTPUT),
        "StandardError": Setting(["standard_error"], OUTPUT),
        "StandardInputText": refused("expected StandardInput= to say where input comes from"),
        "StandardInputData": refused("expected StandardInput= to say where input comes from"),
        "OpenFile": refused("expected ListenSpecial= or ListenFIFO= in the socket unit"),
        "USBFunctionDescriptors": refused("no USB function is passed"),
        "USBFunctionStrings": refused("no USB function is passed"),
        "Sockets": word_list("sockets", _socket_name),
        **{f"{kind}Directory": word_list(f"{kind.lower()}_directory", _directory) for kind in DIRECTORIES},
        **{f"{kind}DirectoryMode": plain(f"{kind.lower()}_directory_mode", values.mode) for kind in DIRECTORIES},
        "RuntimeDirectoryPreserve": plain("runtime_directory_preserve", _preserve),
        "Restart": plain(
            "restart",
            values.choice("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog"),
        ),
        "RestartSec": plain("restart_sec", _seconds),
        "RestartPreventExitStatus": Setting(["restart_prevented"], _statuses, repeated=True),
        "RestartForceExitStatus": Setting(["restart_forced"], _statuses, repeated=True),
        "SuccessExitStatus": Setting(["success_statuses"], _statuses, repeated=True),
        **_START_LIMIT,  # where they were before they came to [Unit]
        "TimeoutSec": plain("timeout_start timeout_stop", _timeout),
        "TimeoutStartSec": plain("timeout_start", _timeout),
        "TimeoutStopSec": plain("timeout_stop", _timeout),
        "TimeoutAbortSec": plain("timeout_abort", _abort_timeout),
        "TimeoutStartFailureMode": plain("timeout_start_failure_mode", values.choice("terminate", "abort", "kill")),
        "TimeoutStopFailureMode": plain("timeout_stop_failure_mode", values.choice("terminate", "abort", "kill")),
        "RuntimeMaxSec": plain("runtime_max", _seconds),
        "RuntimeRandomizedExtraSec": plain("runtime_randomized_extra", values.time_span),
        "KillMode": Setting(["kill_mode"], _kill_mode),
        "KillSignal": plain("kill_signal", values.signal_number),
        "WatchdogSignal": plain("watchdog_signal", values.signal_number),
        "WatchdogSec": plain("watchdog", _timeout),
        "NotifyAccess": plain("notify_access", values.choice("none", "main", "exec", "all")),
        "FileDescriptorStoreMax": plain("store_maximum", values.number),
        "FileDescriptorStorePreserve": plain("store_preserve", _preserve),
        "NonBlocking": plain("non_blocking", values.boolean),
    },
}
