"""The processes of a service, as far as they can be told without a cgroup."""

from __future__ import annotations

import os

import attrs

from . import table
from .reaper import gone


@attrs.define(eq=False)
class Group:
    """Those of a start's session, those that have inherited what names the start, and those of its helpers' sessions.

    Attributes:
        session: the number of the first process, and of its session.
        identity: the start's own INVOCATION_ID=...
        helpers: the processes that ExecReload= has now.
    """

    session: int
    identity: bytes
    helpers: set[int] = attrs.field(factory=set, init=False)

    def owns(self, pid: int) -> bool:
        """Whether a process is of the group."""
        return table.belongs(pid, self.session) or self.identity in table.environment(pid)

    def members(self) -> list[int]:
        """Their numbers. All come to this process when they lose their parents, so none is further away than below."""
        sessions = {self.session, *self.helpers}
        return [
            found.pid
            for found in table.descendants(os.getpid())
            if found.session in sessions or self.identity in table.environment(found.pid)
        ]

    async def members_gone(self) -> None:
        """Wait for the end of those that are there now."""
        for pid in self.members():
            await gone(pid)
