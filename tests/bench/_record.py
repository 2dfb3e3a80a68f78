"""What the benchmarks measured, for programs: a JSON file that each run of ``make bench BENCH_JSON=file`` adds to.

Under "benchmarks" it has for each benchmark that ran: date, python, kernel and cores; "tables" as they were printed;
"goals"; and "figures", each of which is a row of the table in docs/speed.md. A benchmark that runs again replaces what
it told before, and leaves the others' results.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Record = dict[str, Any]

_current: Record = {}


def add(kind: str, **what: object) -> None:
    """Add a table, a goal or a figure to what the benchmark that runs has told."""
    _current.setdefault(kind, []).append(what)


def python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def kernel() -> str:
    return f"{platform.system()} {platform.release()}"


@contextlib.contextmanager
def recording(path: str | None, benchmark: str) -> Iterator[None]:
    """Keep what the benchmark in the block tells in the file, if there is to be one."""
    _current.clear()
    yield
    if path is None:
        return
    record = read(path) if os.path.exists(path) else {"benchmarks": {}}
    about: Record = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": python(),
        "kernel": kernel(),
        "cores": len(os.sched_getaffinity(0)),
    }
    record["benchmarks"][benchmark] = about | _current
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=2, ensure_ascii=False)
        file.write("\n")
    os.replace(f"{path}.new", path)


def read(path: str) -> Record:
    """Return what the file says.

    Raises:
        OSError, ValueError: it cannot be read, or is no such file.
    """
    with open(path, encoding="utf-8") as file:
        record = json.load(file)
    if not isinstance(record, dict) or not isinstance(record.get("benchmarks"), dict):
        raise ValueError(f'{path} has no object "benchmarks" in an object; it is no file of make bench BENCH_JSON=')
    return record
