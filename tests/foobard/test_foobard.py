from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import activation
from tests.children import open_descriptors, tcp_listener, udp_socket
from tests.commands import (
    FOOBARD,
    LIMIT,
    SOCKET_ACTIVATE,
    connect,
    echoed,
    eventually,
    fill,
    free_port,
    listens,
    receive,
    resident,
    run,
    running,
    said,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def unix_socket(path: Path, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    if kind != socket.SOCK_DGRAM:
        sock.listen()
    sock.settimeout(LIMIT)
    return sock


def test_it_echoes_on_everything_it_was_passed_at_once(tmp_path: Path) -> None:
    tcp, udp = tcp_listener(), udp_socket()
    unix = unix_socket(tmp_path / "s.sk", socket.SOCK_STREAM)
    unixgram = unix_socket(tmp_path / "d.sk", socket.SOCK_DGRAM)
    ours, accepted = socket.socketpair()
    ours.settimeout(LIMIT)
    passed = [tcp, udp, unix, unixgram, accepted]
    sender = unix_socket(tmp_path / "client.sk", socket.SOCK_DGRAM)
    with running(FOOBARD, passed=passed), udp_socket() as datagrams, sender, ours:
        datagrams.settimeout(LIMIT)
        with connect(tcp.getsockname()) as one, connect(tmp_path / "s.sk") as two:
            for _ in range(3):
                assert echoed(one, b"over tcp") == b"over tcp"
                assert echoed(two, b"over unix") == b"over unix"
                assert echoed(ours, b"accepted") == b"accepted"
                datagrams.sendto(b"a datagram", udp.getsockname())
                assert datagrams.recvfrom(100) == (b"a datagram", udp.getsockname())
                sender.sendto(b"x" * 100_000, str(tmp_path / "d.sk"))
                assert sender.recv(200_000) == b"x" * 100_000
    for sock in passed:
        sock.close()


def test_half_closed_connections_get_everything_back_before_the_end() -> None:
    data = os.urandom(3_000_000)
    with tcp_listener() as tcp, running(FOOBARD, passed=[tcp]), connect(tcp.getsockname()) as client:

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=send)
        thread.start()
        assert receive(client, len(data) + 1) == data
        thread.join()


def warm_up(client: socket.socket) -> None:
    """Use it until nothing is loaded any more that was put off at its start, as Python 3.15 can."""
    for _ in range(30):
        assert echoed(client, b"before") == b"before"


def test_a_client_that_does_not_read_makes_it_neither_grow_nor_keep_others_waiting(tmp_path: Path) -> None:
    with (
        unix_socket(tmp_path / "s.sk", socket.SOCK_STREAM) as unix,
        running(FOOBARD, passed=[unix]) as process,
        connect(tmp_path / "s.sk") as greedy,
        connect(tmp_path / "s.sk") as other,
    ):
        warm_up(other)
        before = resident(process.pid)
        sent = fill(greedy)
        assert echoed(other, b"after") == b"after"
        sent += fill(greedy)
        assert resident(process.pid) - before < 4_000_000
        assert receive(greedy, sent) == bytes(sent)


def test_a_datagram_client_that_does_not_read_keeps_nobody_waiting(tmp_path: Path) -> None:
    deaf = unix_socket(tmp_path / "deaf.sk", socket.SOCK_DGRAM)
    client = unix_socket(tmp_path / "client.sk", socket.SOCK_DGRAM)
    with unix_socket(tmp_path / "d.sk", socket.SOCK_DGRAM) as server, running(FOOBARD, passed=[server]), deaf, client:
        for _ in range(200):
            deaf.sendto(b"never read", str(tmp_path / "d.sk"))
        client.sendto(b"hello", str(tmp_path / "d.sk"))
        assert client.recv(100) == b"hello"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"nowhere to answer to", str(tmp_path / "d.sk"))
        os.unlink(tmp_path / "deaf.sk")
        client.sendto(b"again", str(tmp_path / "d.sk"))
        assert client.recv(100) == b"again"


