"""A manager at length and in breadth: 1,000 activations in a row, and 100 socket units at once."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import attrs

from tests.children import open_descriptors
from tests.commands import command_line, resident
from tests.systemd.manager import INTERVAL, Manager, missing

from ._launch import FORKED_BEFORE, PATIENCE, running
from ._programs import c_program, installed
from ._rounds import interleaved
from ._table import figure, goal, ms, ratio, show, show_spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

ROUNDS_IN_A_ROW, ROUNDS_AT_ONCE = 3, 15
EARLY, LATE = 100, 1000
"""Activations after which memory and descriptors are looked at."""
FLAT = 512 * 1024
"""Bytes that memory may grow by between the two looks: Python's allocator takes its time to find its size."""
UNITS = 100

OURS, SYSTEMD = "socket-activate", "systemd"

# As many starts as there are clients, however soon they come.
SOCKET_UNIT = "[Socket]\nListenStream={path}\nTriggerLimitIntervalSec=0\nPollLimitIntervalSec=0\n"
SERVICE_UNIT = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={program}\n"

_numbers = itertools.count()


@attrs.frozen
class Look:
    """What a manager takes.

    Attributes:
        memory: of its own processes, the main one first; resident, in bytes.
        descriptors: of all of them.
    """

    memory: list[int]
    descriptors: int


def run(folder: str, rounds: int | None) -> None:
    program = c_program(folder, "echo")
    if program is None:
        print("\nactivations: left out, there is no C compiler")
        return
    with ExitStack() as stack:
        manager = None
        if reason := missing():
            print(f"\nactivations: without systemd; {reason}")
        else:
            manager = stack.enter_context(Manager(Path(folder, "manager")))
            shutil.copy(program, manager.folder)  # what else is in the machine's /tmp, it does not see
        in_a_row(folder, program, manager, rounds or ROUNDS_IN_A_ROW)
        at_once(folder, program, manager, rounds or ROUNDS_AT_ONCE)


def units(name: str, path: str, program: str) -> dict[str, str]:
    return {
        f"{name}.socket": SOCKET_UNIT.format(path=path),
        f"{name}.service": SERVICE_UNIT.format(program=program),
    }


