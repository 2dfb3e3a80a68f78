from __future__ import annotations

import sys
from pathlib import Path

from tests.children import tcp_listener, udp_socket
from tests.commands import LIMIT, connect, echoed, run, running

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_connections_and_datagrams_are_answered_side_by_side() -> None:
    with tcp_listener() as tcp, udp_socket() as udp, udp_socket() as client:
        command = [sys.executable, str(EXAMPLES / "datagrams.py")]
        with running(*command, passed=[tcp, udp], status=0), connect(tcp.getsockname()) as stream:
            assert echoed(stream, b"over tcp") == b"over tcp"
            client.settimeout(LIMIT)
            client.sendto(b"a datagram", udp.getsockname())
            assert client.recv(100) == b"a datagram"


def test_the_demo_tells_its_story_as_it_should() -> None:
    done = run(sys.executable, str(EXAMPLES / "demo.py"))
    assert done.returncode == 0, done.stdout.decode()
    assert b"connect success !" in done.stdout
