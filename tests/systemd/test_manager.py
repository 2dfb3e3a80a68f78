"""The harness itself: a test can rely on it only if nothing gets out of it and nothing of it stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.children import no_leak
from tests.commands import LIMIT, eventually

from . import manager as harness
from .conftest import UNITS
from .manager import Manager

if TYPE_CHECKING:
    from .conftest import StartManager

STUBBORN = "[Service]\nExecStart=sh -c \"trap '' HUP INT TERM; echo here I stay; while :; do sleep 1000; done\"\n"
HOLD = """
import sys
from pathlib import Path
from tests.systemd.manager import Manager

with Manager(Path(sys.argv[1]), {"stubborn.service": sys.argv[2]}) as manager:
    manager.systemctl("start", "stubborn.service")
    print(manager.pid, flush=True)
    sys.stdin.read()
"""

pytestmark = pytest.mark.usefixtures("start_manager")


def namespace(pid: int | str) -> str:
    """The PID namespace of a process, "" for one that is gone or out of reach."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def inhabitants(inside: str) -> list[str]:
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and namespace(pid) == inside]


def cgroups(pid: int) -> list[Path]:
    """Where the manager's cgroup is, if the machine has cgroup2 mounted at all."""
    name = Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::/")[2].partition("/")[0]
    assert name.startswith("activation-tests.")
    return [path for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified") if (path := Path(top) / name).exists()]


def test_everything_ends_with_the_block(tmp_path: Path) -> None:
    with no_leak(), Manager(tmp_path / "manager", {"stubborn.service": STUBBORN}) as manager:
        manager.systemctl("start", "stubborn.service")
        manager.wait_for(lambda: "here I stay" in manager.log, "the service's output is in the log")
        inside, made = namespace(manager.pid), cgroups(manager.pid)
        assert len(inhabitants(inside)) >= 3  # PID 1, sh, sleep
    assert inhabitants(inside) == []
    assert not any(path.exists() for path in made)


def test_everything_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "manager"), STUBBORN]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as tests:
        assert tests.stdout
        pid = int(tests.stdout.readline())
        inside, made = namespace(pid), cgroups(pid)
        assert inside not in ("", namespace("self"))
        tests.kill()
    eventually(lambda: not inhabitants(inside), "nobody is left in the namespaces")
    eventually(lambda: not any(path.exists() for path in made), "the cgroup is gone")


def test_a_boot_that_fails_leaves_nothing_and_tells_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaint = tmp_path / "manager" / "complaint"
    complaint.parent.mkdir()
    complaint.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    complaint.chmod(0o755)
    monkeypatch.setattr(harness, "SYSTEMD", str(complaint))
    with no_leak(), pytest.raises(RuntimeError, match="out of order"), Manager(tmp_path / "manager"):
        pass


def test_two_managers_do_not_meet(start_manager: StartManager) -> None:
    units = (UNITS / "foobar.socket", UNITS / "foobar.service")
    first, second = start_manager(*units), start_manager(*units)
    first.systemctl("start", "foobar.socket")
    second.systemctl("start", "foobar.socket")
    first.run("client")
    assert first.property("foobar.service", "ActiveState") == "active"
    assert second.property("foobar.service", "ActiveState") == "inactive"


def test_the_machine_is_not_changed(start_manager: StartManager) -> None:
    manager = start_manager()
    for folder in ("/run", "/tmp", "/var/tmp", "/var/log"):
        manager.run("touch", f"{folder}/{manager.pid}-was-here")
        assert not (Path(folder) / f"{manager.pid}-was-here").exists()
    for path in ("/etc", "/dev", "/proc/sys/fs/nr_open"):
        assert manager.run("test", "-w", path, check=False).returncode == 1
    known = {line.split()[0] for line in manager.systemctl("list-unit-files", "--no-legend").splitlines()}
    assert {name for name in known if name.endswith((".service", ".socket", ".timer"))} == set()


def test_a_wait_in_vain_tells_the_state_and_the_log(start_manager: StartManager) -> None:
    manager = start_manager({"failing.service": "[Service]\nExecStart=sh -c 'echo I cannot; exit 5'\n"})
    manager.systemctl("start", "failing.service")
    manager.wait_property("failing.service", "ActiveState", "failed")
    with pytest.raises(TimeoutError, match=r"(?s)ActiveState of failing.service.*status=5.*log:.*I cannot"):
        manager.wait_property("failing.service", "ActiveState", "active", limit=0.2)


def test_units_can_be_added_and_changed_later(start_manager: StartManager) -> None:
    manager = start_manager()
    manager.add({"later.service": "[Service]\nType=oneshot\nExecStart=echo first\n"})
    manager.systemctl("start", "later.service")
    manager.add({"later.service.d/changed.conf": "[Service]\nExecStart=\nExecStart=echo second\n"})
    manager.systemctl("start", "later.service")
    assert "first\n" in manager.log
    assert "second\n" in manager.log


def test_a_command_inside_can_be_killed(start_manager: StartManager) -> None:
    manager = start_manager()
    with manager.popen("sleep", "1000") as process:
        manager.wait_for(lambda: "sleep" in manager.run("ps", "-eo", "comm=").stdout, "it runs")
        manager.kill(process)
        assert process.wait(LIMIT) == -signal.SIGKILL
    assert "sleep" not in manager.run("ps", "-eo", "comm=").stdout


def test_a_command_that_takes_too_long_is_ended_and_tells_what_the_manager_waits_for(
    start_manager: StartManager,
) -> None:
    manager = start_manager({"endless.service": "[Service]\nType=oneshot\nExecStart=sleep 1000\n"})
    manager.systemctl("start", "--no-block", "endless.service")
    with pytest.raises(subprocess.TimeoutExpired) as late:
        manager.run("systemctl", "start", "endless.service", limit=0.5)
    assert re.search(r"endless\.service +start +running", late.value.__notes__[0])
    with pytest.raises(subprocess.TimeoutExpired):
        manager.run("sleep", "999", limit=0.2)
    manager.systemctl("stop", "endless.service")
    assert "sleep" not in manager.run("ps", "-eo", "comm=").stdout


def test_what_python_imports_is_there_even_below_a_folder_that_is_fresh(
    start_manager: StartManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported, other = tmp_path / "imported", tmp_path / "other"
    imported.mkdir()
    other.mkdir()
    monkeypatch.syspath_prepend(imported)
    manager = start_manager()
    manager.run("test", "-d", str(imported))
    if tmp_path.is_relative_to("/tmp"):
        assert manager.run("test", "-d", str(other), check=False).returncode == 1
