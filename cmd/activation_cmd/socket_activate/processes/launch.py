"""socket-activate's view of its children, from their fork to their end."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import attrs
import trio

from .start import CHOICE, CHOSEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .executor import Executor
    from .start import Start


@attrs.define(eq=False)
class Ending:
    """The end of a process, filled in when it is known.

    Attributes:
        status: as ``subprocess`` has it, negative for a signal; None while it runs.
        core: whether it dumped core.
    """

    status: int | None = None
    core: bool = False
    exited: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False, kw_only=True)
class Child(Ending):
    """A child from its fork to its end.

    Attributes:
        start: the start that it has become or was to become; None while it waits for a client.
        failure: why it could not become that.
        begun: its start's service follows it, and those that share sockets with that know.
    """

    pid: int
    _channel: trio.socket.SocketType
    _order: int
    _starts: Sequence[Start]
    start: Start | None
    failure: str = ""
    begun: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def chosen(self) -> None:
        """Wait until a client has come, or what is in the way of that; as :meth:`settled`, but for ExecStartPre=."""
        await self._follow(until_chosen=True)

    async def settled(self) -> None:
        """Wait for the exec, or for what came in between: then there is a failure, or still no start."""
        await self._follow(until_chosen=False)

    async def _follow(self, *, until_chosen: bool) -> None:
        if self._channel.fileno() < 0:
            return
        message = b""
        try:
            # The exec closes the channel, and so does the child's end.
            message = await self._channel.recv(1 << 16)
            if message == CHOSEN:
                self._read_choice()
                if until_chosen:
                    return
                message = await self._channel.recv(1 << 16)
        except ConnectionResetError:
            pass
        finally:
            if message != CHOSEN:
                self.failure = message.decode("utf-8", "surrogateescape")
                self._read_choice()
                self._channel.close()
                os.close(self._order)

    def _read_choice(self) -> None:
        # Read from memory: a message would wake this process just when the service wants the processor.
        if choice := CHOICE.unpack(os.pread(self._order, CHOICE.size, 0))[0]:
            self.start = self._starts[choice - 1]

    def has_chosen(self, start: Start) -> bool:
        """Whether a client of this start has come, though :meth:`chosen` may not have returned yet."""
        if self._channel.fileno() >= 0:
            self._read_choice()
        return self.start is start

    def dismiss(self) -> None:
        """Let a child that waits exit, unless a client comes first."""
        if self._channel.fileno() >= 0:  # else it has just settled
            self._channel.shutdown(socket.SHUT_WR)


def fork(starts: Sequence[Start], executor: Executor, *, at_once: bool) -> Child:
    """Fork a child for the first of the starts that a client comes for, or, ``at_once``, for the only one there is.

    Raises:
        OSError: there are too many processes, or descriptors.
    """
    forked = executor.fork(starts, at_once=at_once)
    forked.channel.setblocking(False)
    return Child(
        pid=forked.pid,
        channel=trio.socket.from_stdlib_socket(forked.channel),
        order=forked.memory,
        starts=starts,
        start=starts[0] if at_once else None,
    )
