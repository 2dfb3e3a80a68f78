"""systemd's own systemd-socket-activate on the other side: it shares no code with ours."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest

from tests.commands import (
    CLIENT,
    FOOBARD,
    LIMIT,
    children,
    connect,
    echoed,
    eventually,
    free_port,
    receive,
    run,
    running,
)

PEER = "systemd-socket-activate"

# Tells each client the names and the positions of the listeners, and the connections, that were passed.
TELL = """
import trio, activation

passed = activation.files()
names = [file.name for file in passed]
listeners = activation.listeners(passed)

async def main():
    async with trio.open_nursery() as nursery:
        for position, listener in enumerate(listeners):
            async def tell(stream, position=position):
                async with stream:
                    await stream.send_all(f"{position} of {names}".encode())
            nursery.start_soon(trio.serve_listeners, tell, [listener])

trio.run(main)
"""


@pytest.fixture(autouse=True)
def _peer() -> None:
    if not shutil.which(PEER):
        pytest.skip(f"there is no {PEER}")


def command(pid: int) -> str:
    """The program that a process runs."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[0]


def test_foobard_starts_with_the_first_client_on_a_path(tmp_path: Path) -> None:
    path = tmp_path / "foobar.sk"
    with running(PEER, "-l", str(path), FOOBARD, until=b"Listening on") as process:
        assert path.is_socket()
        assert command(process.pid) == PEER
        assert run(CLIENT, str(path), stdin=b"hello\nthere\n").stdout == b"connect success !\nhello\nthere\n"
        assert command(process.pid) != PEER  # it became foobard
        with connect(path) as second:
            assert echoed(second, b"second") == b"second"
    assert path.is_socket()  # not foobard's to remove


def test_foobard_echoes_on_a_path_and_on_tcp_at_once(tmp_path: Path) -> None:
    path, port = tmp_path / "foobar.sk", free_port()
    peer = [PEER, "-l", str(path), "-l", f"127.0.0.1:{port}", "--fdname=unix:tcp"]
    with running(*peer, FOOBARD, until=b"as 4"), connect(("127.0.0.1", port)) as tcp, connect(path) as unix:
        assert echoed(tcp, b"over TCP") == b"over TCP"
        assert echoed(unix, b"over a path") == b"over a path"
        assert echoed(tcp, b"again") == b"again"


def test_foobard_echoes_datagrams() -> None:
    address = ("127.0.0.1", free_port())
    with (
        running(PEER, "-d", "-l", f"127.0.0.1:{address[1]}", FOOBARD, until=b"Listening on"),
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.settimeout(LIMIT)
        udp.connect(address)
        assert echoed(udp, b"datagram") == b"datagram"


def test_foobard_serves_one_accepted_connection_per_process(tmp_path: Path) -> None:
    path = tmp_path / "foobar.sk"
    with running(PEER, "--accept", "-l", str(path), FOOBARD, until=b"Listening on") as process:
        with connect(path) as first, connect(path) as second:
            assert echoed(first, b"first") == b"first"
            assert echoed(second, b"second") == b"second"
            assert len(children(process.pid)) == 2
        eventually(lambda: not children(process.pid), "both have ended with their connections")


@pytest.mark.parametrize(
    ("options", "names"),
    [(["--fdname=front:back"], ["front", "back"]), ([], ["LISTEN_FD_3", "LISTEN_FD_4"])],
    ids=["named", "unnamed"],
)
def test_listeners_keep_order_and_names(tmp_path: Path, options: list[str], names: list[str]) -> None:
    path, port = tmp_path / "front.sk", free_port()
    peer = [PEER, "-l", str(path), "-l", f"127.0.0.1:{port}", *options, sys.executable, "-c", TELL]
    with running(*peer, until=b"as 4"):
        with connect(path) as front:
            assert receive(front, 1 << 16).decode() == f"0 of {names}"
        with connect(("127.0.0.1", port)) as back:
            assert receive(back, 1 << 16).decode() == f"1 of {names}"
