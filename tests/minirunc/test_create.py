"""A container in two steps, as container engines have it: its process waits between create and start."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import activation
from tests import bundles
from tests.bundles import MINIRUNC, add_bundle, bind, python
from tests.children import inode, run_activated, tcp_listener
from tests.commands import LIMIT, alive, children, eventually, run
from tests.minirunc.test_run import LISTEN, no_pid_namespace, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    """This process is what conmon is to podman: it inherits the container's process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class Engine:
    """Runs a runtime's commands as an engine does, with a log of the container's output."""

    def __init__(self, folder: Path, runtime: str = MINIRUNC) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.bundle = folder, folder / "bundle"
        self.root, self.out = folder / "state", folder / "out"
        self._runtime = runtime

    def __call__(self, *arguments: str, status: int = 0) -> str:
        done = run(self._runtime, "--root", str(self.root), *arguments)
        assert done.returncode == status, done.stderr
        return (done.stdout if status == 0 else done.stderr).decode()

    def create(self, *options: str, env: dict[str, str] | None = None, status: int = 0) -> str:
        """Create the container; return what was said."""
        command = [self._runtime, "--root", str(self.root), "create", "-b", str(self.bundle)]
        with open(self.out, "wb") as out, open(self.folder / "err", "wb") as err:
            done = subprocess.run(
                [*command, *options, "box"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {})},
                timeout=LIMIT,
                check=False,
            )
        said = (self.folder / "err").read_text()
        assert done.returncode == status, said
        return said

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self("state", "box"))
        return state

    def said(self, text: str) -> None:
        eventually(lambda: text in self.out.read_text(), f"{text!r} is said")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path)
    yield engine
    run(MINIRUNC, "--root", str(engine.root), "delete", "--force", "box")
    reap()


def reap() -> None:
    """Reap what this process has inherited."""
    for pid in children(os.getpid()):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass


def add(engine: Engine, args: list[str], change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    add_bundle(engine.bundle, args, change)


def wait(pid: int) -> int:
    """The exit status of a process that this one has inherited."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.skipif(not shutil.which("runc"), reason="there is no runc")
def test_each_step_looks_as_with_runc(tmp_path: Path) -> None:
    seen = []
    for name, runtime in (("minirunc", MINIRUNC), ("runc", "runc")):
        engine = Engine(tmp_path / name, runtime)
        add(engine, python(LISTEN), lambda config: config.update(annotations={"a": "b"}))
        steps: list[Any] = [engine.create("--pid-file", str(engine.folder / "pid"))]
        created = engine.state()
        pid = created["pid"]
        assert (engine.folder / "pid").read_text() == str(pid)
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
        steps += [created["status"], list(created), engine.out.read_text(), engine("start", "box")]
        engine.said("ready\n")
        running = engine.state()
        steps += [running["status"], running["pid"] == pid]
        (listed,) = json.loads(engine("list", "-f", "json"))
        steps += [list(listed), listed["owner"], engine("kill", "box", "HUP"), engine("kill", "-a", "box", "USR1")]
        engine.said("SIGUSR1\n")
        steps.append(engine("kill", "box", "TERM"))
        steps.append(wait(pid))
        steps += [engine.state()["status"], engine.state()["pid"], engine("delete", "box"), os.listdir(engine.root)]
        engine("state", "box", status=1)
        seen.append(steps)
    assert seen[0] == seen[1]
    reap()


@pytest.mark.parametrize("change", [lambda _: None, no_pid_namespace], ids=["pid-namespace", "no-pid-namespace"])
@pytest.mark.parametrize("when", ["created", "running", "stopped"])
def test_what_is_deleted_leaves_nothing(engine: Engine, change: Callable[[dict[str, Any]], object], when: str) -> None:
    add(engine, python(LISTEN), change)
    engine.create()
    pid = engine.state()["pid"]
    processes = [pid]
    if when != "created":
        engine("start", "box")
        engine.said("ready\n")
        processes += children(pid)
    if when == "stopped":
        os.kill(pid, signal.SIGKILL)
        assert wait(pid) == -signal.SIGKILL
    if when == "running":
        assert "is running; expected a stopped one, or --force" in engine("delete", "box", status=1)
    engine("delete", *(["--force"] if when == "running" else []), "box")
    assert not any(map(runs, processes))
    assert os.listdir(engine.root) == []


def test_nobody_of_minirunc_stays(engine: Engine) -> None:
    reap()
    before = children(os.getpid())
    add(engine, ["sleep", "1000"])
    engine.create()
    assert set(children(os.getpid())) - set(before) == {engine.state()["pid"]}


@pytest.mark.parametrize("change", [lambda _: None, no_pid_namespace], ids=["pid-namespace", "no-pid-namespace"])
def test_all_processes_are_signalled(engine: Engine, change: Callable[[dict[str, Any]], object]) -> None:
    code = """
import os, signal, sys
parent = os.fork()
if not parent:
    os.setsid()
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"told %d\\n" % bool(parent)))
os.write(1, b"ready %d\\n" % bool(parent))
while True:
    signal.sigtimedwait([], 0.05)
