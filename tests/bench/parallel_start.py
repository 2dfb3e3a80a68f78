"""The example's chain of daemons, each of which needs the one before: one after the other, and all at once."""

from __future__ import annotations

import re
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from examples import parallel_start as chain
from tests.systemd.manager import Manager, missing

from ._rounds import interleaved
from ._table import figure, goal, ratio, show

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 8
NUMBERS = range(1, 9)
GOAL = 2
"""How many times the work of one daemon may be between the first start and the last one's being ready."""

SLOW, OURS, SYSTEMD = "one after the other", "socket-activate --now", "systemd"


def run(folder: str, rounds: int | None) -> None:
    rounds = rounds or ROUNDS
    from_start: dict[str, list[float]] = {}

    def seconds(name: str, start: Callable[[], chain.Times]) -> float:
        times = start().values()
        from_start.setdefault(name, []).append(max(times) - min(times))
        return max(times)

    with ExitStack() as stack:
        ways: dict[str, Callable[[], chain.Times]] = {
            SLOW: lambda: chain.one_after_the_other(NUMBERS, tempfile.mkdtemp(dir=folder)),
            OURS: lambda: chain.all_at_once(NUMBERS, tempfile.mkdtemp(dir=folder)),
        }
        if reason := missing():
            print(f"\nparallel-start: without systemd; {reason}")
        else:
            manager = stack.enter_context(Manager(Path(folder, "manager"), chain.unit_files(NUMBERS, "/run")))
            ways[SYSTEMD] = partial(by_systemd, manager)
        results = interleaved({name: partial(seconds, name, start) for name, start in ways.items()}, rounds)

    least_work = {name: chain.WORK * (len(NUMBERS) if name == SLOW else 1) for name in ways}
    rows = [
        [
            name,
            f"{least_work[name]:.1f}",
            f"{results.median(name):.2f}",
            f"{median(from_start[name][1:]):.2f}",
            ratio(results.ratio(name, SLOW)),
        ]
        for name in ways
    ]
    show(
        f"A chain of {len(NUMBERS)} trio daemons, until all are ready",
        f"Each connects to the one before when it starts, has {chain.WORK} s of work, imports among it, and needs an "
        f"answer of the one before. {rounds} rounds, in changing order, after one to warm up; medians, ratios within a "
        "round. From the command, the time includes what it takes socket-activate to start, and systemctl, whose "
        "systemd runs already.",
        ["", "work, s", "from the command, s", "from the first start, s", f"times {SLOW} (95 %)"],
        rows,
    )
    measured = median(from_start[OURS][1:])
    goal(
        f"{OURS}: all {len(NUMBERS)} ready in less than the work of {GOAL}, from the first start",
        f"{measured:.2f} s of {GOAL * chain.WORK:.1f} s",
        met=measured < GOAL * chain.WORK,
    )
    figure(
        f"{len(NUMBERS)} daemons with {chain.WORK} s of work each, in a chain, `--now`",
        SLOW,
        results.ratio(OURS, SLOW),
        "{} of the time",
    )


def by_systemd(manager: Manager) -> chain.Times:
    units = [f"chain{number}.{kind}" for number in NUMBERS for kind in ("socket", "service")]
    before = len(manager.log)
    begin = time.monotonic()
    manager.systemctl("start", *units)
    manager.wait_for(lambda: manager.log.count(" ready ", before) == len(NUMBERS), "all have told that they are ready")
    told = re.findall(r"daemon (\d+) (\w+) ([\d.]+)$", manager.log[before:], re.MULTILINE)
    manager.systemctl("stop", *units)
    manager.systemctl("reset-failed")  # the starts, too, are counted no more
    return {(int(number), event): float(moment) - begin for number, event, moment in told}
