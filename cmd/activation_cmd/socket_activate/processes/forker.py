"""The executor's own side: it forks, and it cleans up if socket-activate is killed. Standard library only."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums, which each child would touch first
import array
import errno
import gc
import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from activation_cmd.common import leftovers

from . import table
from .execute import become, rehearse
from .sibling import fork_sibling

if TYPE_CHECKING:
    from collections.abc import Sequence

SEPARATOR = "\0"
"""Between the words of a message to the executor."""

_LONGEST_MESSAGE = 1 << 18
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_REHEARSALS = 10
"""After so many, Python has adapted the byte code to what it does. Children share what has been adapted before."""


def _reset_signals() -> None:
    """Set every signal to its default action, whatever nohup or a shell has set, and unblock it.

    Signals that would end this process stay blocked. So a child that gets one before it unblocks them does not lose it.
    """
    for number in signal.valid_signals():
        # Python ignores these two itself, and restores them at the exec.
        if number not in (signal.SIGPIPE, signal.SIGXFSZ) and signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _HELD_BACK)


def _rehearse() -> None:
    with suppress(OSError):  # no descriptors are left; a start says so, where it needs them
        rehearse()


class Forker:
    """The process.

    Args:
        orders: what socket-activate sends, and where the numbers of children are sent. Its end is socket-activate's.
    """

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._sessions: dict[int, frozenset[bytes]] = {}
        self._nodes: dict[tuple[str, str], str] = {}

    def run(self) -> NoReturn:
        try:
            # Leave the terminal and its signals.
            os.setsid()
            _reset_signals()
            gc.disable()  # a collection would touch, and so copy, all that the children share
            for _ in range(_REHEARSALS):
                _rehearse()
            try:
                while self._obey():
                    pass
            except OSError:
                pass  # socket-activate was killed while it was answered
            self._clean_up()
        finally:
            os._exit(0)

    def _obey(self) -> bool:
        """Handle one message; return whether there was one."""
        message, ancillary, _, _ = self._orders.recvmsg(
            _LONGEST_MESSAGE, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
        )
        what, *words = os.fsdecode(message).split(SEPARATOR)
        if what == "fork":
            self._fork([number for _, _, data in ancillary for number in array.array("i", data)])
        elif what == "identities":
            self._sessions[int(words[0])] = frozenset(map(os.fsencode, words[1:]))
        elif what == "node":
            kind, path, identity = words
            self._nodes[kind, path] = identity
        elif what == "release":
            self._sessions.pop(int(words[0]), None)
        return bool(message)

    def _fork(self, channel: Sequence[int]) -> None:
        try:
            if not channel:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if not (pid := fork_sibling()):
                self._become(*channel)
            self._sessions[pid] = frozenset()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        finally:
            for number in channel:
                os.close(number)
        self._orders.send(str(pid).encode())

    def _become(self, channel: int) -> NoReturn:
        try:
            os.setsid()
            self._orders.close()
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            _rehearse()
            become(socket.socket(fileno=channel))
        finally:
            os._exit(1)

    def _clean_up(self) -> None:
        told: set[int] = set()
        while left := self._members() - told:  # a process that was just forked is found in the next round
            for pid in left:
                table.send(pid, signal.SIGTERM)
            told |= left
        for (kind, path), identity in reversed(self._nodes.items()):
            leftovers.remove_stale(kind, path, identity)

    def _members(self) -> set[int]:
        identities = frozenset[bytes]().union(*self._sessions.values())
        return {
            found.pid
            for found in (table.running() if self._sessions else ())
            # The first of a session has its number before it begins the session.
            if {found.pid, found.session} & self._sessions.keys() or identities & table.environment(found.pid)
        }
