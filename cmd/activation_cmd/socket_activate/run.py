"""socket-activate at work: the services of sockets that listen already, until a signal ends them."""

from __future__ import annotations

import gc
import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import trio

import activation
from activation_cmd.common.imports import load
from activation_cmd.common.journal import say_log
from activation_cmd.common.stdio import reason, say

from .processes.reaper import Reaper
from .processes.spare import Spare
from .services.assembly import Assembly, Options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from .processes.executor import Executor
    from .services.assembly import Unit
    from .signals import Signals
    from .sockets.listening import Listening

__all__ = ["Options", "run"]

_FIRST_TURNS = 16
"""Turns of all tasks until the start is over: enough that a child waits for the first client."""


async def run(executor: Executor, listening: Listening, noted: Signals, options: Options) -> int:
    """Serve what listens, until a signal comes or every service was given up; return the exit status.

    Raises:
        OSError: a notify socket cannot be made.
        ValueError: a unit says what cannot be done.
    """
    say_log("socket-activate")
    reaper = Reaper(executor)
    spare = Spare(reaper)
    with (
        # Until it is open, signals are noted; after it is closed, they are ignored.
        trio.open_signal_receiver(*noted.heard) as signals,
        ExitStack() as closing,
    ):
        for number in noted.early:
            signal.raise_signal(number)
        async with trio.open_nursery() as background:
            await background.start(reaper.run)
            assembly = Assembly(options, listening, reaper, spare, closing)
            assembly.make()
            units = assembly.units
            if units:
                many = "address" if listening.addresses == 1 else "addresses"
                _tell("READY=1", f"STATUS=Listening at {listening.addresses} {many}")
            background.start_soon(spare.run)
            stopping = trio.Event()
            background.start_soon(_obey, signals, units, spare, stopping)
            background.start_soon(_end_start)
            if options.watch:
                background.start_soon(_restart_on_change, options.watch, units)
            async with trio.open_nursery() as nursery:
                for unit in units:
                    nursery.start_soon(partial(unit.run, now=options.now))
            if not stopping.is_set():
                _tell("STOPPING=1")
            await reaper.end_orphans()
            # Everything has ended. A signal that comes now must not change the exit status.
            signal.pthread_sigmask(signal.SIG_BLOCK, noted.heard)
            background.cancel_scope.cancel()
    return int(reaper.disabled or listening.failed or any(unit.failed for unit in units))


def _tell(*assignments: str) -> None:
    """Tell the manager that has started this process, if there is one."""
    try:
        activation.notify(*assignments)
    except (OSError, ValueError, activation.ActivationError) as error:
        say("socket-activate", f"cannot notify the service manager: {reason(error)}")


async def _obey(signals: AsyncIterator[int], units: Sequence[Unit], spare: Spare, stopping: trio.Event) -> None:
    """Reload at SIGHUP, if something can be reloaded; stop at any other signal, and kill at the second one."""
    async for number in signals:
        if number == signal.SIGHUP and not stopping.is_set() and any(unit.reloads for unit in units):
            for unit in units:
                unit.reload()
        elif stopping.is_set():
            for unit in units:
                unit.kill()
        else:
            stopping.set()
            _tell("STOPPING=1")
            spare.close()
            for unit in units:
                unit.stop()


async def _end_start() -> None:
    for _ in range(_FIRST_TURNS):
        await trio.lowlevel.checkpoint()
    load()
    # All that is there now stays: the collector, which main() has switched off for the start, need not look at it.
    gc.freeze()
    gc.enable()


async def _restart_on_change(paths: Sequence[str], units: Sequence[Unit]) -> None:
    import watchfiles  # an extra dependency; main() has seen that it is there

    try:
        async for changes in watchfiles.awatch(*paths, debounce=400, step=50, ignore_permission_denied=True):
            say("socket-activate", f"{min(path for _, path in changes)} changed")
            for unit in units:
                unit.restart()
    except (OSError, RuntimeError) as error:
        say("socket-activate", f"cannot watch files any more: {reason(error)}")
