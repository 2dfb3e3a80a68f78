"""Write the table of figures into a page: ``python -m tests.bench.readme FIGURES.json docs/speed.md``.

It replaces what stands between the two markers, each on a line of its own, by a row for each figure in the file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import _record

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN = (
    "<!-- figures: make bench BENCH_JSON=figures.json && python -m tests.bench.readme figures.json docs/speed.md -->"
)
END = "<!-- end of the figures -->"


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        sys.exit(
            f"usage: python -m tests.bench.readme FIGURES.json docs/speed.md; there are {len(arguments)} arguments"
        )
    figures, page = arguments
    try:
        with open(page, encoding="utf-8") as file:
            before = file.read()
        after = replaced(before, table(_record.read(figures)))
        with open(page, "w", encoding="utf-8") as file:
            file.write(after)
    except (OSError, ValueError) as error:
        sys.exit(f"{page}: {error}")


def replaced(page: str, table: str) -> str:
    """Return the page with the table between its markers.

    Raises:
        ValueError: there are not two of them, in order.
    """
    before, begin, rest = page.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"\n{END}")
    if not begin or not end:
        raise ValueError(f"there is no line {BEGIN!r}, or no line {END!r} after it")
    return f"{before}{begin}\n{table}\n{end}{after}"


def table(record: _record.Record) -> str:
    """Return the figures as Markdown: a table, and a sentence that says when and on what they were taken."""
    benchmarks = record["benchmarks"].values()
    rows = [row(figure) for benchmark in benchmarks for figure in benchmark.get("figures", ())]
    if not rows:
        raise ValueError("no benchmark in the file has figures; make bench runs all of them")
    lines = ["| what | beside | figure (95 %) |", "| --- | --- | --- |", *rows, "", " ".join(taken(record))]
    return "\n".join(lines)


def row(figure: _record.Record) -> str:
    value = figure["form"].format(f"{figure['median']:.2f}")
    if "low" in figure:
        value += f" ({figure['low']:.2f} to {figure['high']:.2f})"
    return f"| {figure['what']} | {figure['beside']} | {value} |"


def taken(record: _record.Record) -> Iterator[str]:
    """Say for each set of circumstances which benchmarks were run in them."""
    sets: dict[str, list[str]] = {}
    for name, benchmark in record["benchmarks"].items():
        if benchmark.get("figures"):
            how = "{date} with {python} on {kernel}, {cores} cores".format(**benchmark)
            sets.setdefault(how, []).append(f"`{name}`")
    for how, names in sets.items():
        yield f"Taken {how}." if len(sets) == 1 else f"{', '.join(names)}: taken {how}."


if __name__ == "__main__":
    main(sys.argv[1:])
