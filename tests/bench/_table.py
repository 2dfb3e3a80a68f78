"""Results on the terminal: a table, how it came about, and each goal with what was measured, in plain words."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from typing import TYPE_CHECKING

import activation

from . import _record
from ._rounds import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._rounds import Results

WIDTH = 110


def show(title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    _record.add("tables", title=title, caption=caption, columns=columns, rows=rows)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (columns, ["-" * width for width in widths], *rows):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  " + "  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    print()
    print(textwrap.fill(f"{caption} {machine()}", WIDTH))


def show_spans(title: str, caption: str, results: Results, peer: str) -> None:
    """Print a row per contestant: least, median, and how many times as long as the peer it took."""
    rows = [
        [name, ms(results.least(name)), ms(results.median(name)), ratio(results.ratio(name, peer))]
        for name in results.names()
    ]
    show(title, caption, ["", "least, ms", "median, ms", "times the peer (95 %)"], rows)
    print(f"The peer: {peer}.")


def goal(text: str, measured: str, *, met: bool) -> None:
    _record.add("goals", goal=text, measured=measured, met=met)
    print(f"goal: {text} - measured {measured}: {'met' if met else 'missed'}", flush=True)


def figure(what: str, beside: str, measured: Estimate | float, form: str = "{}") -> None:
    """Give the table in docs/speed.md a row: what was measured, beside what, and how the number reads."""
    if isinstance(measured, Estimate):
        numbers = {"median": measured.median, "low": measured.low, "high": measured.high}
    else:
        numbers = {"median": measured}
    _record.add("figures", what=what, beside=beside, form=form, **numbers)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def us(seconds: float) -> str:
    return f"{1_000_000 * seconds:.2f}"


def ratio(estimate: Estimate) -> str:
    return f"{estimate.median:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def machine() -> str:
    compiled = os.path.exists(importlib.util.cache_from_source(activation.__file__))
    return (
        f"{_record.python()}, {_record.kernel()}, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, "
        f"byte code {'on disk' if compiled else 'NOT on disk, so Python starts slower than it has to'}."
    )
