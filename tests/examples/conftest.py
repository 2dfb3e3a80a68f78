"""An example as a daemon for the test kit: its main() inside the test, and its file as a command."""

from __future__ import annotations

import importlib.util
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from .test_examples import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable

    Started = Callable[..., Any]


def as_function(name: str, *arguments: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"examples_{name}", EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return partial(module.main, *arguments)


def as_command(name: str, *arguments: str) -> Any:
    return [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]


@pytest.fixture(params=[as_function, as_command], ids=["function", "command"])
def started(request: pytest.FixtureRequest) -> Started:
    """What starts the example of this name with these arguments."""
    return request.param  # type: ignore[no-any-return]
