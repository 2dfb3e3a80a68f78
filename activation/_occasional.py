"""Log messages that somebody else causes, and could cause without end."""

from __future__ import annotations

import logging
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_LOG: Final = logging.getLogger("activation")

INTERVAL: Final = 60.0
"""Seconds in which the messages of one kind are counted."""

MOST_KINDS: Final = 100
"""How many kinds are told apart; all others count as one."""


class OccasionalMessages:
    """Logs on the logger ``activation``: of each kind so many in a minute at most, then with how many it left out.

    Args:
        most: how many.
    """

    __slots__ = ("_kinds", "_most")

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._kinds: dict[str, tuple[float, int]] = {}  # until when is counted, and how many came

    def log(
        self, level: int, message: str, *arguments: object, error: BaseException | None = None, kind: str | None = None
    ) -> None:
        """Log the message, unless there were enough of its kind within the minute.

        Args:
            level: as in logging.
            message: with places for the arguments as in logging.
            arguments: for the places.
            error: whose traceback goes with the message.
            kind: by default the message itself.
        """
        if not _LOG.isEnabledFor(level):
            return
        kind = message if kind is None else kind
        if kind not in self._kinds and len(self._kinds) >= MOST_KINDS:
            kind = ""
        now = time.monotonic()
        end, count = self._kinds.get(kind, (now, 0))
        if now < end:
            self._kinds[kind] = end, count + 1
            if count >= self._most:
                return
        else:
            self._kinds[kind] = now + INTERVAL, 1
            if count > self._most:
                message += "; %d more like this before"
                arguments = (*arguments, count - self._most)
        _LOG.log(level, message, *arguments, exc_info=error)

    def warn(self, message: str, *arguments: object) -> None:
        """Log a warning, unless there were enough of its kind within the minute."""
        self.log(logging.WARNING, message, *arguments)