@pytest.mark.parametrize("count", [1, 3])
def test_unread_answers_of_some_datagram_clients_leave_room_for_the_others(tmp_path: Path, count: int) -> None:
    path = str(tmp_path / "d.sk")
    with (
        unix_socket(tmp_path / "d.sk", socket.SOCK_DGRAM) as server,
        running(FOOBARD, passed=[server]),
        ExitStack() as stack,
    ):
        deaf = [stack.enter_context(unix_socket(tmp_path / f"{n}.sk", socket.SOCK_DGRAM)) for n in range(count)]
        client = stack.enter_context(unix_socket(tmp_path / "client.sk", socket.SOCK_DGRAM))
        for sock in deaf:
            for size in [100_000] * 5 + [10_000] * 50 + [1000] * 200:
                sock.sendto(bytes(size), path)
        for number in range(500):
            client.sendto(b"%d" % number * 300, path)
            assert client.recv(2000) == b"%d" % number * 300
        # Whoever reads again is answered again.
        for sock in deaf:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sock.recv(200_000)
            sock.settimeout(LIMIT)
        for sock in deaf:
            sock.sendto(b"back" * 10_000, path)
            assert sock.recv(100_000) == b"back" * 10_000


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_datagrams_are_answered_from_the_address_that_was_asked(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("", 0))
        client.settimeout(LIMIT)
        client.connect(("127.0.0.7", server.getsockname()[1]))
        with running(FOOBARD, passed=[server]):
            for word in (b"one", b"two"):
                client.send(word)
                assert client.recv(10) == word


def test_behind_socket_activate_too_the_datagram_that_starts_it_is_answered_from_the_address_that_was_asked() -> None:
    port = free_port()
    command = [SOCKET_ACTIVATE, "--datagram", "-l", f"0.0.0.0:{port}", FOOBARD]
    with running(*command, until=b"listening on"), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        client.connect(("127.0.0.7", port))
        for word in (b"one", b"two"):
            client.send(word)
            assert client.recv(10) == word


# Standard input is the socket


