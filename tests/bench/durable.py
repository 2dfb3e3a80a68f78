"""Durable connections beside plain ones: under load, after a kill and a restart, and what each of them costs."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.systemd.manager import Manager, missing

from . import _durable_units
from ._launch import unix_listener
from ._programs import c_program, script
from ._rounds import interleaved
from ._server import LIFE, Server
from ._store import descriptor_store
from ._table import figure, goal, ratio, show, us
from .serving import Load, possible_loads

if TYPE_CHECKING:
    from ._rounds import Estimate

ROUNDS = 45
PLAIN, DURABLE, BARE = "serve", "serve, durable", "trio.serve_listeners"

LOADS = (
    Load("Connections", "connections", 16, 0.05, {PLAIN: 0.6, BARE: 0.6}),
    Load("Round trips", "round-trips", 1, 0.05, {PLAIN: 0.75, BARE: 0.75}),
    Load("Round trips", "round-trips", 64, 0.1, {PLAIN: 1.0, BARE: 1.0}),
    Load("Round trips", "round-trips", 1000, 0.1, {PLAIN: 1.0, BARE: 1.0}),
)
BESIDE = {PLAIN: "the same handler, not durable", BARE: "the same handler under trio.serve_listeners"}


def run(folder: str, rounds: int | None) -> None:
    under_load(folder, rounds or ROUNDS)
    if reason := missing():
        print(f"\ndurable: restarts and costs are left out; {reason}")
        return
    with Manager(Path(folder, "manager")) as manager:
        _durable_units.run(manager, rounds)


def under_load(folder: str, rounds: int) -> None:
    program = c_program(folder, "load")
    if program is None:
        print("\ndurable: the load is left out, there is no C compiler for it")
        return
    rows: list[list[str]] = []
    pairs: list[tuple[Load, str, Estimate]] = []
    for load in possible_loads("durable", LOADS, each=2):
        how = [program, load.kind, str(load.clients), str(load.seconds)]
        listener = partial(unix_listener, folder)
        with ExitStack() as stack:
            servers = {
                PLAIN: Server([*script("counting.py"), "plain"], listener, how),
                DURABLE: Server([*script("counting.py"), "durable"], listener, how, descriptor_store),
                BARE: Server([*script("counting.py"), "bare"], listener, how),
            }
            for server in servers.values():
                stack.enter_context(server)
            results = interleaved({name: server.slice for name, server in servers.items()}, rounds)
        pairs += [(load, peer, results.ratio(peer, DURABLE)) for peer in (PLAIN, BARE)]
        rows.append([str(load), "", "", ""])
        for name, server in servers.items():
            rate = f"{1 / results.median(name):,.0f}"
            rows.append([f"  {name}", rate, us(median(server.cpu)), ratio(results.ratio(PLAIN, name))])
    show(
        "Durable connections: connections, and round trips on open ones",
        "A connection: connect, one byte echoed, close. A round trip: 32 bytes sent, and all of them echoed. The "
        "handlers are the same and count; the durable one has its count in stream.state, and each receive is a commit. "
        "Its descriptors are stored with a process of the benchmark. Unix sockets. 50 or 100 ms for each server in a "
        f"round; {rounds} rounds of all, in changing order, after one to warm up; servers start anew every {LIFE} "
        "rounds; ratios within a round.",
        ["", "a second, median", "server's CPU, us each", "times the peer (95 %)"],
        rows,
    )
    print(f"The peer: {PLAIN}.")
    for load, peer, estimate in pairs:
        least = load.goals[peer]
        goal(f"{load}: {DURABLE}, at least {least:g} of {peer}", ratio(estimate), met=estimate.median >= least)
        figure(f"durable connections, {str(load).lower()}, a second", BESIDE[peer], estimate)
