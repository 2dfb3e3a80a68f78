"""Durable connections under systemd: how soon all clients are answered again, and what a connection costs."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Self

import attrs

from tests.children import open_descriptors
from tests.commands import receive
from tests.systemd.daemons import processes

from ._launch import PATIENCE, raise_open_file_limit
from ._programs import script
from ._rounds import interleaved
from ._table import figure, ratio, show, show_spans, us

if TYPE_CHECKING:
    from tests.systemd.manager import Manager

ROUNDS, COST_ROUNDS = 10, 3
COUNTS = (1000, 10_000)
COST_COUNT = 1000
OTHER_DESCRIPTORS = 200
"""What the benchmark has open besides its clients, at most."""
MESSAGE = b"x" * 32

COLD, KILL, RESTART = "cold start, one client", "kill -9", "systemctl restart"
PLAIN, DURABLE, STORED = "plain", "durable", "stored"
TITLES = {PLAIN: "serve", DURABLE: "serve, durable", STORED: "serve, FDSTORE=1 for each"}

SOCKET_UNIT = "[Socket]\nListenStream=/run/{name}.sk\nTriggerLimitIntervalSec=0\nBacklog=16384\n"
# The kernel counts the descriptors that wait in queues by user: each daemon gets one of its own.
SERVICE_UNIT = (
    "[Unit]\nStartLimitIntervalSec=0\n"
    "[Service]\nType=notify\nExecStart=countingd {kind}\nDynamicUser=yes\nLimitNOFILE={files}\n"
    "FileDescriptorStoreMax={stored}\nRestart=on-failure\nRestartSec=1ms\n"
)


def run(manager: Manager, rounds: int | None) -> None:
    manager.add_program("countingd", Path(script("counting.py")[-1]).read_text())
    limit = raise_open_file_limit()
    for count in COUNTS:
        if count + OTHER_DESCRIPTORS > limit:
            print(f"\ndurable: {count:,} clients are left out, RLIMIT_NOFILE is {limit}")
        else:
            until_answered(manager, count, rounds or ROUNDS)
    costs(manager, rounds or COST_ROUNDS)


def units(name: str, kind: str, count: int) -> dict[str, str]:
    stored = count + 10 if kind == STORED else 4
    return {
        f"{name}.socket": SOCKET_UNIT.format(name=name),
        f"{name}.service": SERVICE_UNIT.format(kind=kind, files=2 * count + 200, stored=stored),
    }


class Clients:
    """Connections to a daemon, which are open until the block is left."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets:
            sock.close()

    def connect(self, count: int) -> None:
        for _ in range(count):
            sock = socket.socket(socket.AF_UNIX)
            self._sockets.append(sock)
            sock.connect(self._path)  # it waits for room in the queue, as none with a timeout does
            sock.settimeout(PATIENCE)

    def ask(self) -> None:
        """Let each of them send a message, and wait until the last one has its answer.

        Raises:
            RuntimeError: a connection is gone.
        """
        for sock in self._sockets:
            sock.sendall(MESSAGE)
        for sock in self._sockets:
            if (answer := receive(sock, len(MESSAGE))) != MESSAGE:
                raise RuntimeError(f"a client of {self._path} got {answer!r}; expected its message")


# After a kill and a restart


def until_answered(manager: Manager, count: int, rounds: int) -> None:
    manager.add(units("many", DURABLE, count), units("cold", DURABLE, count))
    manager.systemctl("start", "many.socket", "many.service", "cold.socket")
    with Clients(manager.path("/run/many.sk")) as clients:
        clients.connect(count)
        clients.ask()
        ways = {
            COLD: partial(cold_start, manager),
            KILL: partial(kill, manager, clients),
            RESTART: partial(restart, manager, clients),
        }
        results = interleaved(ways, rounds)
    manager.systemctl("stop", "many.socket", "many.service", "cold.socket", "cold.service")
    show_spans(
        f"{count:,} durable connections, until the last client is answered",
        "The clients are idle; systemd starts the daemon again. From the kill, or from the start of systemctl, all "
        "clients send 32 bytes as soon as the old process is gone, or as systemctl has returned. Cold start: the same "
        "daemon without a connection, from a client's connect to its answer. "
        f"{rounds} rounds on the same connections, in changing order, after one to warm up; ratios within a round.",
        results,
        COLD,
    )
    for name in (KILL, RESTART):
        estimate = results.ratio(name, COLD)
        figure(f"{count:,} durable connections, `{name}` to the last answer", "its cold start", estimate, "{} times it")