@contextmanager
def on_standard_input(sock: socket.socket, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    options: dict[str, Any] = {"stderr": subprocess.PIPE, **streams}
    process: subprocess.Popen[bytes] = subprocess.Popen([FOOBARD], stdin=sock.fileno(), **options)
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(LIMIT) == 0
        if process.stderr:
            process.stderr.close()


def test_it_serves_a_listening_socket_on_standard_input() -> None:
    with tcp_listener() as tcp, on_standard_input(tcp), connect(tcp.getsockname()) as client:
        assert echoed(client, b"word") == b"word"


def test_it_serves_an_accepted_connection_on_standard_input_and_ends_with_it() -> None:
    ours, theirs = socket.socketpair()
    # As inetd and systemd do, standard output and error are the connection, too.
    with ours, theirs, on_standard_input(theirs, stdout=theirs.fileno(), stderr=theirs.fileno()) as process:
        theirs.close()
        ours.settimeout(LIMIT)
        assert echoed(ours, b"word") == b"word"
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(100) == b""
        assert process.wait(LIMIT) == 0


@pytest.mark.parametrize("kind", ["UDP", "Unix", "connected"])
def test_it_serves_datagrams_on_standard_input(tmp_path: Path, kind: str) -> None:
    if kind == "UDP":
        server, client = udp_socket(), udp_socket()
        client.connect(server.getsockname())
    elif kind == "Unix":
        server = unix_socket(tmp_path / "d.sk", socket.SOCK_DGRAM)
        client = unix_socket(tmp_path / "client.sk", socket.SOCK_DGRAM)
        client.connect(str(tmp_path / "d.sk"))
    else:
        server, client = socket.socketpair(type=socket.SOCK_DGRAM)
    client.settimeout(LIMIT)
    with server, client, on_standard_input(server):
        client.send(b"word")
        assert client.recv(10) == b"word"


def test_what_is_no_socket_on_standard_input_is_not_served() -> None:
    done = subprocess.run([FOOBARD], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False)
    assert done.returncode == 2
    assert b"there is nobody to serve: LISTEN_FDS is not set" in done.stderr


def test_behind_a_shell_it_says_whom_the_sockets_were_meant_for() -> None:
    with tcp_listener() as tcp, running("/bin/sh", "-c", f"{FOOBARD}; true", passed=[tcp]) as process:
        text = said(process, b"--listen")
    assert b"LISTEN_FDS is 1, but LISTEN_PID is %d, which is its parent (sh)" % process.pid in text
    assert b"start the program by exec" in text


def test_a_client_that_resets_its_connection_costs_only_itself() -> None:
    with (
        tcp_listener() as tcp,
        running(FOOBARD, passed=[tcp]) as process,
        connect(tcp.getsockname()) as other,
    ):
        warm_up(other)
        before = len(open_descriptors(process.pid))
        for _ in range(50):
            with connect(tcp.getsockname()) as client:
                assert echoed(client, b"x") == b"x"
                client.sendall(bytes(100_000))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert echoed(other, b"after") == b"after"
        eventually(lambda: len(open_descriptors(process.pid)) == before, "every connection is closed again")


def test_without_sockets_it_says_how_to_start_it_and_exits_with_2() -> None:
    done = run(FOOBARD)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1
    for word in (b"foobard: ", b"systemctl start foobar.socket", b"socket-activate -l", b"--listen"):
        assert word in done.stderr


def test_it_makes_its_own_sockets_where_it_is_told(tmp_path: Path) -> None:
    port = free_port()
    abstract = f"@{tmp_path}"
    command = [FOOBARD, "--listen", str(tmp_path / "a.sk"), "--listen", abstract, "--listen", f"127.0.0.1:{port}"]
    with running(*command):
        eventually(lambda: listens(("127.0.0.1", port)), "it listens")
        for address in (str(tmp_path / "a.sk"), "\0" + abstract[1:]):
            with connect(address) as client:
                assert echoed(client, b"word") == b"word"
        with connect(("127.0.0.1", port)) as client:
            assert echoed(client, b"word") == b"word"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "1:2:3"], b"'1:2:3' is no address; expected"),
        (["--listen", "localhost:99999"], b"expected 0 to 65535"),
        (["--listen", "@"], b"is no address"),
        (["--listen", ""], b"is no address"),
        (["--listen", "vsock:x:1"], b"is no vsock address"),
        (["--nonsense"], b"--nonsense"),
        (["--idle-timeout", "soon"], b"'soon' is no time; expected seconds"),
        (["--drain-timeout", "-1"], b"'-1' is no time; expected seconds"),
        (["--idle-timeout", "nan"], b"'nan' is no time"),
        (["--max-connections", "0"], b"'0' is no count; expected a number of 1 or more"),
        (["--max-connections", "\N{SUPERSCRIPT TWO}"], b"is no count"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(arguments: list[str], words: bytes) -> None:
    done = run(FOOBARD, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_address_that_cannot_be_had_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for address, words in [
        (str(tmp_path / "file"), "it exists and is no socket"),
        (str(tmp_path / "none" / "a.sk"), "No such file or directory"),
        (str(tmp_path / ("x" * 200)), "too long"),
    ]:
        done = run(FOOBARD, "--listen", address)
        assert done.returncode == 1
        assert done.stderr.decode().startswith(f"foobard: cannot listen on {address}: ")
        assert words in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_lying_environment_is_told_in_one_line() -> None:
    # The number of the process is known only in it: the shell tells it.
    done = run("/bin/sh", "-c", f"LISTEN_PID=$$ LISTEN_FDS=x exec {FOOBARD}")
    assert done.returncode == 1
    assert done.stderr.startswith(b"foobard: LISTEN_FDS is 'x'; expected")
    assert done.stderr.count(b"\n") == 1


def test_a_descriptor_of_another_kind_is_told_and_left_alone() -> None:
    with tcp_listener() as tcp:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        said = b"descriptor 3 (LISTEN_FD_3) is no stream"
        with one, other, running(FOOBARD, passed=[one, tcp], until=said), connect(tcp.getsockname()) as client:
            assert echoed(client, b"word") == b"word"


def test_it_says_its_version() -> None:
    assert run(FOOBARD, "--version").stdout == f"foobard {activation.__version__}\n".encode()


def test_sigterm_lets_clients_finish_and_exits_with_0() -> None:
    with tcp_listener() as tcp, running(FOOBARD, passed=[tcp], status=0) as process:
        with connect(tcp.getsockname()) as client:
            assert echoed(client, b"before") == b"before"
            process.terminate()
            assert b"SIGTERM: no more clients are accepted; 1 connections have 30 s" in said(process, b"SIGTERM")
            assert echoed(client, b"after") == b"after"
        assert process.wait(LIMIT) == 0


def test_its_options_are_those_of_serve() -> None:
    options = ["--idle-timeout", "0.3", "--drain-timeout", "0.1", "--max-connections", "1"]
    with tcp_listener() as tcp, running(FOOBARD, *options, passed=[tcp], status=0) as process:
        with connect(tcp.getsockname()) as client, connect(tcp.getsockname()) as waiting:
            assert echoed(client, b"word") == b"word"
            waiting.sendall(b"later")
            waiting.settimeout(0.1)
            with pytest.raises(TimeoutError):
                waiting.recv(5)
            waiting.settimeout(LIMIT)
            client.close()
            assert receive(waiting, 5) == b"later"
        assert process.wait(LIMIT) == 0


def test_an_accepted_connection_is_all_it_lives_for() -> None:
    ours, accepted = socket.socketpair()
    with ours, accepted, running(FOOBARD, passed=[accepted], status=0) as process:
        ours.settimeout(LIMIT)
        assert echoed(ours, b"word") == b"word"
        ours.shutdown(socket.SHUT_WR)
        assert process.wait(LIMIT) == 0


def test_its_own_sockets_are_closed_while_it_drains(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with running(FOOBARD, "--listen", str(path)) as process:
        eventually(lambda: listens(path), "it listens")
        with connect(path) as client:
            assert echoed(client, b"word") == b"word"
            process.terminate()
            said(process, b"no more clients")
            eventually(lambda: not listens(path), "it does not listen any more")
            assert echoed(client, b"word") == b"word"
        assert process.wait(LIMIT) == 0
    assert not path.exists()


def test_options_about_connections_mean_nothing_to_datagrams() -> None:
    with udp_socket() as udp, udp_socket() as client:
        words = b"there are no connections for --idle-timeout"
        with running(FOOBARD, "--idle-timeout", "0", passed=[udp], until=words):
            client.settimeout(LIMIT)
            client.sendto(b"word", udp.getsockname())
            assert client.recv(100) == b"word"


def test_with_datagrams_alone_it_lives_until_a_signal() -> None:
    with udp_socket() as udp, udp_socket() as client, running(FOOBARD, passed=[udp], status=0) as process:
        client.settimeout(LIMIT)
        client.sendto(b"word", udp.getsockname())
        assert client.recv(100) == b"word"
        process.terminate()
        assert process.wait(LIMIT) == 0


def reset(address: object) -> None:
    """Connect, have something echoed, and reset the connection, which foobard logs."""
    with connect(address) as client:
        assert echoed(client, b"x") == b"x"
        client.sendall(bytes(100_000))  # its answer has not been read at the end
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_log_that_nobody_reads_holds_up_nobody() -> None:
    with tcp_listener() as tcp, running(FOOBARD, passed=[tcp], status=0) as process:
        assert process.stderr
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        with open(f"/proc/{process.pid}/fd/2", "wb", buffering=0) as full:
            os.set_blocking(full.fileno(), False)
            while full.write(b"x"):
                pass
        for _ in range(20):
            reset(tcp.getsockname())
        with connect(tcp.getsockname()) as client:
            assert echoed(client, b"word") == b"word"
        process.terminate()
        assert process.wait(LIMIT) == 0


def test_resets_fill_no_log_without_end() -> None:
    began = time.monotonic()
    with tcp_listener() as tcp, running(FOOBARD, passed=[tcp], status=0) as process:
        lines: list[bytes] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()))
        reader.start()
        for _ in range(400):
            reset(tcp.getsockname())
        process.terminate()
        assert process.wait(LIMIT) == 0
        reader.join(LIMIT)
    minutes = 1 + (time.monotonic() - began) // 60
    assert 20 <= sum(b"broke" in line for line in lines) <= 20 * minutes


@pytest.mark.parametrize("journal", [True, False])
def test_the_journal_reads_the_level_and_people_the_name(*, journal: bool) -> None:
    # A shell learns what its standard error is before foobard takes its place.
    script = f'JOURNAL_STREAM="$(stat -L -c %d:%i /dev/stderr)" exec {FOOBARD}' if journal else f"exec {FOOBARD}"
    with tcp_listener() as tcp, running("/bin/sh", "-c", script, passed=[tcp]) as process:
        with connect(tcp.getsockname()) as client:
            assert echoed(client, b"word") == b"word"
            process.terminate()
            line = said(process, b"SIGTERM")
    assert line.startswith(b"<6>SIGTERM: " if journal else b"foobard: SIGTERM: ")
