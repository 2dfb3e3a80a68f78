"""From the assignments of a unit file to the fields of the model: what counts is read, what is not done is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .known import KNOWN
from .setting import Context
from .syntax import Problem, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .files import UnitFile
    from .setting import Setting
    from .specifiers import Unit
    from .syntax import Assignment, Level

    Say = Callable[[Problem], None]
    Known = Mapping[str, Mapping[str, Setting]]

# Nobody can observe these: they need no note.
_NOTHING_TO_DO = frozenset(["Description", "Documentation", "SourcePath", "CollectMode"])


class Assigned:
    """What a unit's assignments set.

    Attributes:
        fields: the model's.
        where: the file and line of each.
        broken: there were errors; they have been said.
    """

    def __init__(self, *, broken: bool) -> None:
        self.fields: dict[str, Any] = {}
        self.where: dict[str, str] = {}
        self.broken = broken


def assigned(file: UnitFile, unit: Unit, known: Known, say: Say) -> Assigned:
    """Read the values that count, and name the settings that are not known or not done here."""
    found = Assigned(broken=file.broken)
    for assignment in _counting(file.assignments, known):
        _set(found, known[assignment.section][assignment.key], assignment, unit, say)
    others: dict[str, list[Assignment]] = {}
    warned: set[tuple[str, str]] = set()
    for assignment in file.assignments:
        section, key = assignment.section, assignment.key
        if key in known.get(section, ()):
            continue
        if problem := _unknown(assignment, [*known, "Install"]):
            if (assignment.file, problem.message) not in warned:
                say(problem)
            warned.add((assignment.file, problem.message))
        elif section in known and key in KNOWN[section] and key not in _NOTHING_TO_DO:
            others.setdefault(assignment.file, []).append(assignment)
    for each in others.values():
        keys = ", ".join(dict.fromkeys(f"{assignment.key}=" for assignment in each))
        say(Problem(each[0].where, f"not done here, passed over from this line on: {keys}", "note"))
    return found


def _counting(assignments: Sequence[Assignment], known: Known) -> Iterable[Assignment]:
    """Those that no later assignment overrides, in order. What does not count is not judged, either."""
    counting: list[Assignment] = []
    decided: set[str] = set()
    for assignment in reversed(assignments):
        setting = known.get(assignment.section, {}).get(assignment.key)
        if setting is None:
            continue
        fields = set(setting.fields) or {assignment.key}
        if fields <= decided:
            continue
        counting.append(assignment)
        if not setting.repeated or not assignment.value:
            decided |= fields
    return reversed(counting)


def _set(found: Assigned, setting: Setting, assignment: Assignment, unit: Unit, say: Say) -> None:
    value, where = assignment.value, assignment.where

    def tell(message: str, level: Level = "error") -> None:
        replaced = "".join(f", which is {shown(text)}" for text in context.replaced)
        say(Problem(where, f"{assignment.key}= is {shown(value)}{replaced}: {message}", level))

    context = Context(unit, where, tell)
    try:
        read = setting.read(value, context) if value or not setting.repeated else []
    except ValueError as error:
        tell(str(error))
        found.broken = True
        return
    for field in setting.fields:
        found.where[field] = where
        if setting.repeated:
            found.fields[field] = [*found.fields.get(field, []), *read] if value else []
        else:
            found.fields[field] = read


def _unknown(assignment: Assignment, sections: Sequence[str]) -> Problem | None:
    """What is to be said if systemd does not know the setting, either."""
    section, key = assignment.section, assignment.key
    if section.startswith("X-") or key.startswith("X-") or key in KNOWN.get(section, ()):
        return None
    if section not in sections:
        message = f"[{section}] is passed over; expected {', '.join(map('[{}]'.format, sections))}"
    else:
        import difflib

        other = next((other for other in sections if key in KNOWN[other]), None)
        near = difflib.get_close_matches(key, sorted(KNOWN[section]), 1, 0.8)
        hint = f"; it belongs in [{other}]" if other else f"; is {near[0]}= meant?" if near else ""
        message = f"{key}= is not known in [{section}] and passed over{hint}"
    return Problem(assignment.where, message, "warning")
