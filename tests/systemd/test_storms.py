"""Clients at every wrong moment: while the daemon leaves, restarts, dies or starts. None is refused or forgotten."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.commands import LIMIT, connect, echoed, receive

from .daemons import OFTEN_SOCKET, OFTEN_UNIT, add_echo, ask, processes

if TYPE_CHECKING:
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
        # Where the machine is slow, few of the pauses are long enough for an exit.
        while clients < 300 or starts(manager) <= 20:
            assert clients < 10_000, f"{starts(manager)} starts for {clients} clients"
            several = [bytes_of(chance) for _ in range(chance.choice((1, 4, 8)))]
            list(pool.map(lambda data: served(path, data), several))
            clients += len(several)
            # From before the idle clock's end until the process's.
            time.sleep(idle_timeout + chance.uniform(-0.01, 0.05))
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
        manager.wait_for(lambda: min(counts) >= 5, "everybody was served several times")
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
        manager.wait_for(lambda: sum(counts) > len(cut), "somebody was served to the end")
    assert ask(path, b"hello") == b"hello"
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


TWO_PROTOCOLS = """
import logging, sys
from contextlib import ExitStack
import trio
import activation

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
print("I am up", file=sys.stderr)

async def echo(stream):
    async for data in stream:
        await stream.send_all(data)

async def work(queue):
    with open({journal!r}, "ab", buffering=0) as journal:
        async for job, counted in queue:
            with counted:
                await trio.sleep(0.002)
                journal.write(job + b"\\n")

async def main():
    into, queue = trio.open_memory_channel(100)

    async def take(channel):
        async for job in channel:
            counted = ExitStack()
            counted.enter_context(activation.busy())
            await into.send((job, counted))
            await channel.send(b"queued")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, queue)
        await activation.serve({{"echo": echo, "jobs": take}}, idle_timeout=0.03, reload=lambda: None)
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def test_no_client_and_no_job_is_lost_by_restarts_reloads_and_idle_exits(start_manager: StartManager) -> None:
    manager = start_manager()
    journal = manager.folder / "jobs"
    manager.add_program("stormd", TWO_PROTOCOLS.format(journal=str(journal)))
    shared = f"Service=storm.service\n{OFTEN_SOCKET}"
    manager.add(
        {
            "echo.socket": f"[Socket]\nListenStream=/run/echo.sk\nFileDescriptorName=echo\n{shared}",
            "jobs.socket": f"[Socket]\nListenSequentialPacket=/run/jobs.sk\nFileDescriptorName=jobs\n{shared}",
            "storm.service": f"[Unit]\n{OFTEN_UNIT}[Service]\nType=notify\nExecStart=stormd\n"
            "Sockets=echo.socket jobs.socket\nExecReload=kill -HUP $MAINPID\n",
        }
    )
    manager.systemctl("start", "echo.socket", "jobs.socket")
    echo, jobs = manager.path("/run/echo.sk"), manager.path("/run/jobs.sk")
    may_come = threading.Event()
    may_come.set()
    confirmed: list[bytes] = []

    def client(chance: random.Random) -> None:
        assert may_come.wait(LIMIT)
        if chance.random() < 0.5:
            served(echo, bytes_of(chance))
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(LIMIT)
            sock.connect(str(jobs))
            for _ in range(chance.randrange(1, 4)):
                job = chance.randbytes(8).hex().encode()
                sock.send(job)
                assert sock.recv(100) == b"queued"
                confirmed.append(job)

    chance = random.Random(5)
    moments = 500
    with crowd(6, client) as counts:
        for _ in range(moments):
            time.sleep(chance.uniform(0, 0.03))
            match chance.randrange(3):
                case 0:
                    manager.systemctl("restart", "storm.service")
                case 1:
                    # Where it is not there, there is nothing to reload.
                    manager.systemctl("reload", "storm.service", check=False)
                case _:
                    may_come.clear()
                    time.sleep(0.03 + chance.uniform(0, 0.05))
                    may_come.set()
        manager.wait_for(lambda: min(counts) >= 5, "everybody was served several times")
    manager.wait_for(lambda: not processes(manager, "storm.service"), "it has left when all was done")
    done = journal.read_bytes().split()
    assert sorted(done) == sorted(confirmed)
    assert starts(manager) > moments / 5
    for name in ("echo.socket", "jobs.socket", "storm.service"):
        assert manager.property(name, "Result") == "success"
    assert "Traceback" not in manager.log
    print(f"{sum(counts)} clients, {len(done)} jobs, {starts(manager)} starts")
