"""Restart= and the exit statuses that count for it, under a real systemd and under socket-activate."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.commands import eventually

from .manager import Manager, missing
from .test_same_life import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

# It ends as it is told to, and notes whether it is started again.
END = """
if test -e JOURNAL; then
    echo again >>JOURNAL
    exec sleep 1000
fi
read line <&3
echo started >JOURNAL
"""
# So many start at once that one may take seconds to come as far as its note.
UNREADY = "Type=notify\nTimeoutStartSec=1min\n"
LATE = "Type=notify\nTimeoutStartSec=5s\n"
ENDS = {
    "exit-0": ("exit 0", ""),
    "exit-1": ("exit 1", ""),
    "sigkill": ("kill -KILL $$", ""),
    "sigterm": ("kill -TERM $$", ""),
    "sighup": ("kill -HUP $$", ""),
    "sigsegv": ("kill -SEGV $$", ""),
    "watchdog": ("exec sleep 1000", "WatchdogSec=5s\n"),
    "start-timeout": ("exec sleep 1000", LATE),
    "not-ready": ("exit 0", UNREADY),
    "not-ready-and-sigterm": ("kill -TERM $$", UNREADY),
}
RESTARTS = ("no", "always", "on-success", "on-failure", "on-abnormal", "on-abort", "on-watchdog")


STATUSES = {
    "success": ("on-success", "exit 3", "SuccessExitStatus=3\n"),
    "success-by-name": ("on-failure", "exit 75", "SuccessExitStatus=1 TEMPFAIL\n"),
    "success-by-signal": ("on-failure", "kill -KILL $$", "SuccessExitStatus=KILL\n"),
    "success-of-another": ("on-failure", "exit 9", "SuccessExitStatus=SIGKILL 8 DATAERR\n"),
    "success-of-none": ("on-failure", "exit 3", "SuccessExitStatus=3\nSuccessExitStatus=\n"),
    "success-unready": ("on-failure", "exit 3", f"SuccessExitStatus=3\n{UNREADY}"),
    "prevented": ("always", "exit 1", "RestartPreventExitStatus=1\n"),
    "prevented-success": ("always", "exit 0", "RestartPreventExitStatus=0\n"),
    "prevented-signal": (
        "on-failure",
        "kill -SEGV $$",
        "RestartPreventExitStatus=9\nRestartPreventExitStatus=11 SEGV\n",
    ),
    "prevented-number": ("on-failure", "kill -SEGV $$", "RestartPreventExitStatus=11\n"),
    "prevented-watchdog": ("always", "exec sleep 1000", "WatchdogSec=5s\nRestartPreventExitStatus=SIGABRT\n"),
    "prevented-and-forced": ("always", "exit 1", "RestartPreventExitStatus=1\nRestartForceExitStatus=1\n"),
    "forced": ("no", "exit 0", "RestartForceExitStatus=SUCCESS\n"),
    "forced-signal": ("on-watchdog", "kill -TERM $$", "RestartForceExitStatus=SIGTERM 143\n"),
    "forced-by-another": ("no", "exit 15", "RestartForceExitStatus=SIGTERM 14\n"),
    "forced-after-a-timeout": ("no", "exec sleep 1000", f"{LATE}RestartForceExitStatus=SIGTERM\n"),
}


def write_restarts(folder: Path, units: Path, restarts: dict[str, tuple[str, str, str]]) -> None:
    folder.mkdir()
    for name, (restart, command, service) in restarts.items():
        script = folder / f"{name}.sh"
        script.write_text(f"{END}{command}\n".replace("JOURNAL", f"{folder}/{name}.journal"))
        (units / f"{name}.socket").write_text(f"[Socket]\nListenFIFO={folder}/{name}.fifo\n")
        (units / f"{name}.service").write_text(
            f"[Service]\nExecStart=/bin/sh {script}\nRestart={restart}\nRestartSec=10ms\n{service}"
        )


def restarted(folder: Path, names: Iterable[str], rest: Callable[[], set[str]]) -> set[str]:
    """Which services start again, when all either do or rest."""
    for name in names:
        with open(folder / f"{name}.fifo", "w") as fifo:
            fifo.write("line\n")
    journals = {name: folder / f"{name}.journal" for name in names}
    again: set[str] = set()
    undecided = set(names)

    def decided() -> bool:
        resting = rest()
        texts = {name: journal.read_text() for name, journal in journals.items() if journal.exists()}
        again.update(name for name, text in texts.items() if "again" in text)
        undecided.difference_update(again, resting & texts.keys())
        return not undecided

    try:
        eventually(decided, "all services rest or start again")
    except AssertionError:
        raise AssertionError(f"neither rest nor start again: {undecided}") from None
    return again


def test_restart_means_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Manager(tmp_path_factory.mktemp("restarts") / "manager", {}) as manager:
        restarts_mean_the_same(manager)


def restarts_mean_the_same(manager: Manager) -> None:
    restarts = STATUSES | {f"{restart}.{end}": (restart, *ENDS[end]) for restart, end in product(RESTARTS, ENDS)}
    theirs, ours = manager.folder / "theirs", manager.folder / "ours"
    write_restarts(theirs, manager.folder / "units", restarts)
    write_restarts(ours, ours, restarts)
    manager.systemctl("daemon-reload")
    manager.systemctl("start", *(f"{name}.socket" for name in restarts))

    def rest_there() -> set[str]:
        states = manager.systemctl(
            "show", "--property=ActiveState", "--value", *(f"{name}.service" for name in restarts)
        )
        return {
            name for name, state in zip(restarts, states.split("\n\n"), strict=True) if state in ("inactive", "failed")
        }

    again_there = restarted(theirs, restarts, rest_there)
    log = manager.folder / "log"
    with running(log, *(ours / f"{name}.socket" for name in restarts)):

        def rest_here() -> set[str]:
            lines = [line for line in log.read_text().splitlines() if "; the next client starts it again" in line]
            return {line.split()[1].removesuffix(".service:") for line in lines}

        assert restarted(ours, restarts, rest_here) == again_there
