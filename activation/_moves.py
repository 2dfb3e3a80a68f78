"""Moving a process's descriptors to the numbers at which the next program expects them, and back.

A process has one table of descriptors, and the wanted order may overlap the present one in any way. So the moves are
planned first: a number is written to only when no later move reads it, and a cycle is opened through one spare copy.
"""

from __future__ import annotations

import fcntl
import os
from _collections_abc import Callable, Sequence  # collections.abc, without the package around it

from ._files import FIRST, is_open, open_file_limit

SPARE = -1
"""In a plan: a copy made on the way, at whatever number is free above the targets."""


def plan_moves(sources: Sequence[int]) -> list[tuple[int, int]]:
    """The moves, each (from, to) as of dup2(2), that bring ``sources`` to 3, 4, ... whatever their numbers.

    A move to SPARE makes a copy that the moves from SPARE after it read. A move of a number to itself only says that
    the descriptor stays where it is.
    """
    wanted = dict(enumerate(sources, FIRST))
    moves = [(source, target) for target, source in wanted.items() if source == target]
    pending = {target: source for target, source in wanted.items() if source != target}
    readers: dict[int, int] = {}
    for source in wanted.values():
        readers[source] = readers.get(source, 0) + 1
    free = [target for target in pending if not readers.get(target)]
    while pending:
        if free:
            target = free.pop()
            source = pending.pop(target)
            moves.append((source, target))
            readers[source] -= 1
            if not readers[source] and source in pending:
                free.append(source)
        else:
            # Only cycles are left, each number read by exactly one other: open one.
            target, source = next(iter(pending.items()))
            moves.append((source, SPARE))
            pending[target] = SPARE
            readers[SPARE] = readers.get(SPARE, 0) + 1
            readers[source] = 0
            free.append(source)
    return moves


def make_moves(moves: Sequence[tuple[int, int]], above: int, before: Callable[[int, int], None] | None = None) -> None:
    """Make the planned moves; every target is inheritable afterwards. ``before`` is told each move but copies.

    Args:
        above: a number above all targets, for copies on the way.
    """
    spare = SPARE
    try:
        for source, target in moves:
            if target == SPARE:
                spare = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above)
                continue
            if before:
                before(source, target)
            if source == target:
                os.set_inheritable(target, True)
            else:
                os.dup2(spare if source == SPARE else source, target)
            if source == SPARE:
                os.close(spare)
                spare = SPARE
    finally:
        if spare != SPARE:
            os.close(spare)


class Table:
    """This process's descriptors as an exec needs them, and the way back if it fails."""

    def __init__(self, above: int) -> None:
        self._above = above
        self._undo: list[tuple[Callable[..., object], *tuple[int, ...]]] = []

    def place(self, descriptors: Sequence[int]) -> None:
        """Bring the descriptors to 3, 4, ..., and let the exec close everything above them."""
        make_moves(plan_moves(descriptors), self._above, self._save)
        for number in _open_descriptors():
            if number >= self._above and os.get_inheritable(number):
                os.set_inheritable(number, False)
                self._undo.append((os.set_inheritable, number, True))

    def _save(self, source: int, number: int) -> None:
        if source == number:
            self._undo.append((os.set_inheritable, number, os.get_inheritable(number)))
            return
        if not is_open(number):
            self._undo.append((os.close, number))
            return
        inheritable = os.get_inheritable(number)
        copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, self._above)
        self._undo += [(os.close, copy), (os.dup2, copy, number, inheritable)]

    def restore(self) -> None:
        while self._undo:
            function, *arguments = self._undo.pop()
            function(*arguments)


def _open_descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            numbers = [int(number) for number in os.listdir(folder)]
        except OSError:
            continue
        return [number for number in numbers if is_open(number)]  # the listing's own is closed by now
    # A container may have no /proc yet.
    return [number for number in range(open_file_limit()) if is_open(number)]
