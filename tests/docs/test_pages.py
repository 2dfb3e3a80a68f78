"""What the README and the guide show works, as they show it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import activation
import activation.testing
from tests.commands import LIMIT, SCRIPTS
from tests.systemd.conftest import start_manager
from tests.systemd.manager import missing

from .pages import PIPES, Page

if TYPE_CHECKING:
    from tests.systemd.conftest import StartManager

__all__ = ["start_manager"]

ROOT = Path(__file__).parents[2]
PAGES = {page.stem: page for page in sorted((ROOT / "docs").glob("*.md"))}
UNDER_SYSTEMD = ("systemd",)


@pytest.mark.parametrize("name", [name for name in PAGES if name not in UNDER_SYSTEMD])
def test_a_page_goes_as_it_says(name: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "units", tmp_path / "units")
    Page(PAGES[name], tmp_path).play()


@pytest.mark.parametrize("name", UNDER_SYSTEMD)
def test_a_page_goes_as_it_says_under_systemd(name: str, tmp_path: Path, start_manager: StartManager) -> None:
    manager = start_manager()
    programs = {"/opt/echo/bin/python /opt/echo/echo.py": "echod", "/opt/echo/bin/python -m activation": "what"}

    def bash() -> subprocess.Popen[bytes]:
        manager.add({name: page.files[name] for name in page.files if name.endswith((".socket", ".service"))})
        manager.add_program("echod", page.files["echo.py"])
        manager.add_program("what", "from activation.__main__ import main\nmain()\n")
        enter = ["nsenter", "-t", str(manager.pid), "-m", "-p", "-r", "-w", "--"]
        return subprocess.Popen([*enter, "bash", "--norc"], env=page.env, **PIPES)  # type: ignore[call-overload,no-any-return]

    page = Page(
        PAGES[name],
        tmp_path,
        prompt="# ",
        bash=bash,
        replace={**programs, "python -m activation": "what"},
        env={"PATH": "/usr/local/sbin:/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    assert page.play() > 0


def test_the_reference_has_every_public_name() -> None:
    text = PAGES["reference"].read_text()
    names = [*activation.__all__, *(f"testing.{name}" for name in activation.testing.__all__)]
    assert [name for name in names if f":: activation.{name}\n" not in text] == []


@pytest.mark.xdist_group("install")
def test_the_readme_goes_as_it_says(tmp_path: Path) -> None:
    clone, venv = tmp_path / "clone", tmp_path / "venv"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "__pycache__", "tests")
    shutil.copytree(ROOT, clone, ignore=ignored)
    # As in the Makefile: a pip in the environment would need ensurepip.
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", venv], check=True)
    pip = venv / "bin" / "pip"
    pip.write_text(f'#!/bin/sh\nexec "{base}" -m pip --python "{venv}/bin/python" "$@"\n')
    pip.chmod(0o755)
    (venv / "bin" / "pipx").symlink_to(SCRIPTS / "pipx")
    env = {"PATH": f"{venv / 'bin'}:/usr/bin:/bin", "PIPX_HOME": str(tmp_path / "pipx")}
    Page(ROOT / "README.md", clone, env={**env, "PIPX_DEFAULT_PYTHON": sys.executable}, limit=20 * LIMIT).play()


def test_the_test_that_contributing_shows_passes(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    Page(ROOT / "CONTRIBUTING.md", tmp_path, prompt=None).play()
    example = str(tmp_path / "test_example.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.systemd.conftest", example]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
