from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.commands import (
    CLIENT,
    FOOBARD,
    LIMIT,
    SOCKET_ACTIVATE,
    alive,
    children,
    connect,
    echoed,
    eventually,
    free_port,
    receive,
    run,
    running,
    said,
)

# Accepts one connection, tells it what it sees, and ends.
TELL = """
import json, os, socket
listener = socket.socket(fileno=3)
conn = listener.accept()[0]
seen = {name: value for name, value in os.environ.items() if name.startswith("LISTEN_")}
conn.sendall(json.dumps([seen, os.getpid(), os.get_blocking(3)]).encode())
os.set_blocking(3, False)
"""

# socket-activate whose limit of starts holds for as long as they take here, not for two seconds.
PATIENT = """
import functools, sys
from activation_cmd.socket_activate import command_line, main
command_line.SocketUnit = functools.partial(command_line.SocketUnit, trigger_limit_interval=1e6)
sys.exit(main.main())
"""


def test_the_program_starts_with_the_first_client_and_echoes(tmp_path: Path) -> None:
    path = tmp_path / "foobar.sk"
    with running(SOCKET_ACTIVATE, "-l", str(path), FOOBARD, until=b"listening on", status=0) as process:
        assert path.is_socket()
        assert children(process.pid) == []
        done = run(CLIENT, str(path), stdin=b"hello\n")
        assert done.stdout == b"connect success !\nhello\n"
        assert b"a client came; started" in said(process, b"started")
        assert len(children(process.pid)) == 1
    assert not path.exists()


