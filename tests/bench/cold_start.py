"""Cold start: from a client's connect to its first byte back, of a server that is started by that connect."""

from __future__ import annotations

import itertools
import os
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from ._launch import first_byte, listening_socket, running
from ._programs import c_program, installed, script
from ._rounds import interleaved
from ._table import figure, goal, ratio, show_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 60
GOAL = 1.03
FOOBARD, PEER = "foobard", "bare trio script"

_numbers = itertools.count()


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    commands = {
        FOOBARD: [installed("foobard")],
        PEER: script("bare_trio.py"),
        "asyncio streams script": script("bare_asyncio.py"),
    }
    if program := c_program(folder, "echo"):
        commands["C server"] = [program]
    contestants: dict[str, Callable[[], float]] = {
        name: partial(cold_start, folder, command) for name, command in commands.items()
    }
    results = interleaved(contestants, rounds)
    show_spans(
        "Cold start, connect to first echoed byte",
        f"A client connects to a Unix socket, the program is started with it at 3 (fork, exec_process), and echoes "
        f"the client's byte. {rounds} rounds of all, in changing order, after one to warm up; ratios within a round.",
        results,
        PEER,
    )
    estimate = results.ratio(FOOBARD, PEER)
    least = results.least(FOOBARD) / results.least(PEER)
    goal(
        f"foobard at most {GOAL} of the bare trio script",
        f"{ratio(estimate)}, by the least times {least:.3f}",
        met=estimate.median <= GOAL,
    )
    figure("cold start of `foobard`, connect to first byte", f"a {PEER}", estimate, "{} of its time")


def cold_start(folder: str, command: Sequence[str]) -> float:
    path = os.path.join(folder, f"{next(_numbers)}.sk")
    with listening_socket(path) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        begin = time.perf_counter()
        client.connect(path)
        with running(command, [("foobar.socket", listener)]) as program:
            first_byte(client, program)
            return time.perf_counter() - begin
