"""The activator's side: a launcher that listens already, from a client's connect to the first byte from a C server."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import time
from functools import partial
from typing import TYPE_CHECKING

from ._launch import FORKED_BEFORE, Program, first_byte, listening_socket, running
from ._programs import c_program, installed, script
from ._rounds import interleaved
from ._table import figure, ratio, show_spans

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 40
SETTLE = 0.05
"""Seconds from a launcher's word that it listens until it surely waits for clients."""

OURS, SYSTEMD = "socket-activate", "systemd-socket-activate"
OPEN_PROCESS, TRIO = "open_process() in a trio program", "trio.lowlevel.open_process() there, socket kept at 3"

_numbers = itertools.count()


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    echo = c_program(folder, "echo")
    if echo is None:
        print("\nlaunchers: left out, there is no C compiler")
        return
    contestants: dict[str, Callable[[], float]] = {
        OURS: partial(by_command, folder, installed("socket-activate"), echo),
        OPEN_PROCESS: partial(by_trio_program, folder, "activation", echo),
        TRIO: partial(by_trio_program, folder, "trio", echo),
    }
    if systemd := shutil.which("systemd-socket-activate"):
        contestants[SYSTEMD] = partial(by_command, folder, systemd, echo)
    else:
        print("\nlaunchers: there is no systemd-socket-activate to compare with")
    results = interleaved(contestants, rounds)
    peer = SYSTEMD if SYSTEMD in results else TRIO
    show_spans(
        "Launchers, connect to first echoed byte of a C server",
        f"Every launcher listens on a Unix socket and waits; a client connects, the launcher starts the server, it "
        f"echoes the client's byte. {rounds} rounds of all, in changing order, after one to warm up; ratios within a "
        "round. systemd-socket-activate becomes the server (exec), the others stay and start a child.",
        results,
        peer,
    )
    figure(f"`{OURS}`, connect to first byte of a C server", peer, results.ratio(OURS, peer), "{} of its time")
    print(f"{OURS} is {ratio(results.ratio(OURS, peer))} of {peer};")
    print(f"open_process() is {ratio(results.ratio(OPEN_PROCESS, TRIO))} of trio's own, which can pass no LISTEN_PID")


def by_command(folder: str, launcher: str, echo: str) -> float:
    path = _path(folder)
    with running([launcher, "-l", path, echo]) as program:
        program.wait_until_said("istening on")
        if not launcher.endswith(SYSTEMD):
            program.wait_for_children(FORKED_BEFORE)  # it listens before it can start anything
        spent = connect_to_first_byte(path, program)
        if launcher.endswith(SYSTEMD):
            program.wait()
        else:
            program.wait_until_said("exited with status 0")  # the server; the launcher is killed, then
        return spent


def by_trio_program(folder: str, how: str, echo: str) -> float:
    path = _path(folder)
    with (
        listening_socket(path) as listener,
        running([*script("trio_launcher.py"), how, echo], [("", listener)]) as program,
    ):
        listener.close()
        program.wait_until_said("listening")
        spent = connect_to_first_byte(path, program)
        program.wait()
        return spent


def connect_to_first_byte(path: str, program: Program) -> float:
    time.sleep(SETTLE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        begin = time.perf_counter()
        client.connect(path)
        first_byte(client, program)
        return time.perf_counter() - begin


def _path(folder: str) -> str:
    return os.path.join(folder, f"{next(_numbers)}.sk")
