"""Whoever installs the project, in whichever way, gets working scripts and nothing that is in anybody's way."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.commands import LIMIT

from .commands import SCRIPTS

# One worker makes the wheel, and tests it.
pytestmark = pytest.mark.xdist_group("install")

ROOT = Path(__file__).parent.parent
COMMANDS = ("foobard", "client", "socket-activate", "minirunc")


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=20 * LIMIT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_commands(scripts: Path, path: Path) -> None:
    """Let the installed commands hold the session that the project is about."""
    for command in COMMANDS:
        assert f"usage: {command}" in run(scripts / command, "--help")
    with subprocess.Popen(
        [scripts / "socket-activate", "-l", path, scripts / "foobard"], stderr=subprocess.PIPE, text=True
    ) as activator:
        try:
            assert activator.stderr
            assert "listening" in activator.stderr.readline()
            client = subprocess.run(
                [scripts / "client", path], input="word\n", capture_output=True, text=True, timeout=LIMIT, check=True
            )
            assert client.stdout == "connect success !\nword\n"
        finally:
            activator.terminate()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source distribution, as an index has them."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_has_the_two_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.startswith("trio_activation-")} == {"activation", "activation_cmd"}
    assert {"activation/py.typed", "activation/testing/__init__.py"} <= set(names)
    assert "activation_cmd/foobard/main.py" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_gives_working_scripts(wheel: Path, tmp_path: Path) -> None:
    # As the Makefile does: the base Python's pip installs into an environment that needs none of its own.
    base = getattr(sys, "_base_executable", sys.executable)
    python = tmp_path / "venv" / "bin" / "python"
    run(base, "-m", "venv", "--without-pip", tmp_path / "venv")
    run(base, "-m", "pip", "--python", python, "install", wheel)
    check_commands(tmp_path / "venv" / "bin", tmp_path / "a.sk")


def test_pipx_gives_working_scripts(wheel: Path, tmp_path: Path) -> None:
    said = run(
        *(sys.executable, "-m", "pipx", "install", "--python", sys.executable, wheel),
        PIPX_HOME=str(tmp_path / "home"),
        PIPX_BIN_DIR=str(tmp_path / "bin"),
        PIPX_MAN_DIR=str(tmp_path / "man"),
    )
    for command in COMMANDS:
        assert command in said
    check_commands(tmp_path / "bin", tmp_path / "a.sk")
    # Whoever has no clone finds the units there: README says so.
    units = tmp_path / "home" / "venvs" / "trio-activation" / "share" / "trio-activation" / "units"
    shipped = ROOT / "units"
    for unit in shipped.rglob("*.*"):
        assert (units / unit.relative_to(shipped)).read_text() == unit.read_text()


def test_the_editable_install_gives_working_scripts(tmp_path: Path) -> None:
    check_commands(SCRIPTS, tmp_path / "a.sk")
    assert sysconfig.get_path("scripts") == str(SCRIPTS)


def test_the_commands_run_as_modules() -> None:
    for module, command in [("foobard", "foobard"), ("client", "client"), ("socket_activate", "socket-activate")]:
        assert f"usage: {command}" in run(sys.executable, "-m", f"activation_cmd.{module}", "--help")


def test_the_folder_cmd_is_never_in_the_standard_librarys_way() -> None:
    code = "import cmd, pdb; print(cmd.__file__); cmd.Cmd"
    for folder in (ROOT, ROOT / "tests", Path("/")):
        found = Path(run(sys.executable, "-c", code, cwd=folder).strip())
        assert found == Path(sysconfig.get_path("stdlib")) / "cmd.py"
