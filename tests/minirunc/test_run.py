"""A container's life under minirunc: its status, its signals, its state, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import bundles
from tests.bundles import MINIRUNC, add_bundle, python
from tests.commands import LIMIT, alive, eventually, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")

# Says that it runs, and what signals it gets; SIGTERM ends it with status 3.
LISTEN = """
import os, signal
pid = os.fork()
if not pid:
    signal.pause()
def told(number, frame):
    # Not by print(): a second signal may come before it returns, and it cannot be entered again.
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
    if number == signal.SIGTERM:
        os._exit(3)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGINT):
    signal.signal(number, told)
print("ready", flush=True)
while True:
    signal.sigtimedwait([], 0.05)
"""


def no_pid_namespace(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].remove({"type": "pid"})
    # The machine's processes are seen there, so its /proc belongs there.
    config["mounts"][0] = bundles.bind("/proc", "/proc", "rw")
    config["linux"].update(maskedPaths=[], readonlyPaths=[])


class Running:
    """A container that runs, and what it says."""

    def __init__(self, root: Path, bundle: Path, *options: str) -> None:
        self.root = root
        command = [MINIRUNC, "--root", str(root), "run", "-b", str(bundle), *options, "box"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            self._wait_until_it_runs()
        except BaseException:
            self.process.kill()
            print(self.process.communicate())
            raise

    def _wait_until_it_runs(self) -> None:
        self.said("ready")
        # The state is written when the container runs already.
        eventually(lambda: (self.root / "box" / "state.json").exists(), "the state is there")
        self.pid: int = json.loads(self.command("state", "box").stdout)["pid"]
        self.guardian = forked(self.process.pid)[0]  # trio lets ldconfig run once, which may be another

    def command(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return run(MINIRUNC, "--root", str(self.root), *arguments)

    def said(self, line: str) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == line + "\n"

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def check_nothing_is_left(self) -> None:
        def ended() -> bool:
            return not any(map(runs, (self.pid, self.guardian, self.process.pid)))

        eventually(ended, "all its processes have ended")
        eventually(lambda: os.listdir(self.root) == [], "the state is gone")


def runs(pid: int) -> bool:
    """Whether there is such a process that has not ended; nobody here can reap those that others left."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def forked(pid: int) -> list[int]:
    """The processes that a process of one thread has forked."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=["its own", "none"], ids=["pid-namespace", "no-pid-namespace"])
def box(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Iterator[Running]:
    """A container that listens to signals, with a child of its own."""
    change = no_pid_namespace if request.param == "none" else lambda _: None
    running = Running(root, add_bundle(tmp_path / "bundle", python(LISTEN), change))
    yield running
    running.process.kill()
    running.process.communicate()
    eventually(lambda: not runs(running.pid), "the container has ended")


def run_once(tmp_path: Path, args: list[str], *options: str, **changes: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a container to its end."""
    bundle = add_bundle(tmp_path / "bundle", args, lambda config: config.update(changes))
    done = run(MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), *options, "box")
    assert os.listdir(tmp_path / "state") == []
    return done


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_is_the_containers(tmp_path: Path, status: int) -> None:
    done = run_once(tmp_path, ["sh", "-c", f"echo out; echo err >&2; exit {status}"])
    assert (done.returncode, done.stdout, done.stderr) == (status, b"out\n", b"err\n")


def test_a_signals_status_is_128_and_its_number(box: Running) -> None:
    assert box.command("kill", "box", "KILL").returncode == 0
    assert box.wait() == 128 + signal.SIGKILL
    box.check_nothing_is_left()


def test_signals_go_on_to_the_container(box: Running) -> None:
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH, signal.SIGINT, signal.SIGTERM):
        box.process.send_signal(number)
        box.said(number.name)
    assert box.wait() == 3
    box.check_nothing_is_left()