def write(folder: str, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        Path(folder, name).write_text(text)


# In a row


def in_a_row(folder: str, program: str, manager: Manager | None, rounds: int) -> None:
    looks: dict[str, list[tuple[Look, Look]]] = {}

    def contestant(name: str, activator: Callable[[], AbstractContextManager[tuple[str, int]]]) -> float:
        with activator() as (path, pid):
            begin = time.perf_counter()
            activate(path, EARLY)
            spent = time.perf_counter() - begin
            early = look(pid)
            begin = time.perf_counter()
            activate(path, LATE - EARLY)
            spent += time.perf_counter() - begin
            looks.setdefault(name, []).append((early, look(pid)))
        return spent

    activators: dict[str, Callable[[], AbstractContextManager[tuple[str, int]]]] = {
        OURS: partial(socket_activate, folder, program)
    }
    if manager:
        activators[SYSTEMD] = partial(systemd, manager)
    results = interleaved({name: partial(contestant, name, each) for name, each in activators.items()}, rounds)
    rows = []
    for name in results.names():
        early, late = zip(*looks[name][1:], strict=True)
        rows.append(
            [
                name,
                f"{LATE / results.median(name):.0f}",
                *(f"{median(each.memory[0] for each in some) / 1e6:.2f}" for some in (early, late)),
                f"{median(growths(looks[name])) / 1024:+.0f}",
                *(f"{median(each.descriptors for each in some):.0f}" for some in (early, late)),
                f"{len(late[0].memory)}",
            ]
        )
    show(
        f"{LATE:,} activations in a row of a C server",
        "A client connects to a Unix socket, the server is started, echoes a byte and exits, and the next client is "
        f"there at once; the same pair of unit files for both. {rounds} rounds, medians. What is resident in the main "
        f"process after {EARLY} and after {LATE:,}, how much more that is in all processes but the server, and their "
        "descriptors. systemd's PID 1 goes on from round to round.",
        ["", "a second", f"MB at {EARLY}", f"MB at {LATE:,}", "KiB more", f"fds at {EARLY}", "fds then", "processes"],
        rows,
    )
    if SYSTEMD in results:
        estimate = results.ratio(OURS, SYSTEMD)
        print(f"{OURS} takes {ratio(estimate)} of {SYSTEMD}'s time")
        figure(f"`{OURS}`, {LATE:,} activations in a row", "systemd, the same units", estimate, "{} of its time")
    growth = median(growths(looks[OURS]))
    goal(
        f"{OURS}'s memory is flat: at most {FLAT // 1024} KiB more after {LATE:,} than after {EARLY}",
        f"{growth / 1024:+.0f} KiB",
        met=growth <= FLAT,
    )


def growths(looks: list[tuple[Look, Look]]) -> list[int]:
    """Without the round that warms up."""
    return [sum(late.memory) - sum(early.memory) for early, late in looks[1:]]


def activate(path: str, times: int) -> None:
    for _ in range(times):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(path)
            client.sendall(b"x")
            answer = client.recv(1)
        if answer != b"x":
            raise RuntimeError(f"{path}: answered {answer!r}")


@contextmanager
def socket_activate(folder: str, program: str) -> Iterator[tuple[str, int]]:
    name = f"row{next(_numbers)}"
    path = os.path.join(folder, f"{name}.sk")
    write(folder, units(name, path, program))
    with running([installed("socket-activate"), os.path.join(folder, f"{name}.socket")]) as activator:
        activator.wait_until_said("listening on")
        activator.wait_for_children(FORKED_BEFORE)  # its own start is no part of this
        yield path, activator.pid
        os.kill(activator.pid, signal.SIGTERM)
        activator.wait()


@contextmanager
def systemd(manager: Manager) -> Iterator[tuple[str, int]]:
    name = f"row{next(_numbers)}"
    manager.add(units(name, f"/run/{name}.sk", str(manager.folder / "echo")))
    manager.systemctl("start", f"{name}.socket")
    yield str(manager.path(f"/run/{name}.sk")), manager.pid
    manager.systemctl("stop", f"{name}.socket", f"{name}.service")


def look(pid: int) -> Look:
    """What this process and the ones that it has forked for itself take, as soon as that stays the same."""
    deadline = time.monotonic() + PATIENCE
    before = None
    while time.monotonic() < deadline:
        try:
            own = family(pid)
            now = Look([resident(each) for each in own], sum(len(open_descriptors(each)) for each in own))
        except OSError:  # one has just ended
            now = None
        if now and now == before:
            return now
        before = now
        time.sleep(5 * INTERVAL)
    raise RuntimeError(f"pid {pid} comes to no rest")


def family(pid: int) -> list[int]:
    """A process and its children, and theirs, that run the same command: systemd's never do."""
    found = [pid]
    for each in found:
        lists = [file.read_text() for file in Path(f"/proc/{each}/task").glob("*/children")]
        children = [int(number) for text in lists for number in text.split()]
        found += [child for child in children if command_line(child) == command_line(pid)]
    return found


# At once


def at_once(folder: str, program: str, manager: Manager | None, rounds: int) -> None:
    contestants: dict[str, Callable[[], float]] = {}
    for count in (UNITS, 1):
        names = [f"many{count}-{number}" for number in range(count)]
        for name in names:
            write(folder, units(name, os.path.join(folder, f"{name}.sk"), program))
        contestants[of(OURS, count)] = partial(listening_by_socket_activate, folder, names)
        if manager:
            sockets = " ".join(f"{name}.socket" for name in names)
            texts = {f"many{count}.target": f"[Unit]\nWants={sockets}\nAfter={sockets}\n"}
            for name in names:
                texts |= units(name, f"/run/{name}.sk", str(manager.folder / "echo"))
            manager.add(texts)
            contestants[of(SYSTEMD, count)] = partial(listening_by_systemd, manager, f"many{count}", names)
    results = interleaved(contestants, rounds)
    peer = of(SYSTEMD if manager else OURS, UNITS)
    show_spans(
        f"{UNITS} socket units at once, until all listen",
        "Each has a service of its own. From the start of socket-activate until it says that the last one listens; "
        "with systemd, which runs already, from systemctl start of a target that wants them to its end. "
        f"{rounds} rounds of all, in changing order, after one to warm up; ratios within a round.",
        results,
        peer,
    )
    if manager:
        estimate = results.ratio(of(OURS, UNITS), peer)
        print(f"{OURS} takes {ratio(estimate)} of the time of {peer};")
        figure(
            f"`{OURS}`, from its start until {UNITS} socket units listen",
            "`systemctl start`",
            estimate,
            "{} of its time",
        )
    for name in (OURS, SYSTEMD) if manager else (OURS,):
        more = results.excess(of(name, UNITS), of(name, 1)).median / (UNITS - 1)
        print(f"{name}: {ms(more)} ms for each unit more")


def of(name: str, count: int) -> str:
    return f"{name}, {count} unit{'s' if count > 1 else ''}"


def listening_by_socket_activate(folder: str, names: list[str]) -> float:
    command = [installed("socket-activate"), *(os.path.join(folder, f"{name}.socket") for name in names)]
    begin = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if line.endswith(f"listening on {folder}/{names[-1]}.sk\n"):
                break
        spent = time.perf_counter() - begin
        process.terminate()
        said += process.stderr
    if process.returncode:
        raise RuntimeError(f"socket-activate ended with status {process.returncode}; it said: {''.join(said)}")
    return spent


def listening_by_systemd(manager: Manager, target: str, names: list[str]) -> float:
    begin = time.perf_counter()
    manager.systemctl("start", f"{target}.target")
    spent = time.perf_counter() - begin
    for name in names:
        if not manager.path(f"/run/{name}.sk").is_socket():
            raise RuntimeError(f"{name}.socket does not listen: {manager.state()}")
    manager.systemctl("stop", f"{target}.target", *(f"{name}.socket" for name in names))
    return spent
