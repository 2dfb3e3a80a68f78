"""A small process that outlives socket-activate by a moment: if that is killed, it ends the services and cleans up.

It hears what there is to end and to remove through a socket whose other end only socket-activate and its children have
open; the kernel closes that with the last of them. It is forked before anything slow is imported and stays small.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, NoReturn

from . import leftovers, processes

if TYPE_CHECKING:
    from typing import Self

_SEPARATOR = "\0"
_LONGEST_MESSAGE = 1 << 16


class Guardian:
    """socket-activate's end. Leaving the block ends the process, which by then has nothing left to do."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = os.fork()
            if not self.pid:
                _become_guardian(ours, theirs)
        self._socket = ours

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # somebody ended it before

    def fileno(self) -> int:
        """What a child needs to keep open, to tell of itself."""
        return self._socket.fileno()

    def announce(self, kind: str, path: str, identity: str) -> None:
        """Tell of something in the file system: before it is made, and after that once more with its identity."""
        self._tell("node", kind, path, identity)

    def guard(self, session: int, identity: str = "") -> None:
        """Tell of a session whose processes are to end, and of all that inherit ``identity``, one ``NAME=value``.

        A child tells it of itself as soon as there is one, so none is missed; the identity follows.
        """
        self._tell("guard", str(session), identity)

    def release(self, session: int) -> None:
        """Tell that no process of a session is left; its number may be another's from now on."""
        self._tell("release", str(session))

    def _tell(self, *words: str) -> None:
        try:
            self._socket.send(os.fsencode(_SEPARATOR.join(words)))
        except OSError:
            pass  # the guardian was killed; what is left of its work is done where the block is left


def _become_guardian(ours: socket.socket, theirs: socket.socket) -> NoReturn:
    try:
        # Away from the terminal and its signals, and from the pipes that others read to their end.
        os.setsid()
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        ours.close()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.close(null)
        _watch(theirs)
    finally:
        os._exit(0)


def _watch(theirs: socket.socket) -> None:
    sessions: dict[int, bytes] = {}
    nodes: dict[tuple[str, str], str] = {}
    while message := theirs.recv(_LONGEST_MESSAGE):
        what, *words = os.fsdecode(message).split(_SEPARATOR)
        if what == "node":
            kind, path, identity = words
            nodes[kind, path] = identity
        elif what == "guard":
            sessions[int(words[0])] = os.fsencode(words[1])
        else:
            sessions.pop(int(words[0]), None)
    identities = {identity for identity in sessions.values() if identity}
    for process in processes.running() if sessions else ():
        if process.session in sessions or identities & processes.environment(process.pid):
            _end(process.pid)
    for (kind, path), identity in reversed(nodes.items()):
        leftovers.remove_stale(kind, path, identity)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError:
        pass  # it has just ended
