"""Serving: connections and round trips per second of servers that are up, under the load of a C program."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import attrs

from ._launch import raise_open_file_limit, unix_listener
from ._programs import c_program, script, uvloop
from ._rounds import interleaved
from ._server import LIFE, Server
from ._table import figure, goal, ratio, show, us

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._rounds import Estimate

ROUNDS = 15
PAIR_ROUNDS = 3
"""For each of them, rounds of two alone: goals of a few percent need more than the table does."""
OTHER_DESCRIPTORS = 50
"""What a server has open besides its connections, at most."""

SERVE, PEER = "activation.serve", "trio.serve_listeners"
ASYNCIO, UVLOOP = "asyncio streams", "asyncio streams on uvloop"


@attrs.frozen
class Load:
    """What a client does, how many do it at once, and what activation.serve() is to do of what its peers do."""

    title: str
    kind: str
    clients: int
    seconds: float
    """Of it, on each server in a round."""
    goals: dict[str, float]
    """By peer: so much of it in a second, at least."""

    def __str__(self) -> str:
        return f"{self.title}, {self.clients:,} at once"


LOADS = (
    Load("Connections", "connections", 16, 0.05, {PEER: 1.0}),
    Load("Round trips", "round-trips", 1, 0.05, {PEER: 0.95}),
    Load("Round trips", "round-trips", 64, 0.1, {PEER: 1.0, ASYNCIO: 1.0}),
    Load("Round trips", "round-trips", 1000, 0.1, {PEER: 1.0, ASYNCIO: 1.0}),
)


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    program = c_program(folder, "load")
    if program is None:
        print("\nserving: left out, there is no C compiler for the load")
        return
    commands = {SERVE: script("activation_serve.py"), PEER: script("bare_trio.py"), ASYNCIO: script("bare_asyncio.py")}
    if uvloop("serving"):
        commands[UVLOOP] = script("bare_uvloop.py")
    rows: list[list[str]] = []
    pairs: list[tuple[Load, str, Estimate]] = []
    busiest = 0.0
    for load in possible_loads("serving", LOADS):
        with ExitStack() as stack:
            how = [program, load.kind, str(load.clients), str(load.seconds)]
            servers = {
                name: stack.enter_context(Server(command, partial(unix_listener, folder), how))
                for name, command in commands.items()
            }
            results = interleaved({name: server.slice for name, server in servers.items()}, rounds)
            for peer in load.goals:
                pair = interleaved({name: servers[name].slice for name in (SERVE, peer)}, rounds * PAIR_ROUNDS)
                pairs.append((load, peer, pair.ratio(peer, SERVE)))
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
    print(f"The peer: {PEER}. All but the two of asyncio have the same handler, the plain one.")
    for load, peer, estimate in pairs:
        least = load.goals[peer]
        goal(f"{load}: {SERVE} at least {least:g} of {peer}", ratio(estimate), met=estimate.median >= least)
        figure(f"`serve`, {str(load).lower()}, a second", peer, estimate)


def possible_loads(benchmark: str, loads: Sequence[Load], each: int = 1) -> list[Load]:
    """The loads for which there are enough descriptors, where a server needs so many for each connection."""
    limit = raise_open_file_limit()
    possible = [load for load in loads if each * load.clients + OTHER_DESCRIPTORS <= limit]
    for load in loads:
        if load not in possible:
            print(f"\n{benchmark}: {load}: left out, RLIMIT_NOFILE is {limit}")
    return possible
