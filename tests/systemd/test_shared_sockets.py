"""Sockets=: services that are passed each other's sockets, under a real systemd and under socket-activate."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.commands import LIMIT, children, connect, receive

from .manager import Manager, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Tells its client who it is and what it was passed, and stays until the client goes.
PROGRAM = """
import os, socket, sys
names = os.environ["LISTEN_FDNAMES"].split(":")
mine = socket.socket(fileno=3 + names.index(sys.argv[1]))
conn = mine.accept()[0]
conn.sendall(f"{sys.argv[2]} {' '.join(sorted(names))}\\n".encode())
conn.recv(1)
"""

UNITS = {
    "first.socket": "[Socket]\nListenStream=/run/first.sk\n",
    "second.socket": "[Socket]\nListenStream=/run/second.sk\n",
    "third.socket": "[Socket]\nListenStream=/run/third.sk\nService=second.service\n",
    "first.service": "[Service]\nExecStart=tell first.socket first\nSockets=first.socket\n",
    "second.service": "[Service]\nExecStart=tell second.socket second\nSockets=first.socket third.socket\n",
}


def told(sock: object) -> str:
    """What a service says, up to the end of its line."""
    text = b""
    while not text.endswith(b"\n"):
        more = receive(sock, 1)  # type: ignore[arg-type]
        assert more, text
        text += more
    return text.decode().strip()


def play(manager: Manager) -> list[object]:
    """What clients of both see, one after another and at once."""
    first, second = manager.path("/run/first.sk"), manager.path("/run/second.sk")
    seen: list[object] = []
    with connect(second) as one:
        seen.append(told(one))
        # While the second service runs, which has the first one's socket, a client of that waits.
        with connect(first) as other:
            other.settimeout(0.5)
            try:
                seen.append(told(other))
            except TimeoutError:
                seen.append("waits")
            other.settimeout(LIMIT)
            one.close()
            seen.append(told(other))
    with connect(second) as one:
        seen.append(told(one))
    return seen


@contextmanager
def systemd(manager: Manager) -> Iterator[None]:
    sockets = [name for name in UNITS if name.endswith(".socket")]
    manager.systemctl("start", *sockets)
    yield
    manager.systemctl("stop", *sockets, "first.service", "second.service")


@contextmanager
def socket_activate(manager: Manager) -> Iterator[None]:
    # The third one is found by Sockets=.
    files = ["/run/units/first.socket", "/run/units/second.socket"]
    with open(manager.folder / "console", "ab") as console:
        process = manager.popen("socket-activate", *files, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
    try:
        manager.wait_for(
            lambda: "listening on /run/third.sk" in manager.log or process.poll() is not None, "it listens"
        )
        yield
    finally:
        for pid in children(process.pid):
            manager.run("kill", "-TERM", str(pid), check=False)
        manager.kill(process, 15)
        process.wait(LIMIT)


@pytest.mark.parametrize("activate", [systemd, socket_activate])
def test_services_are_passed_the_sockets_that_they_name(
    tmp_path_factory: pytest.TempPathFactory, activate: Callable[[Manager], object]
) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Manager(tmp_path_factory.mktemp("shared") / "manager", UNITS) as manager:
        manager.add_program("tell", PROGRAM)
        with activate(manager):  # type: ignore[attr-defined]
            assert play(manager) == [
                "second first.socket second.socket third.socket",
                "waits",
                "first first.socket",
                "second first.socket second.socket third.socket",
            ], manager.state()
