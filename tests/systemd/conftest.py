"""What the tests under a real systemd share."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from .manager import Manager, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    StartManager: TypeAlias = Callable[..., Manager]

UNITS = Path(__file__).parents[2] / "units"


@pytest.fixture
def start_manager(tmp_path: Path) -> Iterator[Callable[..., Manager]]:
    """A function that boots a manager with the units it is given; it ends with the test."""
    if reason := missing():
        pytest.skip(reason)
    managers: list[Manager] = []
    with ExitStack() as stack:

        def start(*units: Path | Mapping[str, str]) -> Manager:
            managers.append(stack.enter_context(Manager(tmp_path / f"manager{len(managers)}", *units)))
            return managers[-1]

        yield start
    for manager in managers:
        print(manager.log)  # for a test that failed
