"""Clients at every wrong moment: while the daemon leaves, restarts, dies or starts. None is refused or forgotten."""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.commands import LIMIT, connect, echoed, receive

from .daemons import add_echo, ask, processes

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from .conftest import StartManager
    from .manager import Manager

UP = "print('I am up', file=sys.stderr)"
"""What tells the starts apart, as each is one line in the log."""


def starts(manager: Manager) -> int:
    return manager.log.count("I am up")


def bytes_of(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 100, 10_000, 300_000)))


def served(path: Path, data: bytes) -> None:
    """Be a client who sends all that and gets all of it back."""
    with connect(path) as sock:
        sender = threading.Thread(target=sock.sendall, args=[data])
        sender.start()
        assert receive(sock, len(data)) == data
        sender.join()


@contextmanager
def crowd(size: int, client: Callable[[random.Random], None]) -> Iterator[list[int]]:
    """Have so many threads be clients, one after another each, meanwhile; what one of them raises ends the test.

    Yields:
        Of each thread, how many clients it has been.
    """
    over = threading.Event()
    counts = [0] * size

    def come_and_go(number: int) -> None:
        chance = random.Random(number)
        try:
            while not over.is_set():
                client(chance)
                counts[number] += 1
        finally:
            over.set()

    with ThreadPoolExecutor(size) as pool:
        threads = [pool.submit(come_and_go, number) for number in range(size)]
        try:
            yield counts
        finally:
            over.set()
    for thread in threads:
        thread.result()


def end(sock: socket.socket) -> bool:
    """Whether the connection is over, and without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def kill(pid: int) -> None:
    """Kill the process and wait for its end."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], LIMIT)[0], f"process {pid} does not end"
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def test_nobody_is_refused_or_dropped_around_idle_exits(start_manager: StartManager) -> None:
    idle_timeout = 0.03
    manager = start_manager()
    path = add_echo(manager, code=UP, options=f"idle_timeout={idle_timeout}")
    chance = random.Random(1)
    clients = 0
    with ThreadPoolExecutor(8) as pool:
        while clients < 300:
            several = [bytes_of(chance) for _ in range(chance.choice((1, 4, 8)))]
            list(pool.map(lambda data: served(path, data), several))
            clients += len(several)
            # From before the idle clock's end until the process's.
            time.sleep(idle_timeout + chance.uniform(-0.01, 0.05))
    assert starts(manager) > 20
    assert manager.property("echo.socket", "Result") == "success"
    assert manager.property("echo.service", "Result") == "success"
    print(f"{clients} clients, {starts(manager)} starts")


def test_nobody_is_refused_or_dropped_by_restarts(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, code=UP)
    restarts = 50
    chance = random.Random(2)
    with crowd(20, lambda chance: served(path, bytes_of(chance))) as counts:
        for _ in range(restarts):
            time.sleep(chance.uniform(0, 0.05))
            manager.systemctl("restart", "echo.service")
    assert min(counts) >= 5
    assert starts(manager) >= restarts
    assert manager.property("echo.socket", "Result") == "success"
    assert "Failed" not in manager.log
    print(f"{sum(counts)} clients, {starts(manager)} starts")


def test_nobody_is_refused_when_the_daemon_is_killed(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, code=UP, service="Restart=always\nRestartSec=0\n")
    kills = 30
    cut = []

    def client(chance: random.Random) -> None:
        data = bytes_of(chance)
        with connect(path) as sock:  # what raises here is a failure
            try:
                pieces = [data[start : start + 60_000] for start in range(0, len(data), 60_000)]
                whole = all(echoed(sock, piece) == piece for piece in pieces)
            except (ConnectionResetError, BrokenPipeError):
                whole = False
        if not whole:
            cut.append(len(data))

    chance = random.Random(3)
    with crowd(8, client) as counts:
        for _ in range(kills):
            time.sleep(chance.uniform(0, 0.25))
            manager.wait_for(lambda: processes(manager), "it is there again")
            with connect(path) as served_one:
                assert echoed(served_one, b"hello") == b"hello"
                (pid,) = processes(manager)
                kill(pid)
                assert end(served_one), "whoever is served by a process sees its end"
    assert ask(path, b"hello") == b"hello"
    assert sum(counts) > len(cut)
    assert manager.log.count("status=9/KILL") == kills
    assert manager.property("echo.socket", "Result") == "success"
    assert manager.property("echo.socket", "ActiveState") == "active"
    print(f"{sum(counts)} clients, {len(cut)} of them cut, {kills} kills, {starts(manager)} starts")


def test_a_signal_at_any_moment_of_the_start_costs_nobody_an_answer(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, code=UP)

    begun = time.monotonic()
    assert ask(path, b"how long") == b"how long"
    wait = time.monotonic() - begun
    tries = 60
    by_another = 0
    chance = random.Random(4)
    for number in range(tries):
        for pid in processes(manager):
            kill(pid)
        manager.wait_for(lambda: not processes(manager), "it has ended")
        with connect(path) as sock:
            sock.sendall(b"hello")
            while not (found := processes(manager)):
                pass  # its first millisecond is one of those moments
            (first,) = found
            pidfd = os.pidfd_open(first)
            time.sleep(wait * chance.uniform(0.2, 1.2))
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            assert receive(sock, 5) == b"hello"
            if first in processes(manager):
                assert echoed(sock, b"still here") == b"still here"
                wait /= 1.3
            else:
                by_another += 1
                wait *= 1.3  # however fast the machine is, the moments stay around the one from which it can drain
        assert select.select([pidfd], [], [], LIMIT)[0], f"after {number} of {tries} moments it does not end"
        os.close(pidfd)
    assert 5 < by_another < tries - 5
    assert ask(path, b"after") == b"after"
    assert manager.property("echo.socket", "ActiveState") == "active"
    print(f"{tries} signals, {by_another} of them before it served")
