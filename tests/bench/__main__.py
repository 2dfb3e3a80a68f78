"""The benchmarks: ``python -m tests.bench [--rounds N] [NAME ...]`` from the project's root. They are no tests.

BENCH_JSON in the environment names a file for the results; see _record.py.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from typing import TYPE_CHECKING

from . import (
    activations,
    bulk,
    cold_start,
    containers,
    cores,
    datagrams,
    descriptors,
    durable,
    imports,
    launchers,
    parallel_start,
    serving,
)
from ._launch import clean_environment
from ._record import recording

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARKS: dict[str, Callable[[str, int | None], None]] = {
    "cold-start": cold_start.run,
    "imports": imports.run,
    "descriptors": descriptors.run,
    "launchers": launchers.run,
    "serving": serving.run,
    "durable": durable.run,
    "bulk": bulk.run,
    "datagrams": datagrams.run,
    "activations": activations.run,
    "containers": containers.run,
    "cores": cores.run,
    "parallel-start": parallel_start.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure, against peers in the same run."
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="rounds to measure; each benchmark knows how many it needs"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(BENCHMARKS)}; by default all of them")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - BENCHMARKS.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; expected some of {', '.join(BENCHMARKS)}")
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; expected at least 1")
    clean_environment()
    path = os.environ.get("BENCH_JSON") or None
    for name in arguments.names or BENCHMARKS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, recording(path, name):
            BENCHMARKS[name](folder, arguments.rounds)


if __name__ == "__main__":
    main()
