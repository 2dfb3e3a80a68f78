"""What minirunc touches: nothing outside of the container's root, and no process but the container's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import activation
from tests import bundles
from tests.bundles import MINIRUNC, add_bundle, bind, python
from tests.commands import LIMIT, alive, children, command_line, eventually, run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def minirunc(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return run(MINIRUNC, "--root", str(tmp_path / "state"), *arguments)


def run_box(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    return minirunc(tmp_path, "run", "-b", str(tmp_path), *options, "box")


def above(path: Path) -> str:
    """A way to the path that goes through more parents than there are."""
    return "../" * 12 + str(path).lstrip("/")


def mounted_through_a_link(config: dict[str, Any], root: Path, outside: Path) -> None:
    (root / "link").symlink_to(above(outside))
    config["mounts"].append({"destination": "/link/made", "type": "tmpfs", "source": "tmpfs"})


def bound_through_a_link(config: dict[str, Any], root: Path, outside: Path) -> None:
    (root / "link").symlink_to(above(outside))
    config["mounts"].append(bind("/etc/hostname", "/link/made"))


def devices_through_a_link(config: dict[str, Any], root: Path, outside: Path) -> None:
    (root / "dev").rmdir()
    (root / "dev").symlink_to(above(outside))
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]


def the_working_directory_above_the_root(config: dict[str, Any], root: Path, outside: Path) -> None:
    config["process"]["cwd"] = "/" + above(outside) + "/made"


def devices_bound_with_two_slashes(config: dict[str, Any], root: Path, outside: Path) -> None:
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]
    config["mounts"].append(bind(outside, "//dev", "rw"))


@pytest.mark.parametrize(
    "change",
    [
        mounted_through_a_link,
        bound_through_a_link,
        devices_through_a_link,
        the_working_directory_above_the_root,
        devices_bound_with_two_slashes,
    ],
    ids=lambda change: change.__name__,
)
def test_nothing_is_made_outside(
    tmp_path: Path, outside: Path, change: Callable[[dict[str, Any], Path, Path], None]
) -> None:
    bundle = add_bundle(tmp_path, ["/usr/bin/true"])
    config = json.loads((bundle / "config.json").read_text())
    change(config, bundle / "rootfs", outside)
    bundles.write(bundle, config)
    run_box(tmp_path)
    assert list(outside.iterdir()) == []


def test_what_tells_the_manager_goes_through_no_link_either(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = add_bundle(tmp_path, ["/usr/bin/true"])
    (bundle / "rootfs" / "run").rmdir()
    (bundle / "rootfs" / "run").symlink_to(above(outside))
    with activation.NotifyReceiver() as receiver:
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
        run_box(tmp_path)
    assert list(outside.iterdir()) == []


def test_a_destination_may_be_a_link_to_what_is_not_there_yet(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, ["/usr/bin/cat", "/etc/resolv.conf"], _bind_resolv_conf)
    (bundle / "rootfs" / "etc" / "resolv.conf").symlink_to("../run/resolver/stub.conf")
    assert run_box(tmp_path).stdout == Path("/etc/hostname").read_bytes()


def _bind_resolv_conf(config: dict[str, Any]) -> None:
    config["mounts"].append(bind("/etc/hostname", "/etc/resolv.conf"))


def test_a_process_may_have_any_name(tmp_path: Path) -> None:
    code = r"""
import os, signal
open("/proc/self/comm", "wb").write(b"\xff\xfe) (")
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
print("named", flush=True)
while True:
    signal.sigtimedwait([], 0.05)
