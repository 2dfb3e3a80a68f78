"""Warnings that somebody else causes, and could cause without end."""

from __future__ import annotations

import logging
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_LOG: Final = logging.getLogger("activation")

INTERVAL: Final = 60.0
"""Seconds between two warnings of one kind, at least."""


class OccasionalWarnings:
    """Warns on the logger ``activation``: of each kind once a minute at most, then with how many it left out."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[float, int]] = {}

    def warn(self, kind: str, *arguments: object) -> None:
        """Warn, unless a warning of this kind was logged within the last minute.

        Args:
            kind: the message, with places for the arguments as in logging. There must be a limited number of kinds.
            arguments: for the places.
        """
        now = time.monotonic()
        due, left_out = self._kinds.get(kind, (now, 0))
        if now < due:
            self._kinds[kind] = due, left_out + 1
            return
        self._kinds[kind] = now + INTERVAL, 0
        if left_out:
            _LOG.warning(kind + "; %d more like this before", *arguments, left_out)
        else:
            _LOG.warning(kind, *arguments)
