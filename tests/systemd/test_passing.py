"""Ways in which systemd passes a socket, or seems to, other than to the process that it starts; and datagrams."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.commands import LIMIT, connect, echoed, free_port, receive

if TYPE_CHECKING:
    from .conftest import StartManager

STREAM = "[Socket]\nListenStream=/run/a.sk\n"


def test_a_daemon_in_a_shell_says_whom_its_sockets_were_meant_for(start_manager: StartManager) -> None:
    manager = start_manager({"a.socket": STREAM, "a.service": '[Service]\nExecStart=/bin/sh -c "foobard; true"\n'})
    manager.systemctl("start", "a.socket")
    with connect(manager.path("/run/a.sk")):
        manager.wait_for(lambda: "which is its parent (sh)" in manager.log, "foobard says so")
    assert "LISTEN_FDS is 1, but LISTEN_PID is " in manager.log
    assert "start the program by exec" in manager.log


def test_python_m_activation_tells_a_unit_what_it_passes(start_manager: StartManager) -> None:
    manager = start_manager(
        {"a.socket": STREAM + "FileDescriptorName=web\n", "a.service": "[Service]\nExecStart=tell\n"}
    )
    manager.add_program("tell", "from activation.__main__ import main\nsys.exit(main())\n")
    manager.systemctl("start", "a.socket")
    manager.systemctl("start", "a.service")
    manager.wait_for(lambda: "1 descriptor was passed" in manager.log, "it tells")
    assert "  3  web  listening AF_UNIX SOCK_STREAM at /run/a.sk\n" in manager.log


@pytest.mark.parametrize("accept", ["no", "yes"])
def test_foobard_serves_the_socket_that_is_its_standard_input(start_manager: StartManager, accept: str) -> None:
    service = "a@.service" if accept == "yes" else "a.service"
    manager = start_manager(
        {
            "a.socket": f"{STREAM}Accept={accept}\n",
            # By default, standard output and error are the socket, too.
            service: "[Service]\nExecStart=foobard\nStandardInput=socket\n",
        }
    )
    manager.systemctl("start", "a.socket")
    for _ in range(2):
        with connect(manager.path("/run/a.sk")) as client:
            assert echoed(client, b"word") == b"word"
            client.shutdown(socket.SHUT_WR)
            assert receive(client, 100) == b""


@pytest.mark.parametrize("info", ["", "PassPacketInfo=yes\n"])
def test_a_datagram_is_answered_from_the_address_that_it_was_sent_to(start_manager: StartManager, info: str) -> None:
    port = free_port()
    manager = start_manager(
        {"a.socket": f"[Socket]\nListenDatagram={port}\n{info}", "a.service": "[Service]\nExecStart=foobard\n"}
    )
    manager.systemctl("start", "a.socket")
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        client.connect(("127.0.0.7", port))
        for word in (b"one", b"two"):
            client.send(word)
            assert client.recv(10) == word