"""
    add_bundle(tmp_path, python(code))
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path), "box"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "named\n"
        eventually(lambda: minirunc(tmp_path, "list", "-q").stdout == b"box\n", "it is in the list")
        eventually(lambda: b"running" in minirunc(tmp_path, "state", "box").stdout, "it is said to run")
        assert minirunc(tmp_path, "kill", "box", "TERM").returncode == 0
        assert process.wait(LIMIT) == 3


def test_a_small_limit_hides_no_descriptor_from_being_closed(tmp_path: Path) -> None:
    def limit(config: dict[str, Any]) -> None:
        config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 5, "hard": 5}]

    add_bundle(tmp_path, ["/usr/bin/ls", "/proc/self/fd"], limit)
    descriptor = os.dup(0)
    high = 50
    os.dup2(descriptor, high)
    try:
        command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path), "box"]
        done = subprocess.run(command, pass_fds=[high], capture_output=True, text=True, timeout=LIMIT, check=False)
    finally:
        os.close(high)
        os.close(descriptor)
    assert done.stdout.split() == ["0", "1", "2", "3"], done.stderr


def test_with_a_joined_pid_namespace_nothing_stays_either(tmp_path: Path) -> None:
    mark = f"9{uuid.uuid4().int % 10**9}"

    def join(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].remove({"type": "pid"})
        config["linux"]["namespaces"].append({"type": "pid", "path": f"/proc/{first}/ns/pid"})

    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", "sleep", "100"]) as owner:
        try:
            eventually(lambda: bool(children(owner.pid)), "the namespace is there")
            (first,) = children(owner.pid)
            add_bundle(tmp_path, ["/bin/sh", "-c", f"setsid sleep {mark} & exit 3"], join)
            assert run_box(tmp_path).returncode == 3
            left = [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if sleeps(pid, mark)]
            assert left == []
        finally:
            owner.kill()


def sleeps(pid: int, mark: str) -> bool:
    return command_line(pid) == f"sleep\0{mark}\0".encode()


def test_a_container_that_has_just_ended_is_stopped(tmp_path: Path) -> None:
    add_bundle(tmp_path, ["/usr/bin/true"])
    for _ in range(15):
        assert run_box(tmp_path, "--keep").returncode == 0
        assert json.loads(minirunc(tmp_path, "state", "box").stdout)["status"] == "stopped"
        assert minirunc(tmp_path, "delete", "box").returncode == 0


def test_what_minirunc_had_as_a_child_before_is_left_alone(tmp_path: Path) -> None:
    add_bundle(tmp_path, ["/usr/bin/true"])
    container = f"{MINIRUNC} --root {tmp_path}/state run -b {tmp_path} box"
    script = f"sleep 60 </dev/null >/dev/null 2>&1 & echo $!; exec {container}"
    done = run("sh", "-c", script)
    sleeping = int(done.stdout)
    try:
        assert done.returncode == 0
        assert alive(sleeping)
    finally:
        os.kill(sleeping, signal.SIGKILL)


def test_a_parent_that_is_no_service_manager_may_signal_after_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = f"""
import os, signal, sys
sys.path.append({str(Path(activation.__file__).parent.parent)!r})
import activation
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
activation.notify("READY=1")
while True:
    signal.sigtimedwait([], 0.05)
"""

    def show(config: dict[str, Any]) -> None:
        config["mounts"].append(bind(Path(activation.__file__).parent))

    add_bundle(tmp_path, python(code), show)
    with activation.NotifyReceiver() as receiver:
        monkeypatch.setenv("NOTIFY_SOCKET", receiver.address)
        command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path), "box"]
        with subprocess.Popen(command) as process:
            try:
                told: list[str] = []

                def ready() -> bool:
                    if notification := receiver.receive_nowait():
                        told.extend(notification.assignments)
                        notification.close()
                    return "READY=1" in told

                eventually(ready, "it is ready")
                process.terminate()
                assert process.wait(LIMIT) == 3
            finally:
                process.kill()


def test_with_standard_error_closed_nothing_goes_to_standard_output(tmp_path: Path) -> None:
    for arguments in ("", "state none", f"run -b {tmp_path} box"):
        done = run("sh", "-c", f"{MINIRUNC} --root {tmp_path}/state {arguments} 2>&-")
        assert done.returncode in (1, 2)
        assert done.stdout == b""


def test_a_pid_file_that_cannot_be_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    add_bundle(tmp_path, ["/usr/bin/true"])
    (tmp_path / "taken" / "folder").mkdir(parents=True)
    assert run_box(tmp_path, "--pid-file", str(tmp_path / "taken" / "folder")).returncode == 1
    assert os.listdir(tmp_path / "taken") == ["folder"]


@pytest.mark.parametrize("number", ["9" * 5000, "65", "NONE"])
def test_a_signal_that_is_none_is_told_in_one_line(tmp_path: Path, number: str) -> None:
    done = minirunc(tmp_path, "kill", "box", number)
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
