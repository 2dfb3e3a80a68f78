"""Containers of a user who is not root, in a user namespace of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.bundles import MINIRUNC, PYTHON, VIEW, add_bundle, python
from tests.children import inode, tcp_listener
from tests.commands import EXEC, LIMIT, eventually
from tests.minirunc.test_beside_runc import differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USER = os.geteuid() or 1000
GROUP = os.getegid() or 1000

# To be that user takes away all rights but to look where the interpreter is, which may be in root's own home.
BECOME_USER = (
    *("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search", "--bounding-set=-all,+dac_read_search"),
)

# The same for who has more users: programs that are root's and say so have all rights, and find who the user is, and
# what is the user's, in the files of the folder that is the first argument.
BECOME_USER_WITH_RANGES = (
    *("unshare", "--mount", "sh", "-c"),
    'for name in passwd subuid subgid; do mount --bind "$0/$name" "/etc/$name" || exit; done; exec "$@"',
)
FIRST, SIZE = 100_000, 10
"""The users and groups that are the user's own to give away."""

pytestmark = [
    pytest.mark.skipif(
        os.geteuid() == 0 and not shutil.which("setpriv"), reason="there is no setpriv to become a user with"
    ),
    pytest.mark.xdist_group("rootless"),  # one worker copies the interpreter
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of that user."""
    with tempfile.TemporaryDirectory(prefix="minirunc-") as made:
        os.chown(made, USER, GROUP)
        yield Path(made)


def run(folder: Path, *command: str, pass_fds: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command as that user."""
    return subprocess.run(
        [*(BECOME_USER if os.geteuid() == 0 else ()), *command],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        pass_fds=pass_fds,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A copy of what a view takes of Python, where that user could not find Python itself; None where it can."""
    base = Path(os.path.realpath(sys.base_prefix))
    if all(folder.stat().st_mode & 0o001 for folder in (base, *base.parents)):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="minirunc-") as made:
        os.chmod(made, 0o755)
        library = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}"
        ignored = shutil.ignore_patterns(
            "test", "tests", "site-packages", "idlelib", "tkinter", "ensurepip", "config-*"
        )
        shutil.copytree(base / library, Path(made) / library, ignore=ignored)
        for shared in (base / "lib").glob("libpython*.so*"):
            shutil.copy(shared, Path(made) / "lib")
        (Path(made) / "bin").mkdir()
        shutil.copy(PYTHON, Path(made) / "bin")
        yield Path(made)


def add(folder: Path, args: list[str], interpreter: Path | None, change: Any = lambda _: None) -> str:
    """Make a bundle of that user's, as the user's own spec has it."""

    def change_all(config: dict[str, Any]) -> None:
        base = os.path.realpath(sys.base_prefix)
        for mount in config["mounts"]:
            if interpreter and mount["destination"] == base:
                mount["source"] = str(interpreter)
        config["linux"]["uidMappings"][0]["hostID"] = USER
        config["linux"]["gidMappings"][0]["hostID"] = GROUP
        change(config)

    bundle = add_bundle(folder / "bundle", args, change_all, rootless=True)
    for path in (bundle, *bundle.glob("*"), *bundle.glob("*/*")):
        os.chown(path, USER, GROUP, follow_symlinks=False)
    return str(bundle)


def test_spec_is_for_the_user_who_asks(folder: Path) -> None:
    assert run(folder, MINIRUNC, "spec", "--rootless", "-b", str(folder)).returncode == 0
    linux = json.loads((folder / "config.json").read_text())["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": USER, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": GROUP, "size": 1}]


def test_a_user_is_root_inside(folder: Path, interpreter: Path | None) -> None:
    bundle = add(folder, python(VIEW, "/proc/keys"), interpreter, lambda config: config["root"].update(readonly=False))
    done = run(folder, MINIRUNC, "run", "-b", bundle, "box")
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["users"] == [[0, 0, 0], [0, 0, 0], []]
    assert (seen["pid"], seen["hostname"], seen["masked"]) == (1, "minirunc", {"/proc/keys": 0})
    assert list((folder / "minirunc").iterdir()) == []  # the state was where XDG_RUNTIME_DIR says


@pytest.mark.skipif(not shutil.which("runc"), reason="there is no runc")
def test_the_view_is_as_with_runc(folder: Path, interpreter: Path | None) -> None:
    bundle = add(folder, python(VIEW, "/proc/keys:/sys/firmware:/proc/acpi"), interpreter)
    ours = run(folder, MINIRUNC, "run", "-b", bundle, "box")
    theirs = run(folder, "runc", "run", "-b", bundle, "box")
    assert (ours.stderr, theirs.stderr) == ("", "")
    views = [json.loads(done.stdout) for done in (ours, theirs)]
    for path in {path for seen in views for path in seen["mounts"] if path.startswith("/sys/")}:
        # /sys is bound with all that is mounted below it, to be read only: runc lets that be written to.
        below = [seen["mounts"].pop(path, None) for seen in views]
        assert below[0]
        assert "ro" in below[0][1].split(",")
    found = differences(*views)
    found.pop("streams", None)  # runc copies to and fro between pipes of its own
    assert found == {}


def test_descriptors_are_passed(folder: Path, interpreter: Path | None) -> None:
    code = "import os; print(os.environ['LISTEN_FDNAMES'], os.environ['LISTEN_PID'], os.fstat(3).st_ino)"
    bundle = add(folder, python(code), interpreter)
    with tcp_listener() as listener:
        launcher = ("env", "LISTEN_FDNAMES=web", sys.executable, "-S", "-c", EXEC, str(listener.fileno()))
        done = run(folder, *launcher, MINIRUNC, "run", "-b", bundle, "box", pass_fds=[listener.fileno()])
        assert (done.stdout, done.stderr) == (f"web 1 {inode(listener)}\n", "")


def refused(folder: Path, said: str, change: Any) -> None:
    done = run(folder, MINIRUNC, "run", "-b", add(folder, ["true"], folder, change), "box")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert said in done.stderr
    assert not (folder / "minirunc").exists() or list((folder / "minirunc").iterdir()) == []


def test_without_a_user_namespace_a_user_is_told_so(folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].remove({"type": "user"})
        del config["linux"]["uidMappings"], config["linux"]["gidMappings"]

    refused(folder, "linux.namespaces has no user; expected it of whoever is not root", change)


def more_users(size: int = SIZE) -> Any:
    def change(config: dict[str, Any]) -> None:
        for mappings in (config["linux"]["uidMappings"], config["linux"]["gidMappings"]):
            mappings.append({"containerID": 1, "hostID": FIRST, "size": size})

    return change


def test_more_users_take_newuidmap(folder: Path, tmp_path: Path) -> None:
    bundle = add(folder, ["true"], folder, more_users())
    done = run(folder, "env", f"PATH={tmp_path}", MINIRUNC, "run", "-b", bundle, "box")
    assert done.returncode == 1
    assert done.stderr == (
        "minirunc: linux.uidMappings take newuidmap (of the package uidmap), which is not installed; "
        f"expected it, or one mapping of size 1 to the hostID {USER}\n"
    )


@pytest.fixture
def ranges(tmp_path: Path) -> Path:
    """A folder of files as in /etc, by which the user has more users than one."""
    if os.geteuid() != 0:
        pytest.skip("giving a user more users takes root")
    if not shutil.which("newuidmap"):
        pytest.skip("there is no newuidmap (of the package uidmap)")
    users = [line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[2] != str(USER)]
    (tmp_path / "passwd").write_text("\n".join([*users, f"minirunc:x:{USER}:{GROUP}::/:/bin/sh", ""]))
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(f"minirunc:{FIRST}:{SIZE}\n")
    return tmp_path


def run_with_ranges(folder: Path, ranges: Path, bundle: str) -> subprocess.CompletedProcess[str]:
    become = [option for option in BECOME_USER if not option.startswith("--bounding-set")]
    return subprocess.run(
        [*BECOME_USER_WITH_RANGES, str(ranges), *become, MINIRUNC, "run", "-b", bundle, "box"],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_a_user_with_more_users_has_them_inside(folder: Path, interpreter: Path | None, ranges: Path) -> None:
    code = """
import os
print([open(f"/proc/self/{which}_map").read().split() for which in ("uid", "gid")])
print(os.getresuid(), os.getresgid(), os.getgroups())
os.chown("/run/file", 10, 1)
"""

    def change(config: dict[str, Any]) -> None:
        more_users()(config)
        for names in config["process"]["capabilities"].values():
            names.append("CAP_CHOWN")
        config["process"]["user"] = {"uid": 0, "gid": 3, "additionalGids": [4, 10]}
        config["mounts"].append({"destination": "/run", "type": "bind", "source": str(folder), "options": ["bind"]})

    (folder / "file").touch()
    os.chown(folder / "file", USER, GROUP)
    done = run_with_ranges(folder, ranges, add(folder, python(code), interpreter, change))
    maps = [["0", str(own), "1", "1", str(FIRST), str(SIZE)] for own in (USER, GROUP)]
    assert done.stderr == ""
    assert done.stdout == f"{maps}\n(0, 0, 0) (3, 3, 3) [4, 10]\n"
    status = (folder / "file").stat()
    assert (status.st_uid, status.st_gid) == (FIRST + 9, FIRST)


def test_killed_while_newuidmap_runs_it_leaves_no_state(folder: Path) -> None:
    helper = folder / "newuidmap"  # one that takes its time
    helper.write_text(f"#!/bin/sh\necho $$ >{folder}/new\nmv {folder}/new {folder}/pid\nexec sleep 1000\n")
    helper.chmod(0o755)
    bundle = add(folder, ["true"], folder, more_users())
    command = [*(BECOME_USER if os.geteuid() == 0 else ()), MINIRUNC, "run", "-b", bundle, "box"]
    env = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL) as process:
        try:
            eventually((folder / "pid").exists, "the helper runs")
            assert list((folder / "minirunc").iterdir()) != []
        finally:
            process.kill()
    try:
        eventually(lambda: list((folder / "minirunc").iterdir()) == [], "the state is gone")
    finally:
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)


def test_more_users_than_there_are_is_told(folder: Path, ranges: Path) -> None:
    done = run_with_ranges(folder, ranges, add(folder, ["true"], folder, more_users(SIZE + 1)))
    assert done.returncode == 1
    assert done.stderr.startswith("minirunc: linux.uidMappings: newuidmap: ")  # and what that has to say
    assert done.stderr.endswith("; expected what /etc/subuid allows\n")
    assert done.stderr.count("\n") == 1
    assert list((folder / "minirunc").iterdir()) == []


def test_what_a_user_may_not_do_is_told(folder: Path) -> None:
    refused(folder, "process.user", lambda config: config["process"]["user"].update(additionalGids=[0]))


def test_what_a_user_may_not_raise_is_told(folder: Path) -> None:
    limits = [{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]
    refused(folder, "process.rlimits: RLIMIT_NOFILE cannot be", lambda config: config["process"].update(rlimits=limits))


def test_without_a_folder_for_its_state_a_user_is_told_so(folder: Path) -> None:
    done = run(folder, "env", "-u", "XDG_RUNTIME_DIR", MINIRUNC, "list")
    assert done.returncode == 1
    assert "XDG_RUNTIME_DIR is not set; expected it, or --root" in done.stderr
