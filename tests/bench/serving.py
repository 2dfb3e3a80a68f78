"""Serving: connections and round trips per second of servers that are up, under the load of a C program."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Self

import attrs

from ._launch import PATIENCE, Program, listening_socket, raise_open_file_limit, running
from ._programs import c_program, installed, script
from ._rounds import interleaved
from ._table import goal, ratio, show, us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._rounds import Estimate

ROUNDS = 15
PAIR_ROUNDS = 3
"""For each of them, rounds of two alone: goals of a few percent need more than the table does."""
LIFE = 10
"""Rounds until a server is started anew: a process may be a few percent luckier than the next."""
OTHER_DESCRIPTORS = 50
"""What a server has open besides its connections, at most."""

SERVE, PEER = "activation.serve", "trio.serve_listeners"
FOOBARD, ASYNCIO, UVLOOP = "foobard", "asyncio streams", "asyncio streams on uvloop"
GOALS = {(SERVE, PEER): 0.97, (FOOBARD, ASYNCIO): 1.0}
"""What the first does in a second is to be at least so much of what the second does."""

_numbers = itertools.count()


@attrs.frozen
class Load:
    """What a client does, and how many do it at once."""

    title: str
    kind: str
    clients: int
    seconds: float
    """Of it, on each server in a round."""

    def __str__(self) -> str:
        return f"{self.title}, {self.clients:,} at once"


COMPARED = Load("Round trips", "round-trips", 64, 0.1)
"""Where the second goal is measured."""
LOADS = (
    Load("Connections", "connections", 16, 0.05),
    Load("Round trips", "round-trips", 1, 0.05),
    COMPARED,
    Load("Round trips", "round-trips", 1000, 0.1),
)


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    program = c_program(folder, "load")
    if program is None:
        print("\nserving: left out, there is no C compiler for the load")
        return
    commands = contestants()
    rows: list[list[str]] = []
    pairs: dict[tuple[Load, str, str], Estimate] = {}
    busiest = 0.0
    for load in possible_loads():
        with ExitStack() as stack:
            servers = {
                name: stack.enter_context(Server(folder, command, program, load)) for name, command in commands.items()
            }
            results = interleaved({name: server.slice for name, server in servers.items()}, rounds)
            for name, peer in GOALS if load == COMPARED else [(SERVE, PEER)]:
                pair = interleaved({one: servers[one].slice for one in (name, peer)}, rounds * PAIR_ROUNDS)
                pairs[load, name, peer] = pair.ratio(peer, name)
        rows.append([str(load), "", "", ""])
        for name, server in servers.items():
            rate = f"{1 / results.median(name):,.0f}"
            rows.append([f"  {name}", rate, us(median(server.cpu)), ratio(results.ratio(PEER, name))])
            busiest = max(busiest, median(server.load_share))
    show(
        "Serving: connections, and round trips on open ones",
        "A connection: connect, one byte echoed, close. A round trip: 32 bytes sent, and all of them echoed. Unix "
        "sockets, since TCP runs out of ports. 50 or 100 ms for each server in a round; "
        f"{rounds} rounds of all, in changing order, after one to warm up, then {rounds * PAIR_ROUNDS} of the two "
        f"of each goal alone; servers start anew every {LIFE} rounds; ratios within a round. The load is one C "
        f"process, which needs {busiest:.0%} of a core for the fastest server.",
        ["", "a second, median", "server's CPU, us each", "times the peer (95 %)"],
        rows,
    )
    print(f"The peer: {PEER}. activation.serve has the same handler; foobard is serve with a handler of its own.")
    for (load, name, peer), estimate in pairs.items():
        least = GOALS[name, peer]
        goal(f"{load}: {name} at least {least:g} of {peer}", ratio(estimate), met=estimate.median >= least)


def contestants() -> dict[str, list[str]]:
    commands = {
        SERVE: script("activation_serve.py"),
        PEER: script("bare_trio.py"),
        FOOBARD: [installed("foobard")],
        ASYNCIO: script("bare_asyncio.py"),
    }
    if importlib.util.find_spec("uvloop"):
        commands[UVLOOP] = script("bare_uvloop.py")
    else:
        print("\nserving: there is no uvloop to compare with")
    return commands


def possible_loads() -> list[Load]:
    limit = raise_open_file_limit()
    possible = [load for load in LOADS if load.clients + OTHER_DESCRIPTORS <= limit]
    for load in LOADS:
        if load not in possible:
            print(f"\nserving: {load}: left out, RLIMIT_NOFILE is {limit}")
    return possible


class Server:
    """A contestant under one load."""

    def __init__(self, folder: str, command: Sequence[str], program: str, load: Load) -> None:
        self.cpu: list[float] = []
        """Seconds on a core for each connection or round trip, by slice."""
        self.load_share: list[float] = []
        """Seconds on a core that the load needed for a second of it, by slice."""
        self._folder = folder
        self._command = command
        self._program = program
        self._load = load
        self._slices = 0
        self._life = ExitStack()
        self._path = ""
        self._process: Program

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def slice(self) -> float:
        """Put it under the load; return the seconds that a connection or a round trip took.

        Raises:
            RuntimeError: the load ended with an error.
        """
        if self._slices % LIFE == 0:
            self._restart()
        self._slices += 1
        how = [self._load.kind, str(self._load.clients), str(self._load.seconds), str(self._process.pid)]
        done = subprocess.run(
            [self._program, self._path, *how], capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )
        if done.returncode:
            raise self._process.failure(f"under {' '.join(how)}: {done.stderr.strip() or done.returncode}")
        count, seconds, cpu, load_cpu = map(float, done.stdout.split())
        self.cpu.append(cpu / count)
        self.load_share.append(load_cpu / seconds)
        return seconds / count

    def _restart(self) -> None:
        self._life.close()
        self._path = os.path.join(self._folder, f"{next(_numbers)}.sk")
        with listening_socket(self._path) as listener:
            self._process = self._life.enter_context(running(self._command, [("foobar.socket", listener)]))
