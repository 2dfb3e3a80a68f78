"""The example of a chain of daemons under a real systemd, told by what each of them says."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from examples import parallel_start as chain
from tests.commands import LIMIT

if TYPE_CHECKING:
    from .conftest import StartManager

NUMBERS = range(2, 10)
SERVICES = [f"chain{number}.service" for number in NUMBERS]


def test_all_start_at_once_and_each_connects_before_the_one_before_is_ready(start_manager: StartManager) -> None:
    manager = start_manager(chain.unit_files(NUMBERS, "/run"))
    with socket.socket(socket.AF_UNIX) as listener:
        # The first of the chain waits for the test, so that none can be ready, however fast it is.
        listener.bind(str(manager.path(chain.socket_path(1, "/run"))))
        listener.listen()
        listener.settimeout(LIMIT)
        manager.systemctl("start", *(f"chain{number}.socket" for number in NUMBERS))
        manager.systemctl("start", "--no-block", *SERVICES)
        manager.wait_for(lambda: manager.log.count(" connected ") == len(NUMBERS), "all have connected")
        assert {manager.property(service, "ActiveState") for service in SERVICES} == {"activating"}
        assert " ready " not in manager.log
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"at your service")
        for service in SERVICES:
            manager.wait_property(service, "ActiveState", "active")
    for number in NUMBERS:
        assert manager.log.count(f"daemon {number} started ") == 1
        assert manager.log.count(f"daemon {number} ready ") == 1
