from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.bench import _record, readme
from tests.bench._rounds import Estimate
from tests.bench._table import figure, goal, show

PAGE = f"# Speed\n\nRatios:\n\n{readme.BEGIN}\nold\n{readme.END}\n\nMore.\n"


def record(path: Path, benchmark: str, what: str, measured: Estimate | float, form: str = "{}") -> dict[str, Any]:
    with _record.recording(str(path), benchmark):
        show("A title", "A caption.", ["", "a second"], [["ours", "2"]])
        goal("at least 1", "1.5", met=True)
        figure(what, "theirs", measured, form)
    return _record.read(str(path))


def test_a_benchmark_replaces_what_it_told_before_and_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    record(path, "one", "ours", 1.0)
    record(path, "two", "ours", 2.0)
    told = record(path, "one", "ours", 3.0)["benchmarks"]
    assert {name: [each["median"] for each in of["figures"]] for name, of in told.items()} == {
        "one": [3.0],
        "two": [2.0],
    }
    assert told["one"]["goals"] == [{"goal": "at least 1", "measured": "1.5", "met": True}]
    assert told["one"]["tables"][0]["rows"] == [["ours", "2"]]
    assert told["one"]["python"] == _record.python()


def test_the_page_gets_a_row_for_each_figure_and_keeps_the_rest(tmp_path: Path) -> None:
    page, figures = tmp_path / "README.md", tmp_path / "figures.json"
    page.write_text(PAGE)
    record(figures, "serving", "round trips", Estimate([1.0, 1.25, 1.5]))
    record(figures, "imports", "import", 0.625, "{} ms more")
    for _ in range(2):
        readme.main([str(figures), str(page)])
    text = page.read_text()
    assert text.startswith(PAGE[: PAGE.index("old")])
    assert text.endswith(PAGE[PAGE.index("old") + 3 :])
    assert "| round trips | theirs | 1.25 (1.00 to 1.50) |\n| import | theirs | 0.62 ms more |\n" in text
    assert _record.python() in text
    assert _record.kernel() in text


def test_benchmarks_of_another_day_say_so() -> None:
    benchmark = {"python": "CPython 3.15", "kernel": "Linux 6", "cores": 2, "figures": [{"median": 1}]}
    record = {"benchmarks": {"one": {**benchmark, "date": "2026-01-01"}, "two": {**benchmark, "date": "2026-01-02"}}}
    assert list(readme.taken(record)) == [
        "`one`: taken 2026-01-01 with CPython 3.15 on Linux 6, 2 cores.",
        "`two`: taken 2026-01-02 with CPython 3.15 on Linux 6, 2 cores.",
    ]


@pytest.mark.parametrize(
    ("figures", "message"), [("[]", "benchmarks"), ('{"benchmarks": {}}', "no benchmark"), ("{", "Expecting")]
)
def test_a_file_without_figures_changes_no_page(tmp_path: Path, figures: str, message: str) -> None:
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "figures.json").write_text(figures)
    with pytest.raises(SystemExit, match=message):
        readme.main([str(tmp_path / "figures.json"), str(tmp_path / "README.md")])
    assert (tmp_path / "README.md").read_text() == PAGE


def test_a_page_without_a_place_for_the_figures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Speed\n")
    record(tmp_path / "figures.json", "one", "ours", 1.0)
    with pytest.raises(SystemExit, match="no line"):
        readme.main([str(tmp_path / "figures.json"), str(tmp_path / "README.md")])


def test_the_page_of_the_guide_has_the_place_for_the_table() -> None:
    page = (Path(__file__).parents[1] / "docs" / "speed.md").read_text()
    assert "| the table |" in readme.replaced(page, "| the table |")