def cold_start(manager: Manager) -> float:
    manager.systemctl("stop", "cold.service")
    with Clients(manager.path("/run/cold.sk")) as client:
        begin = time.perf_counter()
        client.connect(1)
        client.ask()
        return time.perf_counter() - begin


def kill(manager: Manager, clients: Clients) -> float:
    (pid,) = processes(manager, "many.service")
    pidfd = os.pidfd_open(pid)
    ended = select.poll()  # select() knows no descriptor above 1,023
    ended.register(pidfd, select.POLLIN)
    try:
        begin = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not ended.poll(1000 * PATIENCE):
            raise RuntimeError(f"process {pid} was killed and does not end")
        clients.ask()
        return time.perf_counter() - begin
    finally:
        os.close(pidfd)


def restart(manager: Manager, clients: Clients) -> float:
    begin = time.perf_counter()
    manager.systemctl("restart", "many.service")
    clients.ask()
    return time.perf_counter() - begin


# What a connection costs


@attrs.frozen
class Memory:
    """What is resident of a process, in KiB."""

    private: int
    shared: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        numbers = {words[0]: int(words[1]) for words in lines if words[0].startswith("Rss")}
        return cls(numbers["RssAnon:"], numbers["RssShmem:"])


def costs(manager: Manager, rounds: int) -> None:
    for kind in TITLES:
        manager.add(units(kind, kind, COST_COUNT))
    grown: dict[str, list[Memory]] = {kind: [] for kind in TITLES}
    results = interleaved({kind: partial(cost, manager, kind, grown[kind]) for kind in TITLES}, rounds)
    private = {kind: median(each.private for each in grown[kind]) / COST_COUNT for kind in TITLES}
    shared = {kind: median(each.shared for each in grown[kind]) / COST_COUNT for kind in TITLES}
    show(
        "What a connection costs",
        f"{COST_COUNT:,} clients connect, and each gets one answer: how much more of the daemon is resident then, its "
        "own memory and the shared memory that lives on with the descriptor store, and how long systemd's PID 1 was on "
        f"a core meanwhile. For each connection; medians of {rounds} rounds, after one to warm up.",
        ["", "own memory, KiB", "shared memory, KiB", "PID 1's CPU, us", "of FDSTORE=1 for each (95 %)"],
        [
            [
                TITLES[kind],
                f"{private[kind]:.1f}",
                f"{shared[kind]:.1f}",
                us(results.median(kind)),
                ratio(results.ratio(kind, STORED)),
            ]
            for kind in TITLES
        ],
    )
    more = private[DURABLE] + shared[DURABLE] - private[PLAIN]
    figure("memory of a durable connection", "one that is not durable", more, "{} KiB more")
    figure(
        "PID 1's processor time for a durable connection",
        f"`FDSTORE=1` for each of {COST_COUNT:,}",
        1e6 * results.median(DURABLE),
        f"{{}} us beside {us(results.median(STORED))} us",
    )


def cost(manager: Manager, kind: str, grown: list[Memory]) -> float:
    """Connect many clients; return the seconds that PID 1 was on a core for each."""
    service = f"{kind}.service"
    manager.systemctl("start", f"{kind}.socket", service)
    with Clients(manager.path(f"/run/{kind}.sk")) as clients:
        clients.connect(1)
        clients.ask()
        (pid,) = processes(manager, service)
        manager.wait_for(lambda: is_idle(manager.pid), "PID 1 has nothing to do")
        descriptors = len(open_descriptors(manager.pid))
        before, begin = Memory.of(pid), on_a_core(manager.pid)
        clients.connect(COST_COUNT)
        clients.ask()
        if kind == STORED:
            descriptors += COST_COUNT
        manager.wait_for(
            lambda: len(open_descriptors(manager.pid)) >= descriptors and is_idle(manager.pid),
            "PID 1 has stored them all",
        )
        spent, after = on_a_core(manager.pid) - begin, Memory.of(pid)
    grown.append(Memory(after.private - before.private, after.shared - before.shared))
    manager.systemctl("stop", f"{kind}.socket", service)
    return spent / COST_COUNT


def is_idle(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def on_a_core(pid: int) -> float:
    """Seconds that the main thread of a process was on a core so far; /proc/PID/stat tells only hundredths."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
