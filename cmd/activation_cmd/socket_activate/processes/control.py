"""The commands of ExecReload=, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from activation_cmd.socket_activate.units.model import Command

    from .group import Group
    from .reaper import Reaper
    from .start import Start


async def run_commands(
    commands: Sequence[Command],
    starts: Sequence[Start],
    reaper: Reaper,
    group: Group,
    say: Callable[[str], None],
    begins: Callable[[], None],
) -> None:
    """Run them as helpers of the group until one fails that must not; ``begins`` is called before each."""
    for command, start in zip(commands, starts, strict=True):
        begins()
        helper = await reaper.fork_patiently([start], at_once=True)
        if helper is None:
            return
        group.helpers.add(helper.pid)
        try:
            await helper.settled()
            if helper.failure:
                say(helper.failure)
            await helper.exited.wait()
        finally:
            group.helpers.remove(helper.pid)
            reaper.executor.release(helper.pid)
        if helper.status and not command.ignore_failure:
            say(f"ExecReload= failed: {command.program} ended with status {helper.status}")
            return