"""
    add(engine, python(code), change)
    engine.create()
    engine("start", "box")
    engine.said("ready 0\n")
    engine.said("ready 1\n")
    engine("kill", "--all", "box", "USR1")
    engine.said("told 0\n")
    engine.said("told 1\n")
    others = children(engine.state()["pid"])
    engine("kill", "--all", "box", "KILL")
    assert not any(map(runs, others))
    assert engine.state()["status"] == "stopped"
    engine("kill", "--all", "box", "KILL")  # whatever there may be left
    assert "is stopped; expected a running one" in engine("kill", "box", "KILL", status=1)


def test_it_is_started_once(engine: Engine) -> None:
    add(engine, ["sleep", "1000"])
    engine.create()
    assert "there is a container box already" in Engine(engine.folder).create(status=1)
    engine("start", "box")
    assert "container box is running; expected a created one" in engine("start", "box", status=1)


def test_of_several_who_start_it_one_does(engine: Engine) -> None:
    add(engine, ["sleep", "1000"])
    for _ in range(5):
        engine.create()
        command = [MINIRUNC, "--root", str(engine.root), "start", "box"]
        starting = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(4)]
        assert sorted(each.wait(LIMIT) for each in starting) == [0, 1, 1, 1]
        assert engine.state()["status"] == "running"
        engine("delete", "--force", "box")
        reap()


def test_what_keeps_it_from_being_created_is_told_and_leaves_nothing(engine: Engine) -> None:
    add(engine, ["/no/such"])
    said = engine.create(status=1)
    assert said == "minirunc: process.args[0] is '/no/such'; expected a program: No such file or directory\n"
    assert os.listdir(engine.root) == []


def test_what_keeps_it_from_being_started_is_told(engine: Engine) -> None:
    add(engine, ["/opt/program"])
    program = engine.bundle / "rootfs" / "opt" / "program"
    program.parent.mkdir()
    program.write_text("no program at all\n")
    program.chmod(0o755)
    engine.create()
    pid = engine.state()["pid"]
    said = engine("start", "box", status=1)
    assert said == "minirunc: process.args[0] is '/opt/program'; expected a program: Exec format error\n"
    assert wait(pid) == 1
    assert engine.state()["status"] == "stopped"


def test_it_can_be_ended_before_it_is_started(engine: Engine) -> None:
    add(engine, ["sleep", "1000"])
    engine.create()
    pid = engine.state()["pid"]
    engine("kill", "box", "KILL")
    assert wait(pid) == -signal.SIGKILL
    assert "container box is stopped; expected a created one to start" in engine("start", "box", status=1)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08])
def test_whenever_create_is_killed_there_is_all_of_it_or_nothing(engine: Engine, delay: float) -> None:
    add(engine, ["sleep", "1000"])
    command = [MINIRUNC, "--root", str(engine.root), "create", "-b", str(engine.bundle), "box"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()

    def settled() -> bool:
        listed = json.loads(engine("list", "-f", "json")) or []
        return not listed or listed[0]["status"] == "created"

    eventually(settled, "it is created, or not there")
    if engine("list", "-q"):
        pid = engine.state()["pid"]
        engine("start", "box")
        assert alive(pid)


def test_descriptors_are_passed_at_once(engine: Engine) -> None:
    code = "import os; print(os.environ['LISTEN_FDNAMES'], *(os.fstat(n).st_ino for n in (3, 4, 5)), flush=True)"
    small = [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}]
    add(engine, python(code), lambda config: config["process"].update(rlimits=small))
    command = [MINIRUNC, "--root", str(engine.root), "create", "-b", str(engine.bundle)]
    command += ["--preserve-fds=1", "box"]
    redirected = f"os.dup2(os.open({str(engine.out)!r}, os.O_CREAT | os.O_WRONLY), 1); os.dup2(1, 2)\n"
    with tcp_listener() as one, tcp_listener() as two, tcp_listener() as three:
        env = {"LISTEN_PID": "self", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:admin"}
        run_activated(f"{redirected}os.execv({command[0]!r}, {command!r})", [one, two, three], env)
        expected = f"web:admin {inode(one)} {inode(two)} {inode(three)}\n"
    engine("start", "box")
    engine.said(expected)


def test_a_rootless_like_container_waits_too(engine: Engine) -> None:
    def change(config: dict[str, Any]) -> None:
        mapping = [{"containerID": 0, "hostID": 0, "size": 65536}]
        config["linux"].update(uidMappings=mapping, gidMappings=mapping)
        config["linux"]["namespaces"].append({"type": "user"})
        config["process"]["user"] = {"uid": 33, "gid": 33}

    add(engine, ["id", "-u"], change)
    for path in (engine.folder.parent, engine.folder, engine.bundle, engine.bundle / "rootfs"):
        path.chmod(0o755)
    engine.create()
    engine("start", "box")
    engine.said("33\n")


def test_where_nobody_could_pass_on_what_it_tells_that_is_said(engine: Engine) -> None:
    add(engine, ["true"])
    assert "not applied: NOTIFY_SOCKET of the environment" in engine.create(env={"NOTIFY_SOCKET": "/run/x"})
    engine("delete", "box")
    config = json.loads((engine.bundle / "config.json").read_text())
    config["process"]["env"].append("NOTIFY_SOCKET=/run/notify")
    bundles.write(engine.bundle, config)
    assert engine.create(env={"NOTIFY_SOCKET": "/run/x"}) == ""


@pytest.mark.parametrize("form", ["text", "json", ""])
def test_the_log_has_what_is_said(engine: Engine, form: str) -> None:
    add(engine, ["/no/such"], lambda config: config["linux"].update(resources={"pids": {"limit": 5}}))
    log = engine.folder / "log"
    options = ["--log", str(log), *([f"--log-format={form}"] if form else []), "--systemd-cgroup", "--debug"]
    said = engine(*options, "create", "-b", str(engine.bundle), "box", status=1)
    lines = log.read_text().splitlines()
    expected = {
        "debug": "create box",
        "warning": "not applied: linux.resources",
        "error": "process.args[0] is '/no/such'; expected a program: No such file or directory",
    }
    assert said == f"minirunc: {expected['error']}\n"  # the error alone is for the caller as well
    if form == "json":
        read = [json.loads(line) for line in lines]
        assert {entry["level"]: entry["msg"] for entry in read} == expected
        assert all(entry["time"].endswith("Z") for entry in read)
    else:
        assert [line.partition("level=")[2] for line in lines] == [f'{k} msg="{v}"' for k, v in expected.items()]


def test_a_log_that_cannot_be_written_holds_up_nothing(engine: Engine) -> None:
    add(engine, ["true"], lambda config: config["linux"].update(resources={"pids": {"limit": 5}}))
    os.mkfifo(engine.folder / "fifo")
    for path in (engine.folder / "fifo", engine.folder / "none" / "log"):
        done = run(MINIRUNC, "--log", str(path), "--root", str(engine.root), "run", "-b", str(engine.bundle), "box")
        assert (done.returncode, done.stderr) == (0, b"minirunc: not applied: linux.resources\n")


def test_the_version_is_told() -> None:
    assert run(MINIRUNC, "--version").stdout.decode().splitlines() == [
        f"minirunc version {activation.__version__}",
        "spec: 1.0.2",
    ]


@pytest.mark.parametrize("name", ["exec", "pause", "resume", "update", "checkpoint", "ps"])
def test_what_runc_does_beyond_that_is_refused_with_a_word(name: str) -> None:
    done = run(MINIRUNC, name, "--pid-file", "/tmp/x", "box", "--", "true")
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert f"minirunc does not do {name}: " in done.stderr.decode()


def test_what_is_mounted_for_it_is_gone_with_it(engine: Engine) -> None:
    (engine.folder / "seen").mkdir()
    add(engine, ["sleep", "1000"], lambda c: c["mounts"].append(bind(engine.folder / "seen", "/run", "rw")))
    before = bundles.mounts()
    engine.create()
    engine("start", "box")
    engine("delete", "--force", "box")
    assert bundles.mounts() == before
