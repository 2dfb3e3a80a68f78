"""The same test for a daemon inside the test's process and for one that is a command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.activation.testing import daemons

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Started = Callable[[], Awaitable[object]] | list[str]
    Starts = Callable[[str], Started]


@pytest.fixture(params=["in the test's process", "as a command"])
def started(request: pytest.FixtureRequest) -> Starts:
    """What starts the daemon of this name."""
    if request.param == "as a command":
        return lambda name: [sys.executable, daemons.__file__, name]
    return lambda name: getattr(daemons, name)
