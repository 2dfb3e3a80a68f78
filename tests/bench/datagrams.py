"""Datagrams: round trips per second of servers that are up, under the load of a C program."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from statistics import median

from ._programs import c_program, installed, script, uvloop
from ._rounds import interleaved
from ._server import Server
from ._table import figure, goal, ratio, show, us

ROUNDS = 25
CLIENTS = (1, 64)
SECONDS = 0.1
"""Of load on each server in a round."""
GOAL = 1.0

FOOBARD, TRIO, ASYNCIO, UVLOOP = "foobard", "trio, plain", "asyncio", "uvloop"


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    program = c_program(folder, "load")
    if program is None:
        print("\ndatagrams: left out, there is no C compiler for the load")
        return
    commands = {
        FOOBARD: [installed("foobard")],
        TRIO: script("trio_datagrams.py"),
        ASYNCIO: script("asyncio_datagrams.py"),
    }
    if uvloop("datagrams"):
        commands[UVLOOP] = [*script("asyncio_datagrams.py"), "uvloop"]
    rows: list[list[str]] = []
    estimates = {}
    for clients in CLIENTS:
        with ExitStack() as stack:
            how = [program, "datagrams", str(clients), str(SECONDS)]
            servers = {
                name: stack.enter_context(Server(command, udp_socket, how)) for name, command in commands.items()
            }
            results = interleaved({name: server.slice for name, server in servers.items()}, rounds)
        rows.append([f"{clients} client{'s' if clients > 1 else ''}", "", "", ""])
        for name, server in servers.items():
            rate = f"{1 / results.median(name):,.0f}"
            rows.append([f"  {name}", rate, us(median(server.cpu)), ratio(results.ratio(ASYNCIO, name))])
        estimates[clients] = results.ratio(ASYNCIO, FOOBARD)
    show(
        "Datagrams: round trips by UDP",
        f"Each client sends 32 bytes to 127.0.0.1 and waits for the echo. {SECONDS * 1000:g} ms for each server in a "
        f"round, {rounds} rounds of all, in changing order, after one to warm up; ratios within a round.",
        ["", "a second, median", "server's CPU, us each", f"times {ASYNCIO} (95 %)"],
        rows,
    )
    for clients, estimate in estimates.items():
        goal(
            f"{clients} at once: {FOOBARD} at least {GOAL:g} of {ASYNCIO}", ratio(estimate), met=estimate.median >= GOAL
        )
    figure(f"`foobard`, datagrams a second, {CLIENTS[-1]} clients", ASYNCIO, estimates[CLIENTS[-1]])


def udp_socket() -> tuple[socket.socket, str]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock, str(sock.getsockname()[1])
