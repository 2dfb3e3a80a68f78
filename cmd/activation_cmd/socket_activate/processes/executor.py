"""A small process that forks services, and that cleans up if socket-activate is killed.

systemd has systemd-executor for the same reason: an exec tears down the memory of the process that it replaces, and for
a process with an event loop this takes longer than everything else between a client and the first byte of a small
server. So the executor is forked before anything large is imported, and each service is forked from it, not as its own
child but as its parent's: socket-activate hears of their end.

If socket-activate is killed, the kernel closes its socket, and the executor sees that. It ends the services and removes
what was made in the file system.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums, which each child would touch first
import array
import errno
import gc
import marshal
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, NoReturn

from activation_cmd.common import leftovers

from . import table
from .execute import become
from .sibling import fork_sibling
from .start import CHOICE, Start

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

IDENTITY = "INVOCATION_ID"
"""The variable that has another value for each start. Every process that a service starts inherits it."""

_SEPARATOR = "\0"
_LONGEST_MESSAGE = 1 << 18
_MOST_DESCRIPTORS = 253  # in one message, the kernel's SCM_MAX_FD
_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Executor:
    """socket-activate's side of the executor. Leaving the block ends the process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.pid = os.fork()
            if not self.pid:
                self._socket.close()
                _Process(theirs).run()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
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

    def fork(self, channel: socket.socket, starts: Sequence[Start], *, at_once: bool) -> tuple[int, int]:
        """Fork what becomes one of the starts: see :func:`execute.become`.

        If socket-activate is killed, the executor ends the child's session and every process that has an INVOCATION_ID
        of these starts in its environment.

        Returns:
            The child's number, and the descriptor of the order, which the caller closes; it begins with the CHOICE.

        Raises:
            OSError: there are too many processes, or descriptors, or the executor was killed.
        """
        descriptors = sorted(set[int]().union(*(start.descriptors() for start in starts)))
        numbers = {descriptor: index for index, descriptor in enumerate(descriptors)}
        order = os.memfd_create("order")
        try:
            plain = [tuple(start.renumbered(numbers)) for start in starts]
            os.write(order, CHOICE.pack(0) + marshal.dumps([at_once, _plain(plain)]))
            identities = [f"{IDENTITY}={start.environment[IDENTITY]}" for start in starts]
            message = os.fsencode(_SEPARATOR.join(["fork", str(2 + len(descriptors)), *identities]))
            sent = [order, channel.fileno(), *descriptors]
            for begin in range(0, len(sent), _MOST_DESCRIPTORS):
                chunk = sent[begin : begin + _MOST_DESCRIPTORS]
                socket.send_fds(self._socket, [message], chunk)
            answer = int(
                self._socket.recv(_LONGEST_MESSAGE) or -errno.EPIPE
            )  # an empty answer: the executor was killed
            if answer < 0:
                raise OSError(-answer, os.strerror(-answer))
        except BaseException:
            os.close(order)
            raise
        return answer, order

    def _tell(self, *words: str) -> None:
        try:
            self._socket.send(os.fsencode(_SEPARATOR.join(words)))
        except OSError:
            pass  # the executor was killed; fork() will report it


def _plain(value: Any) -> Any:
    """The same in types that marshal knows."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


def _reset_signals() -> None:
    """Set every signal to its default action, whatever nohup or a shell has set, and unblock it.

    Signals that would end this process stay blocked. So a child that gets one before it unblocks them does not lose it.
    """
    for number in signal.valid_signals():
        # Python ignores these two itself, and restores them at the exec.
        if number not in (signal.SIGPIPE, signal.SIGXFSZ) and signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _HELD_BACK)


class _Process:
    """The executor's own side."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._sessions: dict[int, frozenset[bytes]] = {}
        self._nodes: dict[tuple[str, str], str] = {}
        self._received: list[int] = []

    def run(self) -> NoReturn:
        try:
            # Leave the terminal and its signals.
            os.setsid()
            _reset_signals()
            gc.disable()  # a collection would touch, and so copy, all that the children share
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
            _LONGEST_MESSAGE, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
        )
        what, *words = os.fsdecode(message).split(_SEPARATOR)
        if what == "fork":
            for _, _, data in ancillary:
                self._received += array.array("i", data)
            if len(self._received) == int(words[0]):
                self._fork(frozenset(map(os.fsencode, words[1:])))
        elif what == "node":
            kind, path, identity = words
            self._nodes[kind, path] = identity
        elif what == "release":
            self._sessions.pop(int(words[0]), None)
        return bool(message)

    def _fork(self, identities: frozenset[bytes]) -> None:
        try:
            if not (pid := fork_sibling()):
                self._become(*self._received)
            self._sessions[pid] = identities
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        finally:
            while self._received:
                os.close(self._received.pop())
        self._orders.send(str(pid).encode())

    def _become(self, order: int, channel: int, *descriptors: int) -> NoReturn:
        try:
            os.setsid()
            self._orders.close()
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            at_once, starts = marshal.loads(os.pread(order, os.fstat(order).st_size, CHOICE.size))  # noqa: S302
            numbers = dict(enumerate(descriptors))
            renumbered = [Start.of(start).renumbered(numbers) for start in starts]
            become(socket.socket(fileno=channel), order, renumbered, at_once=at_once)
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
