"""A small process that forks services, and that cleans up if socket-activate is killed.

systemd has systemd-executor for the same reason: an exec tears down the memory of the process that it replaces, and for
a process with an event loop this takes longer than everything else between a client and the first byte of a small
server. So the executor is forked before anything large is imported, and each service is forked from it, not as its own
child but as its parent's: socket-activate hears of their end. One child is forked ahead, so that the next start need
not wait for the fork, either.

If socket-activate is killed, the kernel closes its socket, and the executor sees that. It ends the services and removes
what was made in the file system.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from . import order
from .forker import SEPARATOR, Forker
from .start import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from .start import Start

_LONGEST_ANSWER = 32


class Forked(NamedTuple):
    """A child that the executor has forked, and what it was sent.

    Attributes:
        pid: its number.
        channel: closed by the child's exec, or by its end.
        memory: the descriptor of the order's memory, which begins with the CHOICE. Both are the caller's to close.
    """

    pid: int
    channel: socket.socket
    memory: int


class Executor:
    """socket-activate's side of the executor. Leaving the block ends the process."""

    def __init__(self) -> None:
        self._ahead: socket.socket | None = None
        """The channel to the child that was asked for ahead; the answer has not been read yet."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = os.fork()
            if not self.pid:
                self._socket.close()
                Forker(theirs).run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self.end_ahead()
        self._socket.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # somebody ended it before

    def announce(self, kind: str, path: str, identity: str) -> None:
        """Report a path: before it is made, with no identity, and again afterwards, with its identity."""
        self._tell("node", kind, path, identity)

    def release(self, session: int) -> None:
        """Report that a session has no process left. Its number may soon belong to another one."""
        self._tell("release", str(session))

    def fork(self, starts: Sequence[Start], *, at_once: bool) -> Forked:
        """Fork what becomes one of the starts: see :func:`execute.become`.

        If socket-activate is killed, the executor ends the child's session and every process that has an INVOCATION_ID
        of these starts in its environment.

        Raises:
            OSError: there are too many processes, or descriptors.
            BrokenPipeError, ConnectionResetError: the executor was killed.
        """
        identities = [f"{IDENTITY}={start.environment[IDENTITY]}" for start in starts]
        while True:
            is_ahead = self._ahead is not None
            pid, channel = self._next_child()
            try:
                # Before the order: from then on, the child may start what has to be ended.
                self._send("identities", str(pid), *identities)
                memory = self._order(channel, starts, at_once=at_once)
            except BaseException:
                channel.close()
                raise
            if memory is not None:
                with suppress(OSError):  # the next start meets it again
                    self._ahead = self._ask()
                return Forked(pid, channel, memory)
            channel.close()
            if not is_ahead:
                raise ProcessLookupError(errno.ESRCH, "a child was killed as soon as it was forked")

    def end_ahead(self) -> None:
        """End the child that was forked ahead. The next start waits for a fork."""
        if self._ahead:
            self._ahead.close()
            self._ahead = None
            with suppress(OSError):
                self._answer()

    def _next_child(self) -> tuple[int, socket.socket]:
        """The number of a child that waits for its order, and the channel to it: of the one ahead, or of a new one.

        A child that was killed meanwhile is passed over: its number may be another process's by now.
        """
        if channel := self._ahead:
            self._ahead = None
            try:
                pid = self._answer()
                poll = select.poll()
                poll.register(channel, select.POLLIN)
                if not poll.poll(0):
                    return pid, channel
            except OSError:
                pass  # it could not be forked, which says little about now
            channel.close()
        channel = self._ask()
        try:
            return self._answer(), channel
        except BaseException:
            channel.close()
            raise

    def _order(self, channel: socket.socket, starts: Sequence[Start], *, at_once: bool) -> int | None:
        """Send the order; return the descriptor of its memory, or None if somebody has killed the child."""
        try:
            return order.send(channel, starts, at_once=at_once)
        except (BrokenPipeError, ConnectionResetError):
            return None

    def _ask(self) -> socket.socket:
        """Ask for another child; return the channel to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self._socket, [b"fork"], [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return ours

    def _answer(self) -> int:
        """The number of the child that was asked for."""
        answer = int(self._socket.recv(_LONGEST_ANSWER) or -errno.EPIPE)  # an empty answer: the executor was killed
        if answer < 0:
            raise OSError(-answer, os.strerror(-answer))
        return answer

    def _tell(self, *words: str) -> None:
        with suppress(OSError):  # the executor was killed; fork() will report it
            self._send(*words)

    def _send(self, *words: str) -> None:
        self._socket.send(os.fsencode(SEPARATOR.join(words)))
