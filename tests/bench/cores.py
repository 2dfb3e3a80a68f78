"""More than one core: a handler that computes, with one worker and with two, and who takes how many connections."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from ._launch import PATIENCE, Program, first_byte, running
from ._programs import c_program, script
from ._rounds import interleaved
from ._table import figure, goal, ratio, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 15
CLIENTS = 64
SECONDS = 0.5
"""Of load on each contestant in a round."""
GOAL = 1.7

ESTABLISHED = "01"
"""Of /proc/net/tcp."""

ONE, SHARED, REUSED = "1 worker", "2 workers, one socket", "2 workers, ReusePort=yes"


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    load = c_program(folder, "load")
    if load is None:
        print("\ncores: left out, there is no C compiler for the load")
        return
    with ExitStack() as stack:
        groups = {
            ONE: Workers(stack, [listening()]),
            SHARED: Workers(stack, shared(2)),
            REUSED: Workers(stack, reused(2)),
        }
        contestants: dict[str, Callable[[], float]] = {
            name: partial(group.round_trip, load) for name, group in groups.items()
        }
        results = interleaved(contestants, rounds)
        rows = []
        for name, group in groups.items():
            share = "" if name == ONE else f"{median(group.greatest_share() for _ in range(rounds)):.0%}"
            rows.append([name, f"{1 / results.median(name):,.0f}", ratio(results.ratio(ONE, name)), share])
        show(
            "More than one core: 100 times SHA-256 for each message",
            f"Round trips of 32 bytes over {CLIENTS} TCP connections, {SECONDS:g} s for each in a round, {rounds} "
            "rounds. The clients are one C process on the same cores. One socket: both workers accept on it. "
            f"ReusePort=yes: each worker has its own. The share: of {CLIENTS} clients that connect one after another, "
            "the part that the busier worker takes, median.",
            ["", "a second, median", "times 1 worker (95 %)", "busier worker's share"],
            rows,
        )
        for name in (SHARED, REUSED):
            gain = results.ratio(ONE, name)
            figure("`serve`, a handler that computes: " + name, ONE, gain)
            goal(f"{name} at least {GOAL:g} times {ONE}", ratio(gain), met=gain.median >= GOAL)


def listening(port: int = 0, *, reuse: bool = False) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
    listener.bind(("127.0.0.1", port))
    listener.listen(CLIENTS)
    return listener


def shared(workers: int) -> list[socket.socket]:
    """One socket for all workers."""
    listener = listening()
    return [listener, *(listener.dup() for _ in range(workers - 1))]


def reused(workers: int) -> list[socket.socket]:
    """A socket for each worker, all on one port."""
    first = listening(reuse=True)
    return [first, *(listening(first.getsockname()[1], reuse=True) for _ in range(workers - 1))]


class Workers:
    """Processes that serve one port, from the first use of it to the end of the benchmark."""

    def __init__(self, stack: ExitStack, listeners: Sequence[socket.socket]) -> None:
        self._address = listeners[0].getsockname()
        self._programs = []
        for listener in listeners:
            with listener:
                self._programs.append(stack.enter_context(running(script("hashing.py"), [("hashing", listener)])))

    def round_trip(self, load: str) -> float:
        """Put the workers under the load; return the seconds that a round trip took.

        Raises:
            RuntimeError: the load ended with an error.
        """
        first = self._programs[0]
        how = [str(self._address[1]), "round-trips", str(CLIENTS), str(SECONDS), str(first.pid)]
        done = subprocess.run([load, *how], capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
        if done.returncode:
            raise first.failure(f"under {' '.join(how)}: {done.stderr.strip() or done.returncode}")
        count, seconds, _, _ = map(float, done.stdout.split())
        return seconds / count

    def greatest_share(self) -> float:
        """Connect the clients; return which part of them the worker with the most of them takes."""
        with ExitStack() as stack:
            for _ in range(CLIENTS):
                client = stack.enter_context(socket.create_connection(self._address))
                first_byte(client, self._programs[0])
            taken = [connections(program, self._address[1]) for program in self._programs]
        while any(connections(program, self._address[1]) for program in self._programs):
            time.sleep(0.005)
        if sum(taken) != CLIENTS:
            raise self._programs[0].failure(f"{sum(taken)} connections were found, of {CLIENTS}")
        return max(taken) / CLIENTS


def connections(program: Program, port: int) -> int:
    """How many established connections to this port a program holds."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    inodes = {row[9] for row in rows if row[3] == ESTABLISHED and row[1].endswith(f":{port:04X}")}
    folder = f"/proc/{program.pid}/fd"
    count = 0
    for number in os.listdir(folder):
        try:
            count += os.readlink(f"{folder}/{number}").removeprefix("socket:[").rstrip("]") in inodes
        except FileNotFoundError:  # it has just been closed
            continue
    return count
