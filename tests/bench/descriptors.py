"""files() and listeners() by the number of descriptors: linear, and at what price for each."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING

from ._launch import raise_open_file_limit, running
from ._programs import script
from ._table import goal, show, us

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 5
SIZES = (1, 10, 100, 1000)
CALLS = 3000  # calls in a child, by the number of descriptors
PEERS = {"files()": "files by hand", "listeners()": "listeners by hand"}
LINEAR = 1.25
"""What a descriptor costs among 1,000 may be so many times what it costs among 100: caches are not linear."""


def run(folder: str, rounds: int | None) -> None:
    del folder
    rounds = rounds or ROUNDS
    raise_open_file_limit()
    least: dict[tuple[str, int], list[float]] = {}
    medians: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(max(SIZES))]
        for _ in range(rounds):
            for size in SIZES:
                for name, (shortest, middle) in measure(sockets[:size]).items():
                    least.setdefault((name, size), []).append(shortest)
                    medians.setdefault((name, size), []).append(middle)
    rows = []
    for name, peer in PEERS.items():
        for size in SIZES:
            shortest, middle = min(least[name, size]), median(medians[name, size])
            ratio = median(a / b for a, b in zip(medians[name, size], medians[peer, size], strict=True))
            rows.append([f"{name} of {size:,}", us(shortest), us(middle), us(middle / size), f"{ratio:.2f}"])
    show(
        "files() and listeners() by the number of descriptors",
        f"TCP listeners at 3, 4, ... of a process that calls each {CALLS:,} / number times, at least 20; {rounds} "
        "processes for each number, in turn. The peer is what one would write by hand, in the same process in turn: "
        "set_inheritable() and the names, nothing checked; socket.socket(fileno=) and trio.SocketListener().",
        ["", "least, us", "median, us", "for each, us", "times the peer"],
        rows,
    )
    for name in PEERS:
        growth = median(a / b / (1000 / 100) for a, b in zip(medians[name, 1000], medians[name, 100], strict=True))
        goal(
            f"{name} is linear: a descriptor among 1,000 costs at most {LINEAR} times one among 100",
            f"{growth:.2f}",
            met=growth <= LINEAR,
        )


def measure(sockets: Sequence[socket.socket]) -> dict[str, tuple[float, float]]:
    calls = max(20, CALLS // len(sockets))
    with running([*script("descriptors.py"), str(calls)], [("foobar.socket", sock) for sock in sockets]) as program:
        program.wait()
        measured: dict[str, tuple[float, float]] = json.loads(program.said())
        return measured
