"""The example of a container that is replaced under its client."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from examples import replaced_container as example
from tests import bundles
from tests.commands import run

# PR_CAPBSET_DROP of prctl(2): whoever has CAP_SYS_ADMIN loses it with the next program.
WITHOUT_CAPABILITY = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, {bundles.CAP_SYS_ADMIN}, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
CAP_SETUID = 7
CANNOT_SET_USER = WITHOUT_CAPABILITY.replace(f"24, {bundles.CAP_SYS_ADMIN},", f"24, {CAP_SETUID},")


@pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")
def test_the_session_goes_on_with_the_next_version(tmp_path: Path) -> None:
    done = run(sys.executable, example.__file__, env={**os.environ, "TMPDIR": str(tmp_path)})
    shown = done.stdout.decode()
    assert done.returncode == 0, f"{shown}{done.stderr.decode()}"
    assert done.stderr == b""
    assert [line for line in shown.splitlines() if line.startswith("< ")] == [
        "< version 1, line 1: one",
        "< version 1, line 2: two",
        "< version 2, line 3: three",
        "< version 2, line 4: four",
    ]
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_what_is_missing_is_said() -> None:
    done = run(sys.executable, "-c", WITHOUT_CAPABILITY, sys.executable, example.__file__)
    assert done.returncode == 1
    assert done.stdout == b""
    expected = "replaced_container.py: making a container takes root (CAP_SYS_ADMIN); run it with sudo\n"
    assert done.stderr.decode() == expected


@pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")
def test_where_no_container_can_start_it_says_so_and_ends() -> None:
    done = run(sys.executable, "-c", CANNOT_SET_USER, sys.executable, example.__file__)
    assert done.returncode == 1
    assert b"> one" not in done.stdout
    expected = "minirunc cannot start a container here: minirunc: process.user: Operation not permitted\n"
    assert done.stderr.decode() == f"replaced_container.py: {expected}"


def test_elsewhere_than_on_linux_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert example.main() == 1
    assert capsys.readouterr().err == "replaced_container.py: containers are Linux's, and this is darwin\n"
