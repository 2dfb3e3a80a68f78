"""The next version of a container takes over the connections of the one before, under a real systemd."""

from __future__ import annotations

import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from examples import replaced_container as example
from tests.commands import connect, free_port

if TYPE_CHECKING:
    from .conftest import StartManager

EXCHANGES = 20
CLIENTS = 20
UNIT = "counter.service"


class Client:
    """A session of lines; between its answers there is always the beginning of a line that was said already.

    Attributes:
        answers: the number of those that came.
        version: which version gave the last of them.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = sock.makefile("rb")
        self.said = self.answers = self.version = 0

    def live(self, over: threading.Event) -> None:
        """Say lines and take their answers, until it is over; then end the last line and the session."""
        self.say(b"word 1")
        while not over.is_set():
            self.say(b"\nword %d\nword %d" % (self.said + 1, self.said + 2))
            for _ in range(2):
                self.hear()
        self.sock.sendall(b"\n")
        self.sock.shutdown(socket.SHUT_WR)
        self.hear()
        assert self.answers == self.said
        assert self.received.read() == b""

    def say(self, text: bytes) -> None:
        self.sock.sendall(text)
        self.said += text.count(b"word")

    def hear(self) -> None:
        """Take an answer: each line has one, in order, and no version answers after a later one."""
        line = self.received.readline()
        found = re.fullmatch(rb"version (\d+), line (\d+): word (\d+)\n", line)
        assert found, f"after {self.answers} answers comes {line!r}"
        version, count, word = map(int, found.groups())
        assert count == word == self.answers + 1
        assert version >= self.version
        self.answers, self.version = count, version


def test_twenty_exchanges_beneath_twenty_clients_lose_nothing(start_manager: StartManager) -> None:
    manager = start_manager()
    address = ("127.0.0.1", free_port())
    for version in range(1, EXCHANGES + 2):
        example.add_bundle(manager.folder / f"v{version}", version)
    example.exchange(manager.folder, 1)
    service = example.SERVICE_UNIT.format(minirunc="minirunc", bundle=manager.folder / "current")
    manager.add({"counter.socket": example.SOCKET_UNIT.format(*address), UNIT: service})
    manager.systemctl("start", "counter.socket")
    clients = [Client(connect(address)) for _ in range(CLIENTS)]
    over = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as threads:
        lives = [threads.submit(client.live, over) for client in clients]

        def all_hear(version: int) -> bool:
            for life in lives:
                if life.done():
                    life.result()  # raises what ended it
            return all(client.version == version for client in clients)

        try:
            for version in range(1, EXCHANGES + 1):
                manager.wait_for(lambda version=version: all_hear(version), f"version {version} answers all")  # type: ignore[misc]
                example.exchange(manager.folder, version + 1)
                manager.systemctl("restart", UNIT)
            manager.wait_for(lambda: all_hear(EXCHANGES + 1), "the last version answers all")
        finally:
            over.set()
        for life in lives:
            life.result()
    for client in clients:
        client.received.close()
        client.sock.close()
    assert manager.property(UNIT, "NFileDescriptorStore") == "4"
    assert manager.property(UNIT, "NRestarts") == "0"
