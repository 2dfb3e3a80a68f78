"""The public names: the lazy table, the stub that editors read, and what a completion and a type hint find."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import typing
from importlib.resources import files
from typing import Any

import jedi  # type: ignore[import-untyped]
import pytest

import activation
from tests.commands import LIMIT

STUB = ast.parse(files("activation").joinpath("__init__.pyi").read_text())
FUNCTIONS = [name for name in activation.__all__ if inspect.isfunction(getattr(activation, name))]
CLASSES = [name for name in activation.__all__ if inspect.isclass(getattr(activation, name))]


def stub_homes() -> dict[str, str]:
    """The names that the stub imports, and the module that each comes from."""
    imports = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 1 for node in imports)
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def stub_all() -> list[str]:
    """What the stub says that it exports."""
    (value,) = [node.value for node in STUB.body if isinstance(node, ast.Assign)]
    return list(ast.literal_eval(value))


def test_the_stub_lists_the_public_names_and_no_other() -> None:
    assert sorted(stub_all()) == activation.__all__
    assert sorted(stub_homes()) == sorted(activation.__all__)


def test_the_stub_and_the_lazy_table_import_each_name_from_the_same_module() -> None:
    eager = {"ActivationError": "_environment", "File": "_files", "files": "_files", "why_nothing_was_passed": "_files"}
    lazy = {name: home for home, names in activation._HOMES.items() for name in names}  # type: ignore[attr-defined]
    assert stub_homes() == eager | lazy


def test_every_public_name_is_documented() -> None:
    for name in activation.__all__:
        assert getattr(activation, name).__doc__, name


def test_jedi_completes_every_public_name_and_knows_its_signature() -> None:
    code = "import activation\nactivation."
    completed = {completion.name: completion for completion in jedi.Script(code).complete(2, len("activation."))}
    assert set(activation.__all__) <= set(completed)
    for name in FUNCTIONS:
        (signature,) = completed[name].get_signatures()
        # jedi replaces **options by the parameters of the function that they are handed on to.
        parameters = [
            p.name for p in inspect.signature(getattr(activation, name)).parameters.values() if p.kind != p.VAR_KEYWORD
        ]
        assert [parameter.name for parameter in signature.params][: len(parameters)] == parameters


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_type_hints_of_every_public_function_can_be_had(name: str) -> None:
    function = getattr(activation, name)
    hints = typing.get_type_hints(function)
    assert set(hints) == {*inspect.signature(function).parameters, "return"}


@pytest.mark.parametrize("name", CLASSES)
def test_the_type_hints_of_every_public_method_can_be_had(name: str) -> None:
    methods: list[tuple[str, Any]] = inspect.getmembers(getattr(activation, name), inspect.isfunction)
    by_attrs = {"__replace__"}  # from Python 3.13 on
    for method_name, method in methods:
        if method.__module__.startswith("activation") and method_name not in {*dir(object), *by_attrs}:
            assert "return" in typing.get_type_hints(method), method_name


def test_a_function_that_does_not_return_says_so() -> None:
    assert typing.get_type_hints(activation.exec_process)["return"] is typing.NoReturn


def test_serve_loads_nothing_for_durable_connections_and_no_attrs_class_of_its_own() -> None:
    code = """
import sys, activation
activation.serve
loaded = {name: module for name, module in sys.modules.items() if name.startswith("activation.")}
assert "activation._server" in loaded
print(*(name for name in loaded if "_durable" in name))
classes = {item for module in loaded.values() for item in vars(module).values() if isinstance(item, type)}
print(*(c for c in classes if c.__module__ in loaded and hasattr(c, "__attrs_attrs__")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.stdout, done.stderr) == ("activation._durable_serving\n\n", "")
