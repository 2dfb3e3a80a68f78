"""Daemons that need each other start at once: a chain, in which each connects to the one before while it starts.

Run it: ``python examples/parallel_start.py [N]``, without systemd and without root. A daemon that makes its own socket
takes no connections before it is ready, so such a chain starts one after the other. Where all sockets are there before
any daemon is, all start at once: who connects waits in a socket's queue, and goes on with its own start meanwhile.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import activation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import trio

WORK = 0.3
"""Seconds that each daemon has work to do before it is ready."""

SOCKET_UNIT = "[Socket]\nListenStream={path}\n"
SERVICE_UNIT = "[Service]\nType=notify\nExecStart={command}\n"

SOCKET_ACTIVATE = os.path.join(os.path.dirname(sys.executable), "socket-activate")
WIDTH = 64  # columns of the timeline

Times: TypeAlias = dict[tuple[int, str], float]
"""Seconds from the beginning until each daemon, by its number, told of each event."""


def daemon(number: int, folder: str) -> None:
    """Be one of the chain: connect to the one before, work, take its answer, and serve the one behind."""
    begin = tell(number, "started")
    before = socket.socket(socket.AF_UNIX)
    if number > 1:
        before.connect(socket_path(number - 1, folder))
        tell(number, "connected")

    import trio  # after the connect, which needs none of it: this is where the work begins

    time.sleep(max(0.0, begin + WORK - time.monotonic()))
    if number > 1:
        assert before.recv(100) == b"at your service", "the one before has gone"
    before.close()

    async def live() -> None:
        listeners = activation.listeners()
        if not listeners:  # nobody has made its socket, so it does
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(socket_path(number, folder))
            sock.listen()
            listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock))]
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(activation.serve, greet, listeners))
            tell(number, "ready")

    trio.run(live)


async def greet(stream: trio.SocketStream) -> None:
    """Say what the one behind waits for."""
    await stream.send_all(b"at your service")


def tell(number: int, event: str) -> float:
    """Print what happened and when; the monotonic clock is the same for all processes."""
    now = time.monotonic()
    os.write(1, f"daemon {number} {event} {now}\n".encode())  # in one piece: all share a pipe
    return now


def socket_path(number: int, folder: str) -> str:
    """Where a daemon listens, whoever makes its socket."""
    return f"{folder}/{number}.sk"


def command(number: int, folder: str) -> list[str]:
    """What runs a daemon of the chain."""
    return [sys.executable, os.path.abspath(__file__), "daemon", str(number), folder]


def unit_files(numbers: Sequence[int], folder: str) -> dict[str, str]:
    """The units of these daemons, by name: for each its socket, and its service."""
    units = {}
    for number in numbers:
        line = " ".join(f'"{word}"' for word in command(number, folder))
        units[f"chain{number}.socket"] = SOCKET_UNIT.format(path=socket_path(number, folder).replace("%", "%%"))
        units[f"chain{number}.service"] = SERVICE_UNIT.format(command=line.replace("%", "%%"))
    return units


def one_after_the_other(numbers: Sequence[int], folder: str) -> Times:
    """Start each daemon when the one before is ready."""
    times: Times = {}
    begin = time.monotonic()
    with ExitStack() as stack:
        for number in numbers:
            process = stack.enter_context(running(command(number, folder)))
            take(process, begin, times, [number])
    return times


def all_at_once(numbers: Sequence[int], folder: str) -> Times:
    """Have socket-activate make all sockets and start all daemons."""
    for name, text in unit_files(numbers, folder).items():
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    times: Times = {}
    begin = time.monotonic()
    with running([SOCKET_ACTIVATE, "--now", *(f"{folder}/chain{number}.socket" for number in numbers)]) as process:
        take(process, begin, times, numbers)
    return times


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command meanwhile, and end it."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def take(process: subprocess.Popen[str], begin: float, times: Times, numbers: Sequence[int]) -> None:
    """Add what is told, until all these daemons are ready."""
    assert process.stdout
    said = ""
    while not all((number, "ready") in times for number in numbers):
        line = process.stdout.readline()
        if not line:
            sys.exit(f"{process.args!r} ended too early; it said:\n{said}")
        said += line
        if told := re.search(r"daemon (\d+) (\w+) ([\d.]+)$", line):
            times[int(told[1]), told[2]] = float(told[3]) - begin


def show(title: str, times: Times, numbers: Sequence[int], span: float) -> None:
    """Print a line for each daemon; ``span`` is how many seconds fill it."""
    last, first = max(times.values()), min(times.values())
    print(f"\n{title}: all are ready after {last:.2f} s, {last - first:.2f} s after the first started")
    for number in numbers:
        started, ready = times[number, "started"], times[number, "ready"]
        moments = (0.0, started, times.get((number, "connected"), started), ready, span)
        columns = [round(WIDTH * moment / span) for moment in moments]
        bar = "".join(mark * (end - start) for mark, (start, end) in zip(" -=#", pairwise(columns), strict=True))
        print(f"{number:>4} |{bar}| {ready:.2f} s")


def main(count: int = 8) -> None:
    """Start the chain both ways, and show them on one scale."""
    if count < 1:
        sys.exit(f"{count} is no number of daemons; expected 1 or more")
    numbers = range(1, count + 1)
    print(f"{count} daemons; each has {WORK} s of work before it is ready, and needs an answer of the one before.")
    print("- started    = connected, and working    # ready")
    with tempfile.TemporaryDirectory(prefix="chain-") as one, tempfile.TemporaryDirectory(prefix="chain-") as other:
        slow, fast = one_after_the_other(numbers, one), all_at_once(numbers, other)
    span = max(*slow.values(), *fast.values())
    show("One after the other, each with a socket of its own", slow, numbers, span)
    show("All at once, by socket-activate --now", fast, numbers, span)


if __name__ == "__main__":
    if sys.argv[1:2] == ["daemon"]:
        daemon(int(sys.argv[2]), sys.argv[3])
    else:
        main(*map(int, sys.argv[1:]))
