"""Several workers on one socket, units/foobar-workers.*, under a real systemd."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.commands import connect, echoed

from .conftest import UNITS
from .daemons import OFTEN_UNIT
from .test_storms import bytes_of, crowd, served

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from .conftest import StartManager
    from .manager import Manager

WORKERS = (UNITS / "foobar-workers.socket", UNITS / "foobar-workers.target", UNITS / "foobar-worker@.service")
SERVICES = ("foobar-worker@1.service", "foobar-worker@2.service")


def start_workers(start_manager: StartManager) -> tuple[Manager, Path]:
    manager = start_manager(*WORKERS)
    manager.systemctl("start", "foobar-workers.socket")
    return manager, manager.path("/run/foobar-workers.sk")


def main_pids(manager: Manager) -> list[int]:
    return [int(manager.property(service, "MainPID")) for service in SERVICES]


def wait_until_active(manager: Manager) -> None:
    for service in SERVICES:
        manager.wait_property(service, "ActiveState", "active")


def test_the_first_client_starts_all_workers(start_manager: StartManager) -> None:
    manager, path = start_workers(start_manager)
    assert main_pids(manager) == [0, 0]
    with connect(path) as client:
        assert echoed(client, b"hello") == b"hello"
    wait_until_active(manager)
    assert len({*main_pids(manager)}) == 2
    assert manager.property("foobar-workers.target", "ActiveState") == "active"


def test_stopping_the_target_stops_the_workers_and_the_next_client_starts_them_again(
    start_manager: StartManager,
) -> None:
    manager, path = start_workers(start_manager)
    for _ in range(2):
        with connect(path) as client:
            assert echoed(client, b"hello") == b"hello"
        wait_until_active(manager)
        manager.systemctl("stop", "foobar-workers.target")
        for service in SERVICES:
            manager.wait_property(service, "ActiveState", "inactive")


def test_a_rolling_restart_loses_no_client(start_manager: StartManager) -> None:
    manager, path = start_workers(start_manager)
    manager.add({"foobar-worker@.service.d/often.conf": f"[Unit]\n{OFTEN_UNIT}"})
    manager.systemctl("start", "foobar-workers.target")
    wait_until_active(manager)
    seen = {*main_pids(manager)}

    def client(chance: random.Random) -> None:
        served(path, bytes_of(chance))

    rounds = 8
    with crowd(8, client) as counts:
        for _ in range(rounds):
            for service in SERVICES:
                manager.systemctl("restart", service)
            seen |= {*main_pids(manager)}
    assert len(seen) == 2 * (rounds + 1)
    assert manager.property("foobar-workers.socket", "Result") == "success"
    print(f"{sum(counts)} clients")


def test_each_worker_has_its_share_of_the_clients(start_manager: StartManager) -> None:
    manager, path = start_workers(start_manager)
    manager.systemctl("start", "foobar-workers.target")
    wait_until_active(manager)
    with ExitStack() as stack:
        # The kernel chooses who takes the next client, so no number of them is certain to reach both.
        for several in range(100, 1000, 100):
            for _ in range(100):
                client = stack.enter_context(connect(path))
                assert echoed(client, b"hello") == b"hello"

            def is_reported(several: int = several) -> bool:
                return sum(open_connections(manager, service) for service in SERVICES) == several

            manager.wait_for(is_reported, f"the two workers report {several} connections together")
            if all(open_connections(manager, service) for service in SERVICES):
                return
    pytest.fail(f"one worker served all {several} clients\n{manager.state()}")


def test_a_worker_that_starts_does_not_make_the_socket_block_for_the_others(start_manager: StartManager) -> None:
    manager, path = start_workers(start_manager)
    with connect(path) as client:
        assert echoed(client, b"hello") == b"hello"
    wait_until_active(manager)
    assert listener_flags(manager, SERVICES[0]) & os.O_NONBLOCK
    # This one leaves the socket as it finds it.
    manager.add({"foobar-worker@2.service.d/idle.conf": "[Service]\nType=exec\nExecStart=\nExecStart=sleep infinity\n"})
    manager.systemctl("restart", SERVICES[1])
    assert listener_flags(manager, SERVICES[0]) & os.O_NONBLOCK


def listener_flags(manager: Manager, service: str) -> int:
    """The flags of the open file that a worker was passed, open(2)."""
    info = manager.path(f"/proc/{manager.property(service, 'MainPID')}/fdinfo/3").read_text()
    return int(info.partition("flags:")[2].split()[0], 8)


def open_connections(manager: Manager, service: str) -> int:
    """How many connections a worker reports in its STATUS=, which it does once a second at most."""
    return int(manager.property(service, "StatusText").split()[0])
