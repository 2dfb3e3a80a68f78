"""The commands of ExecReload=: one after another, each in the time that TimeoutStartSec= gives."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import trio

from .processes import send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .execute import Start
    from .group import Group
    from .launch import Child
    from .model import Command
    from .reaper import Reaper


async def run_commands(
    commands: Sequence[Command],
    starts: Sequence[Start],
    reaper: Reaper,
    group: Group,
    say: Callable[[str], None],
    timeout: float,
) -> None:
    """Run them as helpers of the group until one fails that must not; ``timeout`` in seconds is for each."""
    for command, start in zip(commands, starts, strict=True):
        helper = await reaper.fork_patiently([start], at_once=True)
        if helper is None:
            return
        group.helpers.add(helper.pid)
        try:
            await _end_of(helper, say, timeout)
        finally:
            group.helpers.remove(helper.pid)
            reaper.executor.release(helper.pid)
        if helper.status and not command.ignore_failure:
            say(f"ExecReload= failed: {command.program} ended with status {helper.status}")
            return


async def _end_of(helper: Child, say: Callable[[str], None], timeout: float) -> None:
    with trio.move_on_after(timeout) as patience:
        await helper.settled()
        if helper.failure:
            say(helper.failure)
        await helper.exited.wait()
    if patience.cancelled_caught:
        send(helper.pid, signal.SIGKILL)
        await helper.exited.wait()