def test_a_signal_that_comes_before_minirunc_can_send_it_on_is_not_lost(tmp_path: Path, root: Path) -> None:
    bundle = add_bundle(tmp_path / "bundle", python(LISTEN))
    command = [MINIRUNC, "--root", str(root), "run", "-b", str(bundle), "box"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.terminate()  # at once: trio is being loaded
        assert process.stdout.readline() == "SIGTERM\n"
        assert process.wait(LIMIT) == 3


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15", "sigterm"])
def test_kill_takes_names_and_numbers(box: Running, name: str) -> None:
    assert box.command("kill", "box", name).returncode == 0
    assert box.wait() == 3


def test_kill_sends_sigterm_by_default_and_says_what_it_does_not_know(box: Running) -> None:
    done = box.command("kill", "box", "SIGNOSUCH")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"'SIGNOSUCH'" in done.stderr
    assert box.command("kill", "box").returncode == 0
    assert box.wait() == 3


@pytest.mark.parametrize("whom", ["minirunc", "guardian", "both"])
def test_nothing_is_left_when_minirunc_is_killed(box: Running, whom: str) -> None:
    (child,) = forked(box.pid)
    if whom != "minirunc":
        os.kill(box.guardian, signal.SIGKILL)
    if whom != "guardian":
        box.process.kill()
    assert box.wait() in (-signal.SIGKILL, 128 + signal.SIGKILL)
    eventually(lambda: not runs(box.pid), "the container has ended")
    if whom == "both":
        # Nobody is left to remove the state, nor what the container's process has forked without a PID namespace.
        if runs(child):
            os.kill(child, signal.SIGKILL)
        assert box.command("list", "-q").stdout == b""
    eventually(lambda: not runs(child), "what the container has forked has ended")
    box.check_nothing_is_left()


def test_nothing_is_left_when_the_whole_process_group_is_killed(tmp_path: Path, root: Path) -> None:
    # The container's process takes back that it dies with its parent, as any change of user does.
    code = "import ctypes; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n" + LISTEN
    bundle = add_bundle(tmp_path / "bundle", python(code))
    command = [MINIRUNC, "--root", str(root), "run", "-b", str(bundle), "box"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout.read() == ""  # nobody has the pipe's other end any more
    eventually(lambda: os.listdir(root) == [], "the state is gone")


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04])
def test_nothing_is_left_whenever_minirunc_is_killed(tmp_path: Path, root: Path, delay: float) -> None:
    bundle = add_bundle(tmp_path / "bundle", python(LISTEN))
    command = [MINIRUNC, "--root", str(root), "run", "-b", str(bundle), "box"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        out, _ = process.communicate(timeout=LIMIT)  # until nobody has the pipe's other end
    assert out in ("", "ready\n")
    eventually(lambda: run(MINIRUNC, "--root", str(root), "list", "-q").stdout == b"", "no container is listed")
    eventually(lambda: not root.exists() or os.listdir(root) == [], "the state is gone")


def test_what_the_process_leaves_running_ends_with_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = """
import os, sys
for _ in range(3):
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        os.open("/fifo", os.O_WRONLY)
        while True:
            os.waitid(os.P_ALL, 0, os.WEXITED) if os.fork() else os.abort()
os.open("/fifo", os.O_WRONLY)
"""

    def change(config: dict[str, Any]) -> None:
        no_pid_namespace(config)
        config["root"]["readonly"] = False
        config["mounts"].append(bundles.bind(fifo, "/fifo", "rw"))

    bundle = add_bundle(tmp_path / "bundle", python(code), change)
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box"]
    with subprocess.Popen(command) as process:
        with open(fifo, "rb") as reading:
            assert reading.read() == b""  # whoever wrote to it has ended
        assert process.wait(LIMIT) == 0


def test_list_and_state_tell_of_a_running_container(box: Running, tmp_path: Path) -> None:
    state = json.loads(box.command("state", "box").stdout)
    assert state.pop("created").endswith("Z")
    assert alive(box.pid)
    assert state == {
        "ociVersion": "1.0.2",
        "id": "box",
        "pid": box.pid,
        "status": "running",
        "bundle": str(tmp_path / "bundle"),
        "rootfs": str(tmp_path / "bundle" / "rootfs"),
        "owner": "",
    }
    head, line = box.command("list").stdout.decode().splitlines()
    assert head.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert line.split()[:3] == ["box", str(box.pid), "running"]
    assert [one["id"] for one in json.loads(box.command("list", "-f", "json").stdout)] == ["box"]
    assert box.command("list", "--quiet").stdout == b"box\n"


def test_an_id_is_used_once_at_a_time(box: Running, tmp_path: Path) -> None:
    done = box.command("run", "-b", str(tmp_path / "bundle"), "box")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"there is a container box already" in done.stderr
    assert json.loads(box.command("state", "box").stdout)["pid"] == box.pid


def test_a_running_container_is_deleted_by_force_only(box: Running) -> None:
    done = box.command("delete", "box")
    assert (done.returncode, b"running" in done.stderr) == (1, True)
    assert box.command("delete", "--force", "box").returncode == 0
    assert box.wait() == 128 + signal.SIGKILL
    box.check_nothing_is_left()
    assert box.command("delete", "--force", "box").returncode == 0
    assert box.command("delete", "box").returncode == 1


def test_a_stopped_container_can_be_kept(tmp_path: Path, root: Path) -> None:
    bundle = str(add_bundle(tmp_path / "bundle", ["true"]))
    command = (MINIRUNC, "--root", str(root))
    assert run(*command, "run", "-b", bundle, "--keep", "box").returncode == 0
    state = json.loads(run(*command, "state", "box").stdout)
    assert (state["status"], state["pid"]) == ("stopped", 0)
    assert b"already" in run(*command, "run", "-b", bundle, "box").stderr
    assert b"stopped" in run(*command, "kill", "box").stderr
    assert run(*command, "delete", "box").returncode == 0
    assert os.listdir(root) == []


def test_namespaces_are_joined_by_their_paths(tmp_path: Path, root: Path) -> None:
    kinds = {"pid": "pid", "network": "net", "uts": "uts", "ipc": "ipc"}
    first = Running(root, add_bundle(tmp_path / "bundle", python(LISTEN)))
    try:

        def join(config: dict[str, Any]) -> None:
            joined = [{"type": kind, "path": f"/proc/{first.pid}/ns/{kinds[kind]}"} for kind in kinds]
            config["linux"]["namespaces"] = [{"type": "mount"}, *joined]

        code = "import os, sys; print(os.getpid(), *(os.readlink(f'/proc/self/ns/{kind}') for kind in sys.argv[1:]))"
        bundle = add_bundle(tmp_path / "second", python(code, *kinds.values()), join)
        done = run(MINIRUNC, "--root", str(root), "run", "-b", str(bundle), "second")
        pid, *seen = done.stdout.decode().split()
        assert int(pid) > 1
        assert seen == [os.readlink(f"/proc/{first.pid}/ns/{kind}") for kind in kinds.values()]
    finally:
        first.process.terminate()
        first.process.communicate()


def test_signals_that_minirunc_was_started_to_ignore_are_the_containers_to_hear(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path / "bundle", ["grep", "SigIgn", "/proc/self/status"])
    ignore = "trap '' HUP INT TERM USR1 CHLD PIPE; exec \"$@\""
    command = (MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box")
    done = run("sh", "-c", ignore, "sh", *command)
    assert (done.returncode, done.stderr) == (0, b"")
    assert int(done.stdout.split()[1], 16) & ~(3 << 31) == 0  # 32 and 33 the C library keeps for itself


def test_folders_that_are_made_in_the_root_are_nobody_elses_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mounts = [
        {"destination": "/a/b", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/c/d/file", "type": "bind", "source": str(tmp_path / "file"), "options": ["bind"]},
    ]

    def change(config: dict[str, Any]) -> None:
        config["mounts"] += mounts
        config["process"]["cwd"] = "/e/f"

    bundle = add_bundle(tmp_path / "bundle", ["stat", "-c", "%a %n", "/dev/null", "/dev/shm"], change)
    done = run(MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box")
    assert (done.stdout, done.stderr) == (b"666 /dev/null\n1777 /dev/shm\n", b"")
    made = [path for name in "ace" for path in (bundle / "rootfs" / name, *(bundle / "rootfs" / name).rglob("*"))]
    modes = {str(path.relative_to(bundle / "rootfs")): oct(path.stat().st_mode & 0o7777) for path in made}
    assert modes == dict.fromkeys(["a", "a/b", "c", "c/d", "e", "e/f"], "0o755") | {"c/d/file": "0o644"}


def test_a_reason_of_any_length_is_told(tmp_path: Path) -> None:
    done = run_once(tmp_path, ["x" * 500_000])
    assert done.returncode == 1
    assert done.stderr.startswith(b"minirunc: process.args[0] is 'xxx")
    assert done.stderr.count(b"\n") == 1


def test_an_id_is_given_to_another_only_when_its_container_is_gone(tmp_path: Path, root: Path) -> None:
    # Containers of one ID come and go while somebody deletes whatever has it.
    bundle = add_bundle(tmp_path / "bundle", ["true"])
    stop = threading.Event()
    failed: list[bytes] = []

    def start() -> None:
        while not stop.is_set():
            done = run(MINIRUNC, "--root", str(root), "run", "-b", str(bundle), "box")
            if (
                done.returncode not in (0, 128 + signal.SIGKILL)
                and b"there is a container box already" not in done.stderr
            ):
                failed.append(done.stderr)

    with ThreadPoolExecutor(2) as pool:
        starting = [pool.submit(start) for _ in range(2)]
        deleted = [run(MINIRUNC, "--root", str(root), "delete", "-f", "box") for _ in range(60)]
        listed = [run(MINIRUNC, "--root", str(root), "list") for _ in range(20)]
        stop.set()
    for each in starting:
        each.result()
    assert failed == []
    assert {each.stderr for each in deleted} <= {b"", CREATING}
    assert {(each.returncode, each.stderr) for each in listed} == {(0, b"")}
    assert os.listdir(root) == []


CREATING = b"minirunc: container box is creating; expected a stopped one, or --force to kill it\n"


@contextmanager
def namespaces(*options: str) -> Iterator[str]:
    """The folder of links to namespaces that are made for the block; ``options`` are unshare's."""
    with subprocess.Popen(["unshare", *options, "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout
            assert holder.stdout.read(1) == b"\n"
            yield f"/proc/{holder.pid}/ns"
        finally:
            holder.kill()


def test_of_a_mount_namespace_that_is_joined_its_mounts_are_seen_and_stay(tmp_path: Path, root: Path) -> None:
    (tmp_path / "seen").mkdir()
    with namespaces("--mount", "--cgroup") as links:
        process = os.path.dirname(links)
        mount = ("mount", "-t", "tmpfs", "of-the-other", str(tmp_path / "seen"))
        assert run("nsenter", f"--mount={links}/mnt", *mount).returncode == 0
        Path(f"{process}/root/{tmp_path}/seen/file").write_text("of the other")
        before = Path(f"{process}/mountinfo").read_text()

        def join(config: dict[str, Any]) -> None:
            paths = {"mount": f"{links}/mnt", "cgroup": f"{links}/cgroup"}
            joined = [{"type": kind, "path": path} for kind, path in paths.items()]
            config["linux"]["namespaces"] = [*joined, {"type": "pid"}]
            del config["hostname"]
            config["mounts"].append(bundles.bind(tmp_path / "seen", "/run/seen"))

        code = (
            "import os; print(os.readlink('/proc/self/ns/cgroup'), open('/run/seen/file').read(), os.listdir('/run'))"
        )
        bundle = add_bundle(tmp_path / "bundle", python(code), join)
        done = run(MINIRUNC, "--root", str(root), "run", "-b", str(bundle), "box")
        assert done.stderr == b""
        assert done.stdout.decode() == f"{os.readlink(f'{links}/cgroup')} of the other ['seen']\n"
        assert Path(f"{process}/mountinfo").read_text() == before


def test_of_a_user_namespace_that_is_joined_the_numbers_hold(tmp_path: Path, root: Path) -> None:
    with namespaces("--user", "--map-root-user") as links:

        def join(config: dict[str, Any]) -> None:
            config["linux"]["namespaces"].append({"type": "user", "path": f"{links}/user"})
            for mount in config["mounts"]:
                # There is no such group in it.
                mount["options"] = [option for option in mount.get("options", ()) if option != "gid=5"]

        code = "import os; print(os.readlink('/proc/self/ns/user'), *open('/proc/self/uid_map').read().split())"
        bundle = add_bundle(tmp_path / "bundle", python(code), join)
        done = run(MINIRUNC, "--root", str(root), "run", "-b", str(bundle), "box")
        assert done.stderr == b""
        assert done.stdout.decode() == f"{os.readlink(f'{links}/user')} 0 0 1\n"


def test_a_pid_file_has_the_number_as_it_is_seen_outside(tmp_path: Path, root: Path) -> None:
    pid_file = tmp_path / "pid"
    running = Running(root, add_bundle(tmp_path / "bundle", python(LISTEN)), "--pid-file", str(pid_file))
    try:
        eventually(pid_file.exists, "the file is there")
        assert pid_file.read_text() == str(running.pid)
    finally:
        running.process.terminate()
        running.process.communicate()


def test_with_a_pid_file_that_cannot_be_written_nothing_is_started(tmp_path: Path, root: Path) -> None:
    (tmp_path / "seen").mkdir()
    mount = bundles.bind(tmp_path / "seen", "/run", "rw")
    bundle = add_bundle(tmp_path / "bundle", ["touch", "/run/ran"], lambda config: config["mounts"].append(mount))
    command = (MINIRUNC, "--root", str(root), "run", "-b", str(bundle))
    done = run(*command, "--pid-file", str(tmp_path / "none" / "pid"), "box")
    assert done.returncode == 1
    assert os.listdir(tmp_path / "seen") == []
    assert os.listdir(root) == []
    assert done.stderr.count(b"\n") == 1


def test_cgroup_limits_are_only_mentioned_unless_everything_is_to_be_applied(tmp_path: Path) -> None:
    limits = {"resources": {"pids": {"limit": 5}}, "cgroupsPath": "/x"}
    bundle = add_bundle(tmp_path / "bundle", ["true"], lambda config: config["linux"].update(limits))
    command = (MINIRUNC, "--root", str(tmp_path / "state"))
    done = run(*command, "run", "-b", str(bundle), "box")
    assert (done.returncode, done.stderr) == (0, b"minirunc: not applied: linux.resources, linux.cgroupsPath\n")
    for arguments in (["run", "--strict"], ["--strict", "run"]):
        refused = run(*command, *arguments, "-b", str(bundle), "box")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"linux.resources" in refused.stderr


NOT_APPLIED: dict[str, tuple[str, dict[str, Any]]] = {
    "linux.seccomp": ("seccomp", {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}),
    "process.apparmorProfile": ("apparmor", {"process": {"apparmorProfile": "strict"}}),
    "process.selinuxLabel": ("selinux", {"process": {"selinuxLabel": "a:b:c"}}),
    "linux.mountLabel": ("selinux", {"linux": {"mountLabel": "a:b:c"}}),
    "linux.intelRdt": ("intelrdt", {"linux": {"intelRdt": {"closID": "x"}}}),
    "process.scheduler": ("scheduling", {"process": {"scheduler": {"policy": "SCHED_IDLE"}}}),
    "hooks": ("hooks", {"hooks": {"prestart": [{"path": "/x"}]}}),
    "mounts[0].options[0] (idmap)": (
        "idmap",
        {"mounts": [{"destination": "/tmp", "type": "bind", "source": "/tmp", "options": ["idmap", "bind"]}]},
    ),
    "process.capabilities.permitted[0] (CAP_FUN)": (
        "capabilities",
        {"process": {"capabilities": {"permitted": ["CAP_FUN"]}}},
    ),
    "process.capabilities.ambient (CAP_KILL)": (
        "capabilities",
        {"process": {"user": {"uid": 1}, "capabilities": {"permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"]}}},
    ),
    "linux.rootfsPropagation (shared": ("propagation", {"linux": {"rootfsPropagation": "shared"}}),
}


@pytest.mark.parametrize(("what", "group", "added"), [(what, *each) for what, each in NOT_APPLIED.items()])
def test_what_cannot_be_applied_is_an_error_unless_it_may_be_missing(
    tmp_path: Path, what: str, group: str, added: dict[str, Any]
) -> None:
    def change(config: dict[str, Any]) -> None:
        for key, value in added.items():
            if isinstance(value, list):
                value += config[key]
            config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value

    bundle = add_bundle(tmp_path / "bundle", ["true"], change)
    command = (MINIRUNC, "--root", str(tmp_path / "state"))
    done = run(*command, "run", "-b", str(bundle), "box")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert f"cannot apply {what}" in done.stderr.decode()
    assert f"--permissive={group} " in done.stderr.decode()
    for arguments in (["run", f"--permissive={group}"], ["--permissive=hooks,seccomp", "--permissive", group, "run"]):
        done = run(*command, *arguments, "-b", str(bundle), "box")
        assert done.returncode == 0, done.stderr
        assert f"minirunc: not applied: {what}" in done.stderr.decode()


@pytest.mark.parametrize("rootless", [False, True])
def test_spec_writes_a_bundle_that_needs_only_programs(tmp_path: Path, rootless: bool) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    command = [MINIRUNC, "spec", "-b", str(bundle), *(["--rootless"] if rootless else [])]
    assert run(*command).returncode == 0
    config = json.loads((bundle / "config.json").read_text())
    assert config["process"]["terminal"] is False
    assert run(*command).stderr.endswith(b"config.json: File exists\n")

    config["process"]["args"] = ["echo", "hello"]
    config["mounts"].append(bundles.bind("/usr"))
    (bundle / "rootfs").mkdir()
    for name in ("bin", "lib", "lib64"):
        (bundle / "rootfs" / name).symlink_to(f"usr/{name}")
    bundles.write(bundle, config)
    done = run(MINIRUNC, "--root", str(tmp_path / "state"), "run", "--strict", "-b", str(bundle), "box")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is no command"),
        (["fly"], "no command 'fly'"),
        (["run"], "expected ID"),
        (["run", "a", "b"], "expected ID"),
        (["run", "--fly", "a"], "no option --fly"),
        (["run", "--keep=yes", "a"], "takes no value"),
        (["run", "a", "--bundle"], "lacks its value"),
        (["run", "--preserve-fds", "-1", "a"], "--preserve-fds is '-1'"),
        (["run", "--preserve-fds=many", "a"], "--preserve-fds is 'many'"),
        (["--root"], "lacks its value"),
        (["list", "-f", "xml"], "expected table or json"),
        (["run", "--permissive=all", "a"], "--permissive has 'all'; expected some of seccomp"),
    ],
)
def test_wrong_usage_is_told_in_two_lines(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(MINIRUNC, "--root", str(tmp_path), *arguments) if arguments else run(MINIRUNC)
    first, second = done.stderr.decode().splitlines()
    assert (done.returncode, first.startswith("usage: minirunc")) == (2, True)
    assert said in second


@pytest.mark.parametrize("arguments", [["--help"], ["run", "-h"], ["list", "--help"]])
def test_help_is_printed(arguments: list[str]) -> None:
    done = run(MINIRUNC, *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"usage: minirunc")


def test_neither_trio_nor_json_is_loaded_before_the_container_runs(tmp_path: Path) -> None:
    # The exec fails, so that nothing comes after it.
    bundle = add_bundle(tmp_path / "bundle", ["/program"])
    (bundle / "rootfs" / "program").write_bytes(b"no program at all")
    (bundle / "rootfs" / "program").chmod(0o755)
    code = "import sys; from activation_cmd.minirunc.main import main; sys.exit(main())"
    command = (sys.executable, "-X", "importtime", "-c", code, "--root", str(tmp_path / "state"))
    done = run(*command, "run", "-b", str(bundle), "box").stderr.decode()
    assert "expected a program: Exec format error\n" in done
    assert " activation_cmd.minirunc.container.filesystem\n" in done
    for module in ("trio", "attr", "json", "argparse", "typing", "socket", "logging"):
        assert f" {module}\n" not in done
