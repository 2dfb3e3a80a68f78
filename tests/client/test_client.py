from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from tests.children import tcp_listener
from tests.commands import CLIENT, FOOBARD, LIMIT, SOCKET_ACTIVATE, free_port, receive, run, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUCCESS = b"connect success !\n"


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[str]:
    """The path of a foobard's socket."""
    path = str(tmp_path / "foobar.sk")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        with running(FOOBARD, passed=[sock]):
            yield path


def test_it_says_that_it_is_connected_and_echoes_each_line(echo: str) -> None:
    done = run(CLIENT, echo, stdin=b"hello\nworld\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, SUCCESS + b"hello\nworld\n", b"")


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"no newline at the end", b"a\nb", bytes(range(256)), b"x" * 3_000_001], ids=len
)
def test_every_byte_comes_back(echo: str, data: bytes) -> None:
    done = run(CLIENT, echo, stdin=data)
    assert (done.returncode, done.stdout) == (0, SUCCESS + data)


def test_it_prints_an_answer_before_the_next_line_is_typed(echo: str) -> None:
    with subprocess.Popen([CLIENT, echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.read(len(SUCCESS)) == SUCCESS
        for line in (b"one\n", b"two\n"):
            process.stdin.write(line)
            assert process.stdout.read(len(line)) == line
        process.stdin.close()
        assert process.wait(LIMIT) == 0


def test_what_still_comes_after_the_end_of_input_is_printed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.sk"))
        server.listen()
        with subprocess.Popen([CLIENT, tmp_path / "s.sk"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            conn, _ = server.accept()
            with conn:
                assert conn.recv(100) == b""  # it has closed its sending half
                conn.sendall(b"still here\n")
            assert process.stdout
            assert process.stdout.read() == SUCCESS + b"still here\n"
            assert process.wait(LIMIT) == 0


def test_reading_and_printing_go_on_at_the_same_time(tmp_path: Path) -> None:
    # A server that sends more than any buffer holds before it reads: only who does both gets through.
    data = bytes(5_000_000)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.sk"))
        server.listen()

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                conn.sendall(data)
                assert len(receive(conn, len(data))) == len(data)
                assert conn.recv(1) == b""  # who closes before that has gone away

        thread = threading.Thread(target=serve)
        thread.start()
        done = run(CLIENT, str(tmp_path / "s.sk"), stdin=data)
        thread.join()
    assert (done.returncode, len(done.stdout)) == (0, len(SUCCESS) + len(data))


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "localhost:{}", "[::ffff:127.0.0.1]:{}", "{}"])
def test_addresses_of_tcp(form: str) -> None:
    with tcp_listener() as tcp, running(FOOBARD, passed=[tcp]):
        done = run(CLIENT, form.format(tcp.getsockname()[1]), stdin=b"word\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, SUCCESS + b"word\n", b"")


def test_an_abstract_address(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"\0{tmp_path}")
        sock.listen()
        with running(FOOBARD, passed=[sock]):
            assert run(CLIENT, f"@{tmp_path}", stdin=b"word\n").stdout == SUCCESS + b"word\n"


def test_an_absent_server_is_one_line_and_exit_1(tmp_path: Path) -> None:
    port = free_port()
    for address in (str(tmp_path / "none.sk"), f"@{tmp_path}", f"127.0.0.1:{port}", "no.such.host.invalid:1"):
        done = run(CLIENT, address)
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.decode().startswith(f"client: cannot connect to {address}: ")
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_server_that_goes_away_is_one_line_and_exit_1(tmp_path: Path, how: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.sk"))
        server.listen()
        with subprocess.Popen(
            [CLIENT, tmp_path / "s.sk"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        ) as process:
            conn, _ = server.accept()
            assert process.stdin
            process.stdin.write(b"half a conversation\n")
            if how == "closes":
                assert conn.recv(100)
                conn.sendall(b"last words\n")
            conn.close()
            assert process.wait(LIMIT) == 1
            assert process.stdout
            assert process.stdout.read() == SUCCESS + (b"last words\n" if how == "closes" else b"")
            assert process.stderr
            said = process.stderr.read()
            assert said == f"client: the server at {tmp_path}/s.sk went away\n".encode()


def test_an_interrupt_ends_it_without_a_traceback(echo: str) -> None:
    with subprocess.Popen(
        [CLIENT, echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout
        assert process.stdout.read(len(SUCCESS)) == SUCCESS
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
        assert process.stderr
        assert process.stderr.read() == b""


@pytest.mark.parametrize("module", ["argparse", "trio"])
@pytest.mark.parametrize("command", [[CLIENT], [FOOBARD, "--listen", "@nobody"], [SOCKET_ACTIVATE, "-l", "@x", "true"]])
def test_an_interrupt_while_a_command_loads_is_no_traceback(command: list[str], module: str, tmp_path: Path) -> None:
    # What is loaded is found in the real one's place, and the interrupt comes just then.
    (tmp_path / f"{module}.py").write_text(
        "import importlib, os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.path.remove({str(tmp_path)!r})\ndel sys.modules[__name__]\n"
        f"importlib.import_module({module!r})\n"  # at once, where Python puts imports off, too
    )
    done = run(*command, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    if command[0] == SOCKET_ACTIVATE and module == "trio":  # it listens already, and stops
        assert (done.returncode, done.stdout) == (0, b"")
        assert b"Traceback" not in done.stderr
    else:
        assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_output_that_nobody_reads_is_one_line_and_exit_1(echo: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [CLIENT, echo], input=b"x", stdout=writing, stderr=subprocess.PIPE, timeout=LIMIT, check=False
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == b"client: Broken pipe\n"


@pytest.mark.parametrize(
    "address", ["::1:2000", "host:", ":", "[::1]", "host:port", "1:2:3", "vsock:1", "99999", "..:80", "x" * 70 + ":80"]
)
def test_an_address_of_no_known_form_is_told_and_exits_with_2(address: str) -> None:
    done = run(CLIENT, address)
    assert done.returncode == 2
    assert b"expected" in done.stderr


def test_streams_that_are_closed_or_do_not_wait_change_nothing(echo: str) -> None:
    assert run("/bin/sh", "-c", f"{CLIENT} {echo} <&-").stdout == SUCCESS
    reading, writing = os.pipe()
    out, into = os.pipe()
    for number in (reading, into):
        os.set_blocking(number, False)
    data = os.urandom(1_000_000)
    with subprocess.Popen([CLIENT, echo], stdin=reading, stdout=into) as process:
        os.close(reading)
        os.close(into)

        def feed() -> None:
            with open(writing, "wb") as file:
                file.write(data)

        thread = threading.Thread(target=feed)
        thread.start()
        with open(out, "rb") as file:
            assert file.read() == SUCCESS + data
        thread.join()
        assert process.wait(LIMIT) == 0


def test_an_address_of_v6_may_name_its_interface() -> None:
    port = free_port()
    address = f"[::1]:{port}%lo"
    with running(SOCKET_ACTIVATE, "-l", address, FOOBARD, until=b"listening on [::1]:", status=0):
        done = run(CLIENT, address, stdin=b"hello\n")
        assert (done.returncode, done.stdout) == (0, SUCCESS + b"hello\n")
        done = run(CLIENT, f"[::1]:{port}%surely-not")
        assert done.returncode == 1
        assert b"there is no network interface surely-not" in done.stderr


def test_a_word_without_a_slash_is_no_path() -> None:
    done = run(CLIENT, "foobar.sk")
    assert done.returncode == 2
    assert b"'foobar.sk' is no address; expected a path with a slash in it" in done.stderr
