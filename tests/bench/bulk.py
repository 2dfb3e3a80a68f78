"""Bulk: 1 GiB through 8 connections of servers that are up, under the load of a C program."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from statistics import median

from ._launch import unix_listener
from ._programs import c_program, script, uvloop
from ._rounds import interleaved
from ._server import Server
from ._table import figure, goal, ratio, show, us

ROUNDS = 9
CLIENTS = 8
SIZE = 1 << 16
"""Bytes of a message, as in the load."""
TOTAL = 1 << 30
"""Bytes of all clients, there and back."""
GOAL = 0.9

SERVE, TRIO, ASYNCIO, UVLOOP = "activation.serve", "trio.serve_listeners", "asyncio streams", "uvloop"
EPOLL, C = "epoll by hand in Python", "C server"


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    program, echoes = c_program(folder, "bulk"), c_program(folder, "echoes")
    if program is None or echoes is None:
        print("\nbulk: left out, there is no C compiler")
        return
    commands = {
        SERVE: script("activation_serve.py"),
        TRIO: script("bare_trio.py"),
        ASYNCIO: script("bare_asyncio.py"),
        EPOLL: script("bare_epoll.py"),
        C: [echoes],
    }
    if uvloop("bulk"):
        commands[UVLOOP] = script("bare_uvloop.py")
    how = [program, str(CLIENTS), str(TOTAL // SIZE // CLIENTS)]
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(Server(command, partial(unix_listener, folder), how))
            for name, command in commands.items()
        }
        results = interleaved({name: server.slice for name, server in servers.items()}, rounds)
    rows = [
        [name, f"{SIZE / results.median(name) / 1e9:.2f}", us(median(server.cpu)), ratio(results.ratio(C, name))]
        for name, server in servers.items()
    ]
    share = median(servers[C].load_share)
    show(
        "Bulk: 64 KiB messages, 1 GiB through 8 connections",
        "Each client, all of them one C process, sends and receives as fast as it can, over Unix sockets; every byte "
        f"is looked at. {rounds} rounds of all, in changing order, after one to warm up; ratios within a round. The "
        f"load needs {share:.0%} of a core for the C server.",
        ["", "GB/s, median", "server's CPU, us a message", f"times the {C} (95 %)"],
        rows,
    )
    estimate = results.ratio(C, SERVE)
    goal(f"{SERVE} at least {GOAL:g} of the {C}", ratio(estimate), met=estimate.median >= GOAL)
    for peer in (C, EPOLL, ASYNCIO, UVLOOP):
        if peer in results:
            figure("`serve`, bytes a second through 8 connections", peer, results.ratio(peer, SERVE))
