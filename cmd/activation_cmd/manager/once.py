"""--once: this process waits for a client and becomes COMMAND, as systemd-socket-activate does. No event loop."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

import activation
from activation_cmd._stdio import say

from .making import MadeSockets
from .service import OWN_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from .model import Pair


class _Ended(BaseException):
    """A signal came before a client."""


def run(pair: Pair, environment: Mapping[str, str], *, now: bool, inetd: bool) -> int:
    """Become the command, whose are the sockets and their paths from then on; return 0 if a signal comes before.

    Raises:
        OSError: a socket cannot be made, or the command cannot be executed.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _Ended

    with MadeSockets() as sockets:
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, end)
            made = sockets.make(pair.socket)
            for listen in pair.socket.listen:
                say("socket-activate", f"listening on {listen.text}")
            variables = {name: value for name, value in environment.items() if name not in OWN_VARIABLES}
            standard = made[0].descriptor if inetd else os.open(os.devnull, os.O_RDWR)
            os.dup2(standard, 0)
            if inetd:
                os.dup2(standard, 1)
            activation.exec_process(
                pair.service.exec_start.arguments,
                [] if inetd else [(one.name, one) for one in made],
                env=variables,
                before=None if now else _first_client([0] if inetd else range(3, 3 + len(made))),
            )
        except _Ended:
            return 0


def _first_client(descriptors: Sequence[int]) -> Callable[[], object]:
    poll = select.poll()
    for number in descriptors:
        poll.register(number, select.POLLIN)
    return poll.poll
