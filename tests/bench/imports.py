"""What a tool pays that only wants to know what it was passed: whole interpreters that import and end."""

from __future__ import annotations

import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from ._launch import running
from ._rounds import interleaved
from ._table import figure, goal, ms, show

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 60
GOAL = 0.005
PEER = "pass"
FILES = "import activation; activation.files()"
EXEC = "import activation; activation.exec_process"
EXECVP = "import os; os.execvp('true', ['true'])"


def run(folder: str, rounds: int | None) -> None:
    del folder
    rounds = rounds or ROUNDS
    with socket.create_server(("127.0.0.1", 0)) as listener:
        passed = [("foobar.socket", listener)]
        contestants: dict[str, Callable[[], float]] = {
            PEER: partial(lifetime, "pass"),
            FILES: partial(lifetime, FILES),
            "the same, one socket passed": partial(lifetime, FILES, passed),
            EXEC: partial(lifetime, EXEC),
            f"{EXEC}(['true'], [])": partial(lifetime, f"{EXEC}(['true'], [])"),
            EXECVP: partial(lifetime, EXECVP),
            "import asyncio": partial(lifetime, "import asyncio"),
            "import trio": partial(lifetime, "import trio"),
        }
        results = interleaved(contestants, rounds)
    rows = []
    for name in results.names():
        more = results.excess(name, PEER)
        spread = f"{ms(more.median)} ({ms(more.low)} to {ms(more.high)})"
        rows.append([name, ms(results.least(name)), ms(results.median(name)), spread])
    show(
        "python -c, start to end",
        f"Fork, exec, wait. {rounds} rounds of all, in changing order, after one to warm up; what a program takes more "
        "than `pass` is the median of the differences within a round.",
        ["", "least, ms", "median, ms", "more than pass, ms (95 %)"],
        rows,
    )
    more = results.excess(FILES, PEER)
    goal(
        f"`{FILES}` at most {1000 * GOAL:g} ms over `pass`",
        f"{ms(more.median)} ms, by the least times {ms(results.least(FILES) - results.least(PEER))} ms",
        met=more.median <= GOAL,
    )
    figure(f"`{FILES}`", "`python -c pass`", 1000 * more.median, "{} ms more")


def lifetime(code: str, files: Sequence[tuple[str, socket.socket]] = ()) -> float:
    begin = time.perf_counter()
    # -P: the installed package, not the folder this happens to run in.
    with running([sys.executable, "-P", "-c", code], files) as program:
        program.wait()
        return time.perf_counter() - begin