def test_several_sockets_of_several_kinds_come_with_their_names(tmp_path: Path) -> None:
    port = free_port()
    tell = TELL.replace("fileno=3", "fileno=4")
    command = [SOCKET_ACTIVATE, "-l", str(tmp_path / "a.sk"), "-l", f"127.0.0.1:{port}", "-l", f"@{tmp_path}"]
    with running(*command, "--fdname", "a:b:c", "--", sys.executable, "-c", tell, until=b"on @"):
        with connect(("127.0.0.1", port)) as client:
            seen, pid, blocking = json.loads(receive(client, 1 << 16))
            assert seen.pop("LISTEN_PIDFDID", "")
            assert seen == {"LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "LISTEN_PID": str(pid)}
            assert blocking


def test_the_next_client_after_an_exit_starts_it_again_and_nobody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    answers = []

    def ask() -> None:
        with connect(path) as client:
            answers.append(receive(client, 1 << 16))

    with running(SOCKET_ACTIVATE, "-l", str(path), sys.executable, "-S", "-c", TELL, until=b"listening") as process:
        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert len(set(answers)) == 20
        assert all(answer.endswith(b"true]") for answer in answers)  # it blocks again, whatever the last run did
        assert b"exited with status 0" in said(process, b"exited")


def test_a_program_that_was_killed_is_started_again(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with running(SOCKET_ACTIVATE, "-l", str(path), FOOBARD, until=b"listening") as process:
        for _ in range(5):
            with connect(path) as client:
                assert echoed(client, b"word") == b"word"
                os.kill(children(process.pid)[0], signal.SIGKILL)
                assert echoed(client, b"again") == b"again"  # its connections outlive foobard
            said(process, b"was ended by SIGKILL")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_and_removes_the_path(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "a.sk"
    with running(SOCKET_ACTIVATE, "-l", str(path), FOOBARD, until=b"listening", status=0) as process:
        with connect(path) as client:
            assert echoed(client, b"word") == b"word"
            (child,) = children(process.pid)
            process.send_signal(number)
            said(process, b"no more clients are accepted")
            assert echoed(client, b"still there") == b"still there"
        assert process.wait(LIMIT) == 0
    assert not alive(child)
    assert not path.exists()


def test_a_terminals_interrupt_reaches_the_program_once(tmp_path: Path) -> None:
    # Ctrl-C is a SIGINT for the whole group; a second signal would cut the program's clients.
    path = tmp_path / "a.sk"
    with subprocess.Popen(
        [SOCKET_ACTIVATE, "-l", path, FOOBARD], stderr=subprocess.PIPE, bufsize=0, process_group=0
    ) as process:
        said(process, b"listening")
        with connect(path) as client:
            assert echoed(client, b"word") == b"word"
            os.killpg(process.pid, signal.SIGINT)
            said(process, b"no more clients are accepted")
            assert echoed(client, b"still there") == b"still there"
        assert process.wait(LIMIT) == 0


def test_a_signal_before_any_client_ends_it_at_once(tmp_path: Path) -> None:
    with running(SOCKET_ACTIVATE, "-l", str(tmp_path / "a.sk"), FOOBARD, until=b"listening", status=0):
        pass
    assert not (tmp_path / "a.sk").exists()


def test_a_second_signal_ends_a_program_that_does_not_listen_to_the_first(tmp_path: Path) -> None:
    stubborn = "import signal, socket; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TELL + "conn.recv(1)"
    path = tmp_path / "a.sk"
    with running(SOCKET_ACTIVATE, "-l", str(path), sys.executable, "-c", stubborn, until=b"listening") as process:
        with connect(path) as client:
            assert client.recv(1)
            process.terminate()
            said(process, b"ending pid")
            process.terminate()
            assert process.wait(LIMIT) == 0


def test_it_ends_the_program_also_when_nobody_reads_its_messages_any_more(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with running(SOCKET_ACTIVATE, "-l", str(path), FOOBARD, until=b"listening", status=0) as process:
        assert process.stderr
        process.stderr.close()
        with connect(path) as client:
            assert echoed(client, b"word") == b"word"
        (child,) = children(process.pid)
        process.terminate()
        assert process.wait(LIMIT) == 0
    assert not alive(child)
    assert not path.exists()


def test_a_signal_that_comes_together_with_the_programs_end_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    once = "import socket; conn = socket.socket(fileno=3).accept()[0]; conn.send(b'!'); conn.recv(1)"
    chosen = random.Random(4)
    for _ in range(25):
        with running(SOCKET_ACTIVATE, "-l", str(path), sys.executable, "-S", "-c", once, until=b"listening") as process:
            with connect(path) as client:
                assert client.recv(1)
            threading.Event().wait(chosen.uniform(0, 0.012))
            process.terminate()
            assert process.wait(LIMIT) == 0


def test_a_stale_path_is_taken_over_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with running(SOCKET_ACTIVATE, "-l", str(path), FOOBARD, until=b"listening"):
        done = run(SOCKET_ACTIVATE, "-l", str(path), FOOBARD)
        assert done.returncode == 1
        assert done.stderr.decode() == f"socket-activate: cannot listen on {path}: it is in use by another process\n"
        with connect(path) as client:
            assert echoed(client, b"word") == b"word"


def test_a_path_that_somebody_else_took_over_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with running(SOCKET_ACTIVATE, "-l", str(path), FOOBARD, until=b"listening"):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


def test_what_was_made_before_a_failure_is_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(SOCKET_ACTIVATE, "-l", str(tmp_path / "new" / "a.sk"), "-l", str(tmp_path / "file" / "b.sk"), FOOBARD)
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["-l", "./a.sk"], 2, "there is no COMMAND"),
        ([], 2, "expected -l ADDR and a COMMAND, or unit files"),
        (["-l", "..:80", "true"], 2, "'..:80' has a host name that cannot be one; expected"),
        (["-l", "1:2:3", "true"], 2, "'1:2:3' is no address"),
        (["-l", "./a.sk", "--fdname", "a:b", "true"], 2, "--fdname has 2 names for 1 addresses"),
        (["-l", "./a.sk", "surely-no-such-program"], 127, "there is no such program"),
        (["-l", "./a.sk", "/etc/passwd"], 126, "it may not run"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_made(
    tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    done = subprocess.run(
        [SOCKET_ACTIVATE, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_fails_is_started_again_more_and_more_slowly(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with running(SOCKET_ACTIVATE, "-l", str(path), "false", until=b"listening") as process:
        with connect(path):
            text = said(process, b"in 0.4 s at the earliest")
        assert b"in 0.1 s" in text
        assert text.count(b"exited with status 1") == 3


def test_a_program_that_leaves_its_clients_waiting_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with running(sys.executable, "-c", PATIENT, "-l", str(path), "true", until=b"listening") as process:
        with connect(path):
            eventually(lambda: process.poll() is not None, "it has given up")
        assert process.returncode == 1
    assert not path.exists()


def test_a_signal_that_comes_together_with_a_client_ends_what_that_started(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    chosen = random.Random(5)
    for _ in range(20):
        with running(SOCKET_ACTIVATE, "-l", str(path), "sleep", "60", until=b"listening", status=0) as process:
            eventually(lambda: waits(process.pid), "a child waits for the client")
            with connect(path):
                threading.Event().wait(chosen.uniform(0, 0.003))
                process.terminate()
                assert process.wait(LIMIT) == 0


def waits(pid: int) -> bool:
    """Whether socket-activate has its executor, a child that waits for a client, and one that waits for its order."""
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) > 2


def test_what_socket_activate_had_as_a_child_before_is_left_alone(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! >&2; exec {SOCKET_ACTIVATE} -l {tmp_path}/a.sk true"
    with running("sh", "-c", script, until=b"listening", status=0) as process:
        (sleeping,) = children(process.pid)
    assert alive(sleeping)
    os.kill(sleeping, signal.SIGKILL)
