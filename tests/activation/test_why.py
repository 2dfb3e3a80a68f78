"""Why nothing was passed: what files() warns of, and what errors and ``python -m activation`` say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import activation
from activation import _files
from tests.children import output, run_activated, tcp_listener, udp_socket
from tests.commands import LIMIT

from .test_files import has_pidfs

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOW = "print(len(activation.files())); print(activation.why_nothing_was_passed())"
CHILD = "import activation, os; print(len(activation.files({arguments}))); print(activation.why_nothing_was_passed())"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _files.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def passed() -> Iterator[list[socket.socket]]:
    with tcp_listener() as tcp, udp_socket() as udp:
        yield [tcp, udp]


def behind_a_shell(passed: list[socket.socket], arguments: str = "", shell: str = "{}; true") -> tuple[str, str]:
    """Run files() in the child of a shell that is activated; return what is printed and the log."""
    command = shell.format(f"{sys.executable} -c '{CHILD.format(arguments=arguments)}'")
    code = f"os.set_inheritable(3, True); os.set_inheritable(4, True); os.execv('/bin/sh', ['sh', '-c', {command!r}])"
    done = run_activated(code, passed)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_shell_that_is_the_parent_is_told_and_that_exec_helps(passed: list[socket.socket]) -> None:
    said, log = behind_a_shell(passed)
    assert said.startswith("0\n")
    for text in (said, log):
        assert re.search(
            r"LISTEN_FDS is 2, but LISTEN_PID is \d+, which is its parent \(sh\), and this process is", text
        )
        assert "start the program by exec" in text
        assert "activation.files(pid=os.getppid())" in text
    assert log.startswith("no descriptors were passed: ")
    assert log.count("\n") == 1


def test_with_exec_nothing_is_said(passed: list[socket.socket]) -> None:
    said, log = behind_a_shell(passed, shell="exec {}")
    assert said.startswith("2\n")
    assert log == ""


def test_who_knows_of_the_wrapper_takes_what_was_passed_to_it(passed: list[socket.socket]) -> None:
    said, log = behind_a_shell(passed, "pid=os.getppid()")
    assert said.startswith("2\n")
    assert log == ""


@pytest.mark.skipif(not has_pidfs(), reason="the kernel has no pidfs")
def test_the_wrappers_pidfd_number_is_checked_too(passed: list[socket.socket]) -> None:
    code = (
        "child = os.fork()\n"
        "if not child:\n"
        "    print(len(activation.files(pid=os.getppid())), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    env = {"LISTEN_PID": "self", "LISTEN_FDS": "2"}
    assert output(code, passed, {**env, "LISTEN_PIDFDID": "self"}) == "2"
    done = run_activated(code, passed, {**env, "LISTEN_PIDFDID": "1"})
    assert done.stdout.strip() == "0"
    assert "LISTEN_PIDFDID is 1, which is another process's" in done.stderr


def test_what_was_passed_to_a_process_that_is_gone_is_not_taken(passed: list[socket.socket]) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    code = f"print(len(activation.files(pid={ended.pid})))"
    done = run_activated(code, passed, {"LISTEN_PID": str(ended.pid), "LISTEN_FDS": "2"})
    assert done.stdout.strip() == "0"
    assert f"LISTEN_PID is {ended.pid}, but there is no such process any more" in done.stderr


def test_an_ancestor_is_told(passed: list[socket.socket]) -> None:
    said, _ = behind_a_shell(passed, shell='sh -c "$(cat <<"END"\n{}; true\nEND\n)"; true')
    assert "which is an ancestor of it (sh)" in said
    assert "each wrapper in between has to start the next program by exec" in said


def test_a_process_that_is_gone_is_told() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    done = run_activated(SHOW, [], {"LISTEN_PID": str(ended.pid), "LISTEN_FDS": "1"})
    assert f"LISTEN_PID is {ended.pid}, which is a process that does not exist (any more)" in done.stdout


def test_a_process_without_relation_is_told() -> None:
    with subprocess.Popen(["sleep", "100"]) as other:
        done = run_activated(SHOW, [], {"LISTEN_PID": str(other.pid), "LISTEN_FDS": "1"})
        other.kill()
    assert f"LISTEN_PID is {other.pid}, which is another process (sleep)" in done.stdout
    assert "they were left in the environment for somebody else" in done.stdout


@pytest.mark.skipif(not has_pidfs(), reason="the kernel has no pidfs")
def test_a_pidfd_number_that_is_another_process_is_told(passed: list[socket.socket]) -> None:
    done = run_activated(SHOW, passed, {"LISTEN_PID": "self", "LISTEN_FDS": "2", "LISTEN_PIDFDID": "1"})
    assert done.stdout.startswith("0\n")
    assert "which is right, but LISTEN_PIDFDID is 1, which is another process's" in done.stdout
    assert "must unset LISTEN_PIDFDID" in done.stderr


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"LISTEN_FDS": "2"}, "LISTEN_FDS is 2, but LISTEN_PID is not set"),
        (
            {"LISTEN_FDS": "0", "LISTEN_PID": "self"},
            "LISTEN_FDS is 0: whatever started this process passed no descriptors",
        ),
    ],
)
def test_other_reasons_are_told_and_warned_of(env: dict[str, str], words: str) -> None:
    done = run_activated(SHOW, [], env)
    assert words in done.stdout
    assert words in done.stderr


def test_without_the_variables_there_is_a_reason_and_no_warning() -> None:
    done = run_activated(SHOW, [], {})
    assert "LISTEN_FDS is not set; start the program by its socket unit" in done.stdout
    assert done.stderr == ""


def test_a_socket_on_standard_input_is_told_with_what_takes_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [sys.executable, "-c", f"import activation; {SHOW}"],
            stdin=theirs.fileno(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
        )
    assert "standard input is a socket, as StandardInput=socket" in done.stdout
    assert 'activation.listeners([activation.File(0, "stdin")])' in done.stdout
    assert done.stderr == ""


def test_a_second_call_is_told() -> None:
    with tcp_listener() as tcp:
        said = output("activation.files(); " + SHOW, [tcp])
    assert said == "0\nan earlier call of files() has returned what was passed; call it once, and keep what it returns"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"LISTEN_FDS": "1", "LISTEN_PID": "x"}, "LISTEN_PID is 'x'; expected a plain decimal number"),
        ({"LISTEN_FDS": "1", "LISTEN_PID": "self"}, "LISTEN_FDS is 1, and files() was not called yet"),
    ],
)
def test_the_reason_can_be_asked_for_before_files_is_called(env: dict[str, str], words: str) -> None:
    with tcp_listener() as tcp:
        assert words in output("print(activation.why_nothing_was_passed())", [tcp], env)


def test_the_reason_is_known_when_the_variables_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert activation.files() == []
    assert "LISTEN_FDS" not in os.environ
    assert "LISTEN_PID is 1, which is an ancestor" in activation.why_nothing_was_passed()


async def test_the_error_of_serve_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(activation.ActivationError, match=r"nothing to serve: LISTEN_FDS is 1, but LISTEN_PID is 1"):
        await activation.serve(lambda _: None)  # type: ignore[arg-type,return-value]


def test_a_warning_loads_logging_and_nothing_else_does() -> None:
    code = "before = set(sys.modules); activation.files(); print({'logging', 'trio'} & set(sys.modules) - before)"
    assert output(code, [], {}) == "set()"
    done = run_activated(code, [], {"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert done.stdout.strip() == "{'logging'}"


# python -m activation


def test_as_a_program_it_tells_what_was_passed(passed: list[socket.socket]) -> None:
    reading, writing = os.pipe()
    code = "import runpy; runpy.run_module('activation', run_name='__main__')"
    env = {
        "LISTEN_PID": "self",
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "web:dns:pipe",
        "NOTIFY_SOCKET": "/run/n",
        "WATCHDOG_USEC": "2000000",
    }
    try:
        done = run_activated(code, [*passed, reading], env)
    finally:
        os.close(reading)
        os.close(writing)
    lines = done.stdout.splitlines()
    assert re.fullmatch(rf"activation {activation.__version__}, Python [\d.]+, process \d+", lines[0])
    tcp, udp = (f"127.0.0.1:{sock.getsockname()[1]}" for sock in passed)
    assert lines[1:4] == [
        "3 descriptors were passed:",
        f"  3  web  listening AF_INET SOCK_STREAM at {tcp}",
        f"  4  dns  unconnected AF_INET SOCK_DGRAM at {udp}",
    ]
    assert re.fullmatch(r"  5  pipe  FIFO pipe:\[\d+\]", lines[4])
    assert lines[5:] == ["notifications go to /run/n", "the service manager expects WATCHDOG=1 every 2 seconds"]


def test_as_a_program_it_tells_why_nothing_was_passed() -> None:
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))
    }
    command = [sys.executable, "-m", "activation"]
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
    )
    assert "no descriptors were passed: LISTEN_FDS is not set; start the program by" in done.stdout
    assert "notifications go nowhere: NOTIFY_SOCKET is not set" in done.stdout
    env["WATCHDOG_USEC"] = "soon"
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "WATCHDOG_USEC is 'soon'; expected a plain decimal number of at most 20 digits; "
        "whatever started this process must set it so, or unset it\n"
    )
