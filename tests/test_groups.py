"""Tests that share something slow run in one worker, or several of them would make it at the same time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.commands import run

if TYPE_CHECKING:
    from pathlib import Path

GROUPED = """
import os
import pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(8))
def test_tells_its_worker(number):
    with open({seen!r}, "a") as file:
        file.write(os.environ["PYTEST_XDIST_WORKER"] + "\\n")
"""


def test_the_tests_of_a_group_run_in_one_worker(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_grouped.py").write_text(GROUPED.format(seen=str(seen)))
    done = run(sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", f"--rootdir={tmp_path}", str(tmp_path))
    assert done.returncode == 0, done.stdout.decode()
    workers = seen.read_text().split()
    assert (len(workers), len(set(workers))) == (8, 1)
