"""The processes of a service, which are found without a cgroup."""

from __future__ import annotations

import os

import attrs

from . import table
from .reaper import gone


@attrs.define(eq=False)
class Group:
    """The processes of a start's session, those that have inherited its INVOCATION_ID, its helpers' sessions.

    The children of all these belong to it, too: those of a container have a session and an environment of their own.

    Attributes:
        session: the number of the first process, and of its session.
        identity: the start's own INVOCATION_ID=...
        helpers: the processes that ExecReload= is running.
    """

    session: int
    identity: bytes
    helpers: set[int] = attrs.field(factory=set, init=False)

    def owns(self, pid: int) -> bool:
        """Whether a process belongs to the group."""
        return table.belongs(pid, self.session) or self.identity in table.environment(pid)

    def members(self) -> list[int]:
        """Their numbers. Orphans become children of this process, so all of them are its descendants."""
        sessions = {self.session, *self.helpers}
        members: list[int] = []
        for found in table.descendants(os.getpid()):  # parents come before their children
            if found.session in sessions or found.parent in members or self.identity in table.environment(found.pid):
                members.append(found.pid)
        return members

    async def members_gone(self) -> None:
        """Wait until all current members have ended."""
        for pid in self.members():
            await gone(pid)
