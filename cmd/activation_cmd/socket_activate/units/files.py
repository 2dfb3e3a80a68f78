"""Finding and reading a unit's file and its drop-ins, as systemd.unit(5) has it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from .names import UnitName
from .syntax import Problem, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .syntax import Assignment

# Where systemd looks for units itself. A link from one of these to another gives a unit another name.
_UNIT_PATH: Final = frozenset(
    f"{top}/systemd/{manager}"
    for top in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib")
    for manager in ("system", "user")
)


class UnitFile(NamedTuple):
    """What a unit file and its drop-ins say, before anything is made of it.

    Attributes:
        name: the unit's own, which is another one than the file's for an instance of a template and for an alias.
        path: of the unit file.
        folders: where the other units that belong to it are looked for.
        assignments: in the order in which they hold, the drop-ins' after the unit file's.
        broken: something in it cannot be read; that has been said.
    """

    name: UnitName
    path: str
    folders: Sequence[str]
    assignments: Sequence[Assignment]
    broken: bool


def read_unit(folders: Sequence[str], name: UnitName, say: Callable[[Problem], None], expected: str) -> UnitFile | None:
    """Read a unit's file, or its template's, and its drop-ins.

    Args:
        folders: where to look for it, the most important one first.
        expected: what to say about a file that is not there.

    Returns:
        None if there is no unit file that can be read; the reason has been said.
    """
    names = [name, name.template] if name.instance else [name]
    candidates = [os.path.join(folder, str(each)) for each in names for folder in folders]
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
        what = "is a link to /dev/null" if os.path.realpath(path) == os.devnull else "is empty"
        say(Problem(path, f"{what}: the unit is masked, which keeps it from being started"))
        return None
    own = own_name(path, name)
    folders = list(dict.fromkeys([*folders, os.path.dirname(os.path.realpath(path))]))
    problems: list[Problem] = []
    for drop_in in _drop_ins(folders, [own, name]):
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
    return UnitFile(own, path, folders, assignments, broken=bool(problems))


def own_name(path: str, name: UnitName) -> UnitName:
    """The name of the unit at a path: an alias, which is a link to another unit, has the name of that unit."""
    if not os.path.islink(path):
        return name
    target = os.path.realpath(path)
    try:
        found = UnitName.parse(os.path.basename(target))
    except ValueError:
        return name
    there, here = os.path.dirname(target), os.path.realpath(os.path.dirname(path))
    if found.type != name.type or not (there == here or {there, here} <= _UNIT_PATH):
        return name
    if found.instance == "":  # a link to a template makes an instance of it
        return found._replace(instance=name.instance) if name.instance is not None else name
    return name if name.instance == "" else found


def _read(path: str) -> str:
    if not stat.S_ISREG(os.stat(path).st_mode):
        if os.path.realpath(path) == os.devnull:
            return ""
        raise ValueError("is no file; expected a file with text")
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def _why(error: OSError | ValueError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


def _drop_ins(folders: Sequence[str], names: Sequence[UnitName]) -> list[str]:
    """The drop-ins in the order of their names; of one name, only that in the most specific folder counts."""
    found: dict[str, str] = {}
    for directory in dict.fromkeys(each for name in names for each in _drop_in_folders(name)):
        for folder in folders:
            path = os.path.join(folder, directory)
            try:
                files = os.listdir(path)
            except OSError:
                continue
            for each in files:
                if each.endswith(".conf") and not each.startswith("."):
                    found.setdefault(each, os.path.join(path, each))
    return [found[each] for each in sorted(found)]


def _drop_in_folders(name: UnitName) -> Iterator[str]:
    """For ``a-b@i.service``: its own, ``a-b@.service.d``, ``a-@i.service.d``, ``a-@.service.d``, ``service.d``."""
    prefix = name.prefix
    while prefix:
        each = name._replace(prefix=prefix)
        yield f"{each}.d"
        if name.instance:
            yield f"{each.template}.d"
        head, dash, _ = prefix[:-1].rpartition("-")
        prefix = head + dash
    yield f"{name.type}.d"
