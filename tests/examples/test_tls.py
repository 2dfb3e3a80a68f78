"""The certificate of a running daemon is replaced, and one that cannot be used is not."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import sys
from pathlib import Path

import trustme

from tests.children import tcp_listener
from tests.commands import LIMIT, connect, running

EXAMPLE = Path(__file__).parents[2] / "examples" / "tls.py"


def test_a_reload_replaces_the_certificate_and_a_wrong_key_changes_nothing(tmp_path: Path) -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = [tmp_path / "certificate.pem", tmp_path / "key.pem"]

    def write(name: str, *, key: bool = True) -> None:
        issued = authority.issue_cert("localhost", common_name=name)
        files[0].write_bytes(issued.cert_chain_pems[0].bytes())
        if key:
            files[1].write_bytes(issued.private_key_pem.bytes())

    with tcp_listener() as tcp, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT)

        def ready() -> None:
            while b"READY=1" not in manager.recv(4096).split(b"\n"):
                pass

        def name() -> object:
            with trusting.wrap_socket(connect(tcp.getsockname()), server_hostname="localhost") as client:
                client.sendall(b"word")
                assert client.recv(10) == b"word"
                certificate = client.getpeercert()
            assert certificate
            return dict(item for names in certificate["subject"] for item in names)["commonName"]  # type: ignore[misc]

        write("first")
        env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        command = [sys.executable, str(EXAMPLE), *map(str, files)]
        with running(*command, passed=[tcp], env=env, status=0) as daemon:
            ready()
            assert name() == "first"
            write("second", key=False)
            daemon.send_signal(signal.SIGHUP)
            ready()
            assert name() == "first"
            write("third")
            daemon.send_signal(signal.SIGHUP)
            ready()
            assert name() == "third"
