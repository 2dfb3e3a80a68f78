"""What an activation passed to minirunc arrives in the container, under its name."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import bundles
from tests.bundles import MINIRUNC, VIEW, add_bundle, python
from tests.children import inode, run_activated, tcp_listener
from tests.commands import CLIENT, LIMIT, SOCKET_ACTIVATE, connect, echoed, receive, run, running
from tests.minirunc.test_run import no_pid_namespace

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")

SHOW = """
import json, os
numbers = [number for number in range(100) if os.path.lexists(f"/proc/self/fd/{number}")]
print(json.dumps({
    "pid": os.getpid(),
    "inodes": [os.fstat(number).st_ino for number in numbers[3:]],
    "numbers": numbers,
    "environment": {name: value for name, value in os.environ.items() if name.startswith("LISTEN_")},
}))
"""


def shown(
    tmp_path: Path, passed: Sequence[socket.socket], listen_fds: int, *options: str, names: str = "", change: Any = None
) -> dict[str, Any]:
    """What a container shows whose minirunc was started with ``passed``, the first ``listen_fds`` by LISTEN_FDS."""
    change = change or (lambda _: None)
    bundle = add_bundle(tmp_path / "bundle", python(SHOW), change)
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), *options, "box"]
    env = {"LISTEN_FDNAMES": names} if names else {}
    if listen_fds:
        env |= {"LISTEN_PID": "self", "LISTEN_FDS": str(listen_fds)}
    done = run_activated(f"os.execv({command[0]!r}, {command!r})", passed, env)
    assert (done.returncode, done.stderr) == (0, "")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_descriptors_come_in_order_under_their_names(tmp_path: Path) -> None:
    with tcp_listener() as one, tcp_listener() as two:
        seen = shown(tmp_path, [two, one], 2, names="two:one")
        assert seen["inodes"] == [inode(two), inode(one)]
    assert seen["numbers"] == [0, 1, 2, 3, 4]
    assert seen["environment"] == {"LISTEN_FDS": "2", "LISTEN_PID": "1", "LISTEN_FDNAMES": "two:one"}


def test_without_a_pid_namespace_listen_pid_is_the_process_number(tmp_path: Path) -> None:
    with tcp_listener() as one:
        seen = shown(tmp_path, [one], 1, names="one", change=no_pid_namespace)
    assert seen["pid"] > 1
    assert seen["environment"].pop("LISTEN_PIDFDID", None) is not None or os.uname().release < "6.9"
    assert seen["environment"] == {"LISTEN_FDS": "1", "LISTEN_PID": str(seen["pid"]), "LISTEN_FDNAMES": "one"}


def test_the_bundles_own_variables_of_an_activation_count_for_nothing(tmp_path: Path) -> None:
    lies = ["LISTEN_FDS=9", "LISTEN_PID=1", "LISTEN_FDNAMES=a:b", "LISTEN_PIDFDID=3"]
    with tcp_listener() as one:
        seen = shown(tmp_path, [one], 1, change=lambda config: config["process"].update(env=lies))
        assert seen["environment"] == {"LISTEN_FDS": "1", "LISTEN_PID": "1"}
    shutil.rmtree(tmp_path / "bundle")
    seen = shown(tmp_path, [], 0, change=lambda config: config["process"].update(env=lies))
    assert (seen["environment"], seen["numbers"]) == ({}, [0, 1, 2])


def test_preserved_descriptors_follow_and_are_not_counted(tmp_path: Path) -> None:
    with tcp_listener() as one, tcp_listener() as two, tcp_listener() as three:
        seen = shown(tmp_path, [one, two, three], 1, "--preserve-fds", "2", names="one")
        assert seen["inodes"] == [inode(one), inode(two), inode(three)]
        assert seen["environment"] == {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "one"}
        shutil.rmtree(tmp_path / "bundle")
        seen = shown(tmp_path, [one, two, three], 0, "--preserve-fds=2")
        assert seen["inodes"] == [inode(one), inode(two)]
        assert seen["environment"] == {}


def test_of_preserved_descriptors_the_configuration_may_tell(tmp_path: Path) -> None:
    # That is how podman passes the descriptors of an activation on.
    env = ["LISTEN_FDS=2", "LISTEN_PID=1", "LISTEN_FDNAMES=web:admin"]
    with tcp_listener() as one, tcp_listener() as two, tcp_listener() as three:
        options = ("--preserve-fds", "3")
        seen = shown(tmp_path, [one, two, three], 0, *options, change=lambda config: config["process"].update(env=env))
        assert seen["inodes"] == [inode(one), inode(two), inode(three)]
    assert seen["environment"] == {"LISTEN_FDS": "2", "LISTEN_PID": "1", "LISTEN_FDNAMES": "web:admin"}


def test_it_may_tell_of_no_more_than_are_passed(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path / "bundle", ["true"], lambda c: c["process"].update(env=["LISTEN_FDS=2"]))
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "--preserve-fds=1", "-b", str(bundle), "box"]
    with tcp_listener() as one:
        done = run_activated(f"os.execv({command[0]!r}, {command!r})", [one], {})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "process.env has LISTEN_FDS=2; expected at most 1" in done.stderr


def test_a_preserved_descriptor_that_is_not_open_is_an_error(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path / "bundle", ["true"])
    done = run(MINIRUNC, "--root", str(tmp_path / "state"), "run", "--preserve-fds=2", "-b", str(bundle), "box")
    assert done.returncode == 1
    assert b"--preserve-fds is 2; expected descriptors 3 to 4 to be open, but 3 is not" in done.stderr
    assert not (tmp_path / "state").exists()


def test_variables_that_cannot_be_true_are_an_error(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path / "bundle", ["true"])
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box"]
    done = run_activated(f"os.execv({command[0]!r}, {command!r})", [], {"LISTEN_PID": "self", "LISTEN_FDS": "x"})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "LISTEN_FDS is 'x'" in done.stderr


def test_a_connection_ends_when_the_container_closes_it(tmp_path: Path) -> None:
    code = "import socket, signal; socket.socket(fileno=3).close(); signal.pause()"
    bundle = add_bundle(tmp_path / "bundle", python(code))
    ours, theirs = socket.socketpair()
    ours.settimeout(LIMIT)
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "--preserve-fds=1", "box"]
    with running(*command, passed=[theirs]) as process:
        theirs.close()
        with ours:
            assert receive(ours, 1) == b""  # neither minirunc nor its guardian keeps a copy
        process.kill()


def foobard_bundle(tmp_path: Path) -> Path:
    return add_bundle(tmp_path / "bundle", [], bundles.with_foobard)


def test_foobard_is_pid_1_behind_socket_activate(tmp_path: Path) -> None:
    path = tmp_path / "foobar.sk"
    container = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(foobard_bundle(tmp_path)), "box"]
    with running(SOCKET_ACTIVATE, "-l", str(path), "--", *container, until=b"listening on", status=0):
        assert run(CLIENT, str(path), stdin=b"hello\n").stdout == b"connect success !\nhello\n"
        with connect(path) as sock:
            assert echoed(sock, b"again") == b"again"
        assert run(MINIRUNC, "--root", str(tmp_path / "state"), "list", "-q").stdout == b"box\n"
    # SIGTERM went through minirunc to foobard, which ended well.
    assert os.listdir(tmp_path / "state") == []


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="there is no systemd-socket-activate")
def test_foobard_is_pid_1_behind_systemd_socket_activate(tmp_path: Path) -> None:
    path = tmp_path / "foobar.sk"
    container = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(foobard_bundle(tmp_path)), "box"]
    peer = ["systemd-socket-activate", "-l", str(path), "--fdname=web"]
    with running(*peer, *container, until=b"Listening on", status=0):
        assert run(CLIENT, str(path), stdin=b"hello\n").stdout == b"connect success !\nhello\n"
    assert os.listdir(tmp_path / "state") == []


@pytest.mark.skipif(not shutil.which("gcc"), reason="there is no C compiler")
def test_a_c_program_echoes(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "bench" / "programs" / "echo.c"
    bundle = add_bundle(tmp_path / "bundle", ["/echo"])
    assert run("gcc", "-o", str(bundle / "rootfs" / "echo"), str(source)).returncode == 0
    path = tmp_path / "echo.sk"
    container = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box"]
    with running(SOCKET_ACTIVATE, "-l", str(path), "--", *container, until=b"listening on", status=0):
        with connect(path) as sock:
            assert echoed(sock, b"hello") == b"hello"
        with connect(path) as sock:  # the next one starts the next container
            assert echoed(sock, b"again") == b"again"


def test_the_view_of_a_container_is_its_own(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path / "bundle", python(VIEW, "/proc/keys"))
    seen = json.loads(run(MINIRUNC, "--root", str(tmp_path / "s"), "run", "-b", str(bundle), "box").stdout)
    assert (seen["pid"], seen["session"], seen["hostname"], seen["descriptors"]) == (1, 1, "minirunc", [0, 1, 2])
    assert seen["interfaces"] == [[1, "lo"]]
    assert not any("/bundle" in mount for mount in seen["mounts"])
    assert seen["masked"] == {"/proc/keys": 0}
    assert seen["writable"] == {"/": False, "/proc/sys": False, "/sys": False, "/dev": True}
    assert seen["signals"]["SigBlk"] == 0


@pytest.mark.parametrize(
    ("propagation", "fields"), [("shared", ["shared:"]), ("private", []), ("unbindable", ["unbindable"])]
)
def test_the_roots_propagation_is_as_wanted(tmp_path: Path, propagation: str, fields: list[str]) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["rootfsPropagation"] = propagation

    bundle = add_bundle(tmp_path / "bundle", python(VIEW, ""), change)
    options = ("--permissive=propagation", "-b", str(bundle))
    seen = json.loads(run(MINIRUNC, "--root", str(tmp_path / "s"), "run", *options, "box").stdout)
    assert [field.rstrip("0123456789") for field in seen["mounts"]["/"][2]] == fields
