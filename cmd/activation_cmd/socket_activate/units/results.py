"""How a service ended: its result, in words, and whether it is started again; systemd.service(5)."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from .values import c_number, signal_number

if TYPE_CHECKING:
    from collections.abc import Collection

    from .model import Restart, ServiceUnit

Result = Literal["success", "protocol", "timeout", "exit-code", "signal", "core-dump", "watchdog"]


class End(NamedTuple):
    """The end of a start.

    Attributes:
        result: what systemd calls the service's result.
        status: of the main process, as ``subprocess`` has it, negative for a signal; None if it is unknown.
    """

    result: Result
    status: int | None


CLEAN: Final = frozenset({0, -signal.SIGHUP, -signal.SIGINT, -signal.SIGTERM, -signal.SIGPIPE})
"""The statuses that always count as a success."""

_UNCLEAN: Final = frozenset(["exit-code", "signal", "core-dump", "timeout", "watchdog", "protocol"])
RESTARTS: Final[dict[Restart, frozenset[str]]] = {
    "no": frozenset(),
    "always": _UNCLEAN | {"success"},
    "on-success": frozenset(["success"]),
    "on-failure": _UNCLEAN,
    "on-abnormal": _UNCLEAN - {"exit-code"},
    "on-abort": frozenset(["signal", "core-dump"]),
    "on-watchdog": frozenset(["watchdog"]),
}
"""Which results lead to a restart: the table of Restart=."""

# systemd.exec(5), "process exit codes"; an underscore is one that has no name.
_NAMES: Final = {
    0: "SUCCESS FAILURE INVALIDARGUMENT NOTIMPLEMENTED NOPERMISSION NOTINSTALLED NOTCONFIGURED NOTRUNNING",
    64: "USAGE DATAERR NOINPUT NOUSER NOHOST UNAVAILABLE SOFTWARE OSERR OSFILE CANTCREAT IOERR TEMPFAIL PROTOCOL NOPERM"
    " CONFIG",
    200: "CHDIR NICE FDS EXEC MEMORY LIMITS OOM_ADJUST SIGNAL_MASK STDIN STDOUT CHROOT IOPRIO TIMERSLACK SECUREBITS"
    " SETSCHEDULER CPUAFFINITY GROUP USER CAPABILITIES CGROUP SETSID CONFIRM STDERR _ PAM NETWORK NAMESPACE"
    " NO_NEW_PRIVILEGES SECCOMP SELINUX_CONTEXT PERSONALITY APPARMOR ADDRESS_FAMILIES RUNTIME_DIRECTORY _ CHOWN"
    " SMACK_PROCESS_LABEL KEYRING STATE_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY NUMA_POLICY"
    " CREDENTIALS BPF",
    255: "EXCEPTION",
}
EXIT_STATUSES: Final = {
    name: status for first, names in _NAMES.items() for status, name in enumerate(names.split(), first) if name != "_"
}


def status(word: str) -> int:
    """Read a word of SuccessExitStatus= and the like: an exit status, or a signal as a negative number.

    Raises:
        ValueError: it is neither.
    """
    if word in EXIT_STATUSES:
        return EXIT_STATUSES[word]
    try:
        return c_number(word, 255) if word[:1].isdigit() else -signal_number(word)
    except ValueError:
        pass
    raise ValueError(f"{word!r} is none; expected exit statuses such as 3 or TEMPFAIL, and signals such as SIGKILL")


def result_of(ended: int | None, success: Collection[int], *, core: bool) -> Result:
    """The result of a service whose main process has ended by itself."""
    if core:
        return "core-dump"
    if ended is None or ended in CLEAN or ended in success:  # an unknown status counts as a success
        return "success"
    return "exit-code" if ended > 0 else "signal"


def restarts(unit: ServiceUnit, end: End) -> bool:
    """Whether a service with this end is started again without a client."""
    if end.status in unit.restart_prevented:
        return False
    return end.status in unit.restart_forced or end.result in RESTARTS[unit.restart]


def outcome(ended: int) -> str:
    """How a process ended, in words."""
    if ended >= 0:
        return f"exited with status {ended}"
    try:
        return f"was ended by {signal.Signals(-ended).name}"
    except ValueError:
        return f"was ended by signal {-ended}"
