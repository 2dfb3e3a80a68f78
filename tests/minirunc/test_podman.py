"""podman drives minirunc as its OCI runtime, with conmon as the parent of the container's process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import bundles
from tests.bundles import MINIRUNC, add_bundle, python
from tests.children import inheriting_orphans
from tests.commands import CLIENT, LIMIT, SOCKET_ACTIVATE, eventually, run, running

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)"),
    pytest.mark.skipif(not shutil.which("podman"), reason="there is no podman"),
    pytest.mark.xdist_group("podman"),  # it takes long, but waits for most of that
]

# To one connection of the socket called "web": tells what was passed, and echoes.
SERVER = """
import os, socket
names = os.environ["LISTEN_FDNAMES"].split(":")
connection = socket.socket(fileno=3 + names.index("web")).accept()[0]
seen = [os.getpid(), os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"], *names]
connection.sendall(" ".join(map(str, seen)).encode() + b"\\n" + connection.recv(100))
"""


class Podman:
    """A podman whose containers, and minirunc's, are in folders of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.state, self.rootfs = folder / "state", add_bundle(folder / "bundle", ["true"]) / "rootfs"
        # Not by --runtime-flag: podman cleans up without it.
        self._runtime = folder / "minirunc"
        self._runtime.write_text(f'#!/bin/sh\nexec {MINIRUNC} --root {self.state} "$@"\n')
        self._runtime.chmod(0o755)
        self.flags: list[str] = []
        """Of minirunc, without the dashes."""
        self._configuration = folder / "containers.conf"
        self.configure()
        self._folders = {name: str(folder / name) for name in ("root", "runroot", "tmpdir")}
        self._mounted = ["/usr"]
        for prefix in {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}:
            if not Path(prefix).is_relative_to("/usr"):
                self._mounted.append(prefix)
        self._mounted += [f"/{name}" for name in ("bin", "sbin", "lib", "lib64") if (self.rootfs / name).is_dir()]

    def configure(self, *settings: str) -> None:
        """Write the configuration, in which locks are this podman's own."""
        self._configuration.write_text("\n".join(["[engine]", 'lock_type = "file"', *settings, ""]))

    def command(self, *arguments: str) -> list[str]:
        folders = [f"--{name}={path}" for name, path in self._folders.items()]
        options = [f"--runtime={self._runtime}", "--storage-driver=vfs", "--cgroup-manager=cgroupfs"]
        options += [f"--runtime-flag={flag}" for flag in self.flags]
        return ["env", f"CONTAINERS_CONF={self._configuration}", "podman", *folders, *options, *arguments]

    def running(self, *arguments: str, verb: str = "run", seccomp: str = "unconfined") -> list[str]:
        """The command that runs, or creates, a container: options, ROOT for its root, and its own command."""
        options = ["--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
        options += [] if not seccomp else [f"--security-opt=seccomp={seccomp}"]
        options += [f"--volume={path}:{path}:ro" for path in self._mounted]
        at = arguments.index("ROOT")
        return self.command(verb, *options, *arguments[:at], "--rootfs", str(self.rootfs), *arguments[at + 1 :])

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return run(*(self.running(*arguments[1:]) if arguments[0] == "run" else self.command(*arguments)))

    def minirunc(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return run(MINIRUNC, "--root", str(self.state), *arguments)

    def status(self, name: str) -> str:
        return self("inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.decode().strip()


def own_mounts(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: podman wants one."""
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def podman(folder: Path) -> Iterator[Podman]:
    podman = Podman(folder)
    try:
        # After the end of a container, and even when it was removed, its conmon starts a podman that cleans up.
        with inheriting_orphans():
            try:
                yield podman
                eventually(lambda: not podman.state.exists() or os.listdir(podman.state) == [], "no state is left")
            finally:
                podman("rm", "--all", "--force", "--time=0")
    finally:
        mounted = [line.split()[4] for line in own_mounts(folder)]
        for path in reversed(mounted):
            run("umount", path)
    # A file system of podman's own, which it leaves there for its next start.
    assert [path for path in mounted if not path.startswith(str(folder / "root"))] == []


def test_output_and_exit_status_are_the_containers(podman: Podman) -> None:
    done = podman("run", "--rm", "ROOT", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n"), done.stderr
    assert b"err\n" in done.stderr


def test_a_read_only_container_has_folders_to_write_to(podman: Podman) -> None:
    (podman.rootfs / "data").mkdir()
    (podman.rootfs / "data" / "file").write_text("of the image\n")
    show = "cat /data/file; echo x >/data/new && echo x >/tmp/new && echo x >/run/new; echo $?; echo x >/etc/new"
    done = podman("run", "--rm", "--read-only", "--tmpfs=/data", "ROOT", "sh", "-c", show)
    assert (done.returncode != 0, done.stdout) == (True, b"of the image\n0\n")


def test_standard_input_reaches_the_container(podman: Podman) -> None:
    assert run(*podman.running("--rm", "-i", "ROOT", "cat"), stdin=b"hello\n").stdout == b"hello\n"


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        (["nosuch"], 127, "process.args[0] is 'nosuch'; expected a program"),
        (["/usr"], 126, "process.args[0] is '/usr'; expected a program: Permission denied"),
    ],
)
def test_a_program_that_cannot_run_is_podmans_error(podman: Podman, program: list[str], status: int, said: str) -> None:
    done = podman("run", "--rm", "ROOT", *program)
    assert done.returncode == status
    assert said in done.stderr.decode()


def test_what_cannot_be_applied_is_podmans_error_unless_it_may_be_missing(podman: Podman) -> None:
    refused = run(*podman.running("--rm", "ROOT", "true", seccomp=""))
    assert refused.returncode == 126
    assert b"cannot apply linux.seccomp; expected a configuration without it, or --permissive=seccomp" in refused.stderr
    podman.flags.append("permissive=seccomp")
    assert run(*podman.running("--rm", "ROOT", "echo", "it runs", seccomp="")).stdout == b"it runs\n"


def test_a_terminal_is_refused_with_a_word(podman: Podman) -> None:
    done = podman("run", "--rm", "-t", "ROOT", "true")
    assert done.returncode == 126
    assert b"minirunc makes none; expected a container without one" in done.stderr


def test_a_container_in_the_background_is_stopped_and_removed(podman: Podman) -> None:
    code = "import os, signal; signal.signal(signal.SIGTERM, lambda *_: os._exit(3)); print('ready', flush=True)"
    code += "\nwhile True: signal.sigtimedwait([], 0.05)"
    assert podman("run", "-d", "--name=box", "ROOT", *python(code)).returncode == 0
    eventually(lambda: b"ready" in podman("logs", "box").stdout, "it runs")
    assert podman.status("box") == "running 0"
    (identity,) = os.listdir(podman.state)
    state = json.loads(podman.minirunc("state", identity).stdout)
    assert state["status"] == "running"
    parent = Path(f"/proc/{state['pid']}/stat").read_text().rpartition(")")[2].split()[1]
    assert Path(f"/proc/{parent}/comm").read_text() == "conmon\n"

    refused = podman("exec", "box", "true")
    assert refused.returncode != 0
    assert b"minirunc does not do exec: run the command in a container of its own" in refused.stderr

    assert podman("stop", "box").returncode == 0
    assert podman.status("box") == "exited 3"
    assert podman("rm", "box").returncode == 0
    assert podman("ps", "--all", "--quiet").stdout == b""


@pytest.mark.parametrize("options", [[], ["--pid=host"]], ids=["pid-namespace", "no-pid-namespace"])
def test_nothing_of_a_container_outlives_it(podman: Podman, options: list[str]) -> None:
    code = "import os, signal\nif not os.fork(): os.setsid()\nprint('ready', flush=True)\nwhile True: signal.pause()"
    command = podman.running("--rm", "--name=box", *options, "ROOT", *python(code))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert [process.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        assert left(str(podman.rootfs)) != []
        assert podman("kill", "box").returncode == 0
        process.wait(LIMIT)
    eventually(lambda: left(str(podman.rootfs)) == [], "its processes have ended")


def left(root: str) -> list[str]:
    """The processes whose root is there."""
    where = os.stat(root)
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            status = os.stat(f"/proc/{pid}/root")
        except OSError:
            continue
        if os.path.samestat(status, where):
            found.append(pid)
    return found


def test_a_created_container_is_started_later_and_again(podman: Podman) -> None:
    assert run(*podman.running("--name=box", "ROOT", "echo", "it runs", verb="create")).returncode == 0
    assert podman("init", "box").returncode == 0
    (identity,) = os.listdir(podman.state)
    assert json.loads(podman.minirunc("state", identity).stdout)["status"] == "created"
    for _ in range(2):
        assert podman("start", "--attach", "box").stdout == b"it runs\n"
    assert podman("rm", "box").returncode == 0


def test_a_created_container_is_removed_before_it_was_started(podman: Podman) -> None:
    assert run(*podman.running("--name=box", "ROOT", "echo", "it runs", verb="create")).returncode == 0
    assert podman("init", "box").returncode == 0
    assert podman("rm", "--force", "--time=0", "box").returncode == 0


def test_sockets_come_under_their_names(podman: Podman, tmp_path: Path) -> None:
    web, admin = tmp_path / "web.sk", tmp_path / "admin.sk"
    addresses = ["-l", str(admin), "-l", str(web), "--fdname=admin:web"]
    container = podman.running("--rm", "--name=box", "ROOT", *python(SERVER))
    with running(SOCKET_ACTIVATE, *addresses, "--", *container, until=b"listening on", status=0):
        for word in (b"hello\n", b"again\n"):  # each for a container of its own
            done = run(CLIENT, str(web), stdin=word)
            assert done.stdout == b"connect success !\n1 1 2 admin web\n" + word
            eventually(lambda: not podman.state.exists() or os.listdir(podman.state) == [], "it has ended")


def test_preserved_descriptors_are_passed(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the caller\n")
    command = podman.running("--rm", "--preserve-fds=1", "ROOT", "cat", "/proc/self/fd/3")
    done = run("sh", "-c", 'exec 3<"$0"; exec "$@"', str(tmp_path / "file"), *command)
    assert done.stdout == b"of the caller\n"


def test_podman_reads_errors_in_the_log(podman: Podman) -> None:
    podman.configure('runtime_supports_json = ["minirunc"]')
    done = podman("run", "--rm", "ROOT", "nosuch")
    assert done.returncode == 127
    assert b"process.args[0] is 'nosuch'; expected a program" in done.stderr
    fine = podman("run", "--rm", "ROOT", "true")
    assert (fine.returncode, fine.stderr) == (0, b"")
