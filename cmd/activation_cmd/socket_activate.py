"""socket-activate: make listening sockets, and start a program with them when a client comes. No systemd needed."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

import trio

import activation

from ._addresses import FORMS, Address, ListeningSockets, parse
from ._stdio import open_missing, reason, say

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

PATIENCE = 90.0
"""Seconds that COMMAND has to end after SIGTERM, as TimeoutStopSec= of systemd.service(5) has by default."""

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
"""Seconds before the next start of a COMMAND that failed, doubled each time."""

TRIGGER_LIMIT = 200
TRIGGER_INTERVAL = 2.0
"""More starts in so many seconds mean that COMMAND leaves its clients waiting. systemd.socket(5) has the same."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="socket-activate",
        description="Listen, and start COMMAND with the sockets when the first client comes; start it again for the "
        "next client when it has ended.",
        epilog="SIGINT, SIGTERM and SIGHUP end COMMAND by SIGTERM, a second one by SIGKILL. Exit status: 0 then; 1 for "
        "an address or COMMAND that fails; 2 for wrong usage; 126 if COMMAND may not run; 127 if there is none.",
        usage="%(prog)s [-h] -l ADDR [-l ADDR ...] [--fdname NAME[:NAME...]] [--] COMMAND [ARGUMENT ...]",
    )
    parser.add_argument(
        "-l", "--listen", action="append", required=True, metavar="ADDR", help=f"where to listen: {FORMS}"
    )
    parser.add_argument("--fdname", metavar="NAMES", help="the sockets' names, in order, separated by colons")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="the program and its arguments")
    arguments = parser.parse_args(argv)
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        parser.error("there is no COMMAND to start")
    try:
        addresses = [parse(text) for text in arguments.listen]
    except ValueError as error:
        parser.error(str(error))
    names = arguments.fdname.split(":") if arguments.fdname else []
    if names and len(names) != len(addresses):
        parser.error(f"--fdname has {len(names)} names for {len(addresses)} addresses; expected one for each")
    if not shutil.which(command[0]):
        found = os.path.exists(command[0])
        say("socket-activate", f"{command[0]}: {'it may not run' if found else 'there is no such program'}")
        return 126 if found else 127
    open_missing()
    status = 0
    try:
        status = trio.run(run, addresses, names or [""] * len(addresses), command)
    except* OSError as group:
        say("socket-activate", reason(group))
        status = 1
    except* KeyboardInterrupt:
        status = 130
    return status


async def run(addresses: Sequence[Address], names: Sequence[str], command: Sequence[str]) -> int:
    """Listen, and start the command for each client that finds it not running, until a signal ends it."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals, ListeningSockets() as made:
        for address in addresses:
            made.listen(address)
            say("socket-activate", f"listening on {address.text}")
        return await activate(made.sockets, names, command, signals)


async def activate(
    sockets: Sequence[socket.socket], names: Sequence[str], command: Sequence[str], signals: AsyncIterator[int]
) -> int:
    """Start the command whenever a client waits, until a signal comes."""
    starts: deque[float] = deque(maxlen=TRIGGER_LIMIT)
    delay = 0.0
    while await unless_signalled(partial(first_client, sockets, delay), signals):
        starts.append(trio.current_time())
        if len(starts) == TRIGGER_LIMIT and starts[-1] - starts[0] < TRIGGER_INTERVAL:
            say("socket-activate", f"{command[0]} ended {TRIGGER_LIMIT} times in {TRIGGER_INTERVAL:g} s; given up")
            return 1
        for sock in sockets:
            sock.setblocking(True)  # as they were made; the last run of the command may have changed it
        # A group of its own: the terminal's Ctrl-C is for this program, which passes SIGTERM on, once.
        process = await activation.open_process(
            command, list(zip(names, sockets, strict=True)), stdin=subprocess.DEVNULL, process_group=0
        )
        say("socket-activate", f"a client came; started {command[0]}, pid {process.pid}")
        if not await unless_signalled(process.wait, signals):
            await end(process, signals)
            break
        said = f"{command[0]}, pid {process.pid}, {outcome(process)}; the next client starts it again"
        if process.returncode == 0:
            delay = 0.0
        else:
            delay = min(max(FIRST_DELAY, 2 * delay), LONGEST_DELAY)
            said += f", in {delay:g} s at the earliest"
        say("socket-activate", said)
    return 0


async def first_client(sockets: Sequence[socket.socket], delay: float) -> None:
    """Wait ``delay`` seconds, then until something can be accepted or read on one of the sockets."""
    await trio.sleep(delay)
    async with trio.open_nursery() as nursery:

        async def watch(sock: socket.socket) -> None:
            await trio.lowlevel.wait_readable(sock)
            nursery.cancel_scope.cancel()

        for sock in sockets:
            nursery.start_soon(watch, sock)


async def unless_signalled(wait: Callable[[], Awaitable[object]], signals: AsyncIterator[int]) -> bool:
    """Wait for that, or for a signal; return whether no signal came. One that comes together with it counts."""
    signalled = False
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            nonlocal signalled
            await anext(signals)
            signalled = True
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        await wait()
        nursery.cancel_scope.cancel()
    return not signalled


async def end(process: trio.Process, signals: AsyncIterator[int]) -> None:
    """End the command: SIGTERM, and SIGKILL after a while or at a second signal."""
    process.terminate()
    say("socket-activate", f"ending pid {process.pid}")
    with trio.move_on_after(PATIENCE):
        await unless_signalled(process.wait, signals)
    if process.poll() is None:
        process.kill()
        await process.wait()
    say("socket-activate", f"pid {process.pid} {outcome(process)}")


def outcome(process: trio.Process) -> str:
    """How a process ended, in words."""
    status = process.returncode
    assert status is not None
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"


if __name__ == "__main__":
    sys.exit(main())
