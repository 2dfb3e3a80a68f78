"""Where the contestants' programs are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")


def script(name: str) -> list[str]:
    """The command of one of our Python scripts, run as its shebang line would."""
    return [sys.executable, os.path.join(_FOLDER, name)]


def installed(name: str) -> str:
    """A command of the project, as pip installed it."""
    return os.path.join(sysconfig.get_path("scripts"), name)


def c_program(folder: str, name: str) -> str | None:
    """Compile one of our C programs into ``folder``; None where there is no compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        return None
    program = os.path.join(folder, name)
    subprocess.run([compiler, "-O2", "-o", program, os.path.join(_FOLDER, f"{name}.c")], check=True)
    return program


def uvloop(benchmark: str) -> bool:
    """Whether there is a uvloop to compare with; says so where there is none."""
    found = importlib.util.find_spec("uvloop") is not None
    if not found:
        print(f"\n{benchmark}: there is no uvloop to compare with")
    return found
