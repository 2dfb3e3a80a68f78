"""Containers: from a client's connect to the first byte from a C server in a bundle, under minirunc and under runc."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests import bundles

from ._launch import first_byte, listening_socket, running
from ._programs import c_program, installed
from ._rounds import interleaved
from ._table import figure, goal, ratio, show_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 40
GOAL = 1.0
MINIRUNC, RUNC, BARE = "minirunc", "runc", "the C server without a container"

_numbers = itertools.count()


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    echo, runc = c_program(folder, "echo"), shutil.which("runc")
    if echo is None or runc is None or bundles.needs_root:
        print("\ncontainers: left out, that takes root, a C compiler and runc")
        return
    bundle = bundles.add_bundle(Path(folder) / "bundle", ["/echo"])
    shutil.copy(echo, bundle / "rootfs")
    commands: dict[str, list[str]] = {BARE: [echo]}
    for name, runtime in ((MINIRUNC, installed("minirunc")), (RUNC, runc)):
        commands[name] = [runtime, "--root", os.path.join(folder, name), "run", "-b", str(bundle)]
    contestants: dict[str, Callable[[], float]] = {
        name: partial(start, folder, command, named=name != BARE) for name, command in commands.items()
    }
    results = interleaved(contestants, rounds)
    show_spans(
        "Containers, connect to first echoed byte of a C server",
        "A client connects to a Unix socket, the runtime is started with it at 3 (fork, exec_process) and the same "
        "bundle, and the server in the container echoes the client's byte. The time of its end does not count. "
        f"{rounds} rounds of all, in changing order, after one to warm up; ratios within a round.",
        results,
        RUNC,
    )
    estimate = results.ratio(MINIRUNC, RUNC)
    least = results.least(MINIRUNC) / results.least(RUNC)
    goal(
        f"minirunc at most {GOAL} of runc",
        f"{ratio(estimate)}, by the least times {least:.3f}",
        met=estimate.median <= GOAL,
    )
    figure("`minirunc`, connect to first byte of a C server in a container", RUNC, estimate, "{} of its time")


def start(folder: str, command: Sequence[str], *, named: bool) -> float:
    number = next(_numbers)
    path = os.path.join(folder, f"{number}.sk")
    with listening_socket(path) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        begin = time.perf_counter()
        client.connect(path)
        with running([*command, *([f"bench-{number}"] if named else [])], [("echo.socket", listener)]) as program:
            first_byte(client, program)
            spent = time.perf_counter() - begin
            client.close()
            program.wait()
            return spent
