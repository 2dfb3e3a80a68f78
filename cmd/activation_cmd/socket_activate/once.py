"""--once: this process waits for a client and becomes COMMAND, as systemd-socket-activate does. No event loop."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import activation
from activation_cmd.common.stdio import say

from .services.starts import OWN_VARIABLES
from .sockets.making import MadeSockets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from .units.model import Pair


class _Ended(BaseException):
    """A signal came before a client."""


def run(pair: Pair, environment: Mapping[str, str], *, now: bool, inetd: bool) -> int:
    """Become the command, which then owns the sockets and their paths; return 0 if a signal comes before a client.

    Raises:
        OSError: a socket cannot be made, or the command cannot be executed.
    """

    # Signals that are ignored, as under nohup, stay ignored.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _Ended

    def first_client() -> None:
        # exec_process() has just set these to their default actions.
        for ending in heard:
            signal.signal(ending, end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, heard)
        with suppress(OSError, ValueError):
            activation.notify("READY=1", "STATUS=Listening for the first client")
        if not now:
            poll = select.poll()
            for number in [0] if inetd else range(3, 3 + len(made)):
                poll.register(number, select.POLLIN)
            poll.poll()
        for ending in heard:
            signal.signal(ending, signal.SIG_DFL)

    signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    with MadeSockets() as sockets:
        made = sockets.make(pair.socket)
        for listen in pair.socket.listen:
            say("socket-activate", f"listening on {listen.text}")
        variables = {name: value for name, value in environment.items() if name not in OWN_VARIABLES}
        standard = made[0].descriptor if inetd else os.open(os.devnull, os.O_RDONLY)
        os.dup2(standard, 0)
        if inetd:
            os.dup2(standard, 1)
        command = pair.service.exec_start
        files = [] if inetd else [(one.name, one) for one in made]
        try:
            activation.exec_process(
                command.arguments, files, env=variables, executable=command.program, before=first_client
            )
        except _Ended:
            return 0
