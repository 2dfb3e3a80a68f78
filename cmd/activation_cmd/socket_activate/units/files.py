"""Finding and reading a unit's file and its drop-ins, as systemd.unit(5) has it, in one folder."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import attrs

from .syntax import Problem, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .specifiers import UnitName
    from .syntax import Assignment


@attrs.frozen
class UnitFile:
    """What a unit file and its drop-ins say, before anything is made of it.

    Attributes:
        path: of the unit file; it may be the template's.
        assignments: in the order in which they hold, the drop-ins' after the unit file's.
        broken: there is something in it that cannot be read; it has been said.
    """

    path: str
    assignments: Sequence[Assignment]
    broken: bool


def read_unit(folder: str, name: UnitName, say: Callable[[Problem], None], expected: str) -> UnitFile | None:
    """Read a unit's file, or its template's, and its drop-ins.

    Args:
        expected: what to say about a file that is not there.

    Returns:
        None if there is no unit file that can be read; why has been said.
    """
    candidates = [os.path.join(folder, str(each)) for each in ((name, name.template) if name.instance else (name,))]
    path = next(filter(os.path.lexists, candidates), candidates[0])
    try:
        texts = {path: _read(path)}
    except FileNotFoundError:
        say(Problem(path, f"there is no such file; {expected}"))
        return None
    except (OSError, ValueError) as error:
        say(Problem(path, _why(error)))
        return None
    if not texts[path]:
        say(Problem(path, "is empty, which keeps it from being started; expected a unit"))
        return None
    problems: list[Problem] = []
    for drop_in in _drop_ins(folder, name):
        try:
            texts[drop_in] = _read(drop_in)
        except (OSError, ValueError) as error:
            problems.append(Problem(drop_in, _why(error)))
    assignments: list[Assignment] = []
    for file, text in texts.items():
        found, wrong = parse(text, file)
        assignments += found
        problems += wrong
    for problem in problems:
        say(problem)
    return UnitFile(path, assignments, broken=bool(problems))


def _read(path: str) -> str:
    mode = os.stat(path).st_mode
    if os.path.realpath(path) == os.devnull:
        return ""
    if not stat.S_ISREG(mode):
        raise ValueError("is no file; expected a file with text")
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def _why(error: OSError | ValueError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


def _drop_ins(folder: str, name: UnitName) -> list[str]:
    """The drop-ins in the order of their names; of one name, that in the most specific folder alone."""
    found: dict[str, str] = {}
    for directory in _drop_in_folders(name):
        path = os.path.join(folder, directory)
        try:
            names = os.listdir(path)
        except OSError:
            continue
        for each in names:
            if each.endswith(".conf") and not each.startswith("."):
                found.setdefault(each, os.path.join(path, each))
    return [found[each] for each in sorted(found)]


def _drop_in_folders(name: UnitName) -> Iterator[str]:
    """For ``a-b@i.service``: its own, ``a-b@.service.d``, ``a-@i.service.d``, ``a-@.service.d``, ``service.d``."""
    prefix = name.prefix
    while prefix:
        each = attrs.evolve(name, prefix=prefix)
        yield f"{each}.d"
        if name.instance:
            yield f"{each.template}.d"
        head, dash, _ = prefix[:-1].rpartition("-")
        prefix = head + dash
    yield f"{name.type}.d"
