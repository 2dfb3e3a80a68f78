"""socket-activate at work: all sockets first, then the services, until a signal ends them."""

from __future__ import annotations

import logging
import resource
import signal
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.common.journal import say_log
from activation_cmd.common.stdio import reason, say

from .processes.reaper import Reaper
from .processes.spare import Spare
from .services.accepting import Accepting
from .services.limits import LimitedLog
from .services.notify_socket import NotifySockets
from .services.on_demand import OnDemand
from .services.service import OWN_VARIABLES, Service, Surroundings
from .sockets.making import MadeSockets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from typing import TypeAlias

    from .processes.executor import Executor
    from .sockets.making import Made
    from .units.model import Pair

    Unit: TypeAlias = OnDemand | Accepting


_HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.frozen(kw_only=True)
class Options:
    """What holds for all units of a run.

    Attributes:
        now: services are started at once, not by their first clients.
        environment: what services find in theirs.
        directory: where they run if nothing says; None for here.
        as_units: they are units of files; else there is one, of a command line.
        watch: paths; a change in one restarts what runs.
    """

    now: bool = False
    environment: Mapping[str, str]
    directory: str | None = None
    as_units: bool
    watch: Sequence[str] = ()


async def run(executor: Executor, pairs: Sequence[Pair], options: Options) -> int:
    """Make the sockets and serve them, until a signal comes or every service was given up; return the exit status.

    Raises:
        OSError: a socket cannot be made.
        ValueError: a unit says what cannot be done.
    """
    # What was ignored from the start stays so: nohup.
    heard: list[int] = [number for number in _HEARD if signal.getsignal(number) != signal.SIG_IGN] or [signal.SIGTERM]
    early: list[int] = []
    for number in heard:
        # It hears what comes before there is a receiver, and for nothing what comes when there is none any more.
        signal.signal(number, lambda number, _: early.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*heard, signal.SIGCHLD))
    _raise_open_file_limit()
    say_log("socket-activate")
    logging.getLogger("activation").addFilter(LimitedLog())
    reaper = Reaper(executor)
    spare = Spare(reaper)
    with (
        trio.open_signal_receiver(*heard) as signals,
        ExitStack() as closing,
    ):
        for number in early:
            signal.raise_signal(number)
        async with trio.open_nursery() as background:
            await background.start(reaper.run)
            units = _units(pairs, options, reaper, spare, closing)
            background.start_soon(spare.run)
            background.start_soon(_obey, signals, units, spare)
            if options.watch:
                background.start_soon(_restart_on_change, options.watch, units)
            async with trio.open_nursery() as nursery:
                for unit in units:
                    nursery.start_soon(partial(unit.run, now=options.now))
            await reaper.end_orphans()
            # All has ended. A signal that comes now must not end this process with another status than is promised.
            signal.pthread_sigmask(signal.SIG_BLOCK, heard)
            background.cancel_scope.cancel()
    return int(reaper.disabled or any(unit.failed for unit in units))


def _raise_open_file_limit() -> None:
    """Have as many descriptors as may be; services are forked by the executor, whose limit stays what it was."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _units(pairs: Sequence[Pair], options: Options, reaper: Reaper, spare: Spare, closing: ExitStack) -> Sequence[Unit]:
    """Make everything that listens, before anything starts."""
    surroundings = Surroundings(
        reaper=reaper,
        notify_sockets=closing.enter_context(NotifySockets(reaper.executor.announce)),
        environment={name: value for name, value in options.environment.items() if name not in OWN_VARIABLES},
        directory=options.directory,
        as_units=options.as_units,
    )
    units: list[Unit] = []
    by_service: dict[int, tuple[MadeSockets, list[Made], list[Pair]]] = {}
    for pair in pairs:
        key = id(pair if pair.socket.accept else pair.service)
        sockets, made, sharing = by_service.setdefault(key, (MadeSockets(reaper.executor.announce), [], []))
        if not sharing:
            closing.enter_context(sockets)
        made += sockets.make(pair.socket)
        sharing.append(pair)
        for listen in pair.socket.listen:
            say("socket-activate", f"listening on {listen.text}")
    for sockets, made, (pair, *_) in by_service.values():
        if pair.socket.accept:
            units.append(Accepting(pair, sockets, made, surroundings))
            continue
        files = [(one.name, one.descriptor) for one in made]
        service = Service(pair.service, surroundings, files, pair.service.name)
        closing.callback(service.close)
        triggers = [one.descriptor for one in made]
        units.append(OnDemand(service, pair.socket, sockets, triggers, spare, patient=not options.as_units))
    return units


async def _obey(signals: AsyncIterator[int], units: Sequence[Unit], spare: Spare) -> None:
    """SIGHUP reloads what can be reloaded; what else comes stops everything, the second time at once."""
    stopping = False
    async for number in signals:
        if number == signal.SIGHUP and not stopping and any(unit.reloads for unit in units):
            for unit in units:
                unit.reload()
        elif stopping:
            for unit in units:
                unit.kill()
        else:
            stopping = True
            spare.close()
            for unit in units:
                unit.stop()


async def _restart_on_change(paths: Sequence[str], units: Sequence[Unit]) -> None:
    import watchfiles  # an extra dependency; main() has seen that it is there

    try:
        async for changes in watchfiles.awatch(*paths, debounce=400, step=50, ignore_permission_denied=True):
            say("socket-activate", f"{min(path for _, path in changes)} changed")
            for unit in units:
                unit.restart()
    except (OSError, RuntimeError) as error:
        say("socket-activate", f"cannot watch any more: {reason(error)}")
