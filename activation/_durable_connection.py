"""A durable connection between two receives: what its handler did, how that is committed and sent, and how it ends."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

import trio
from trio.lowlevel import wait_writable

from ._durable_slot import CLOSING, END_OF_OUTPUT

if TYPE_CHECKING:
    from ._durable_slot import Slot


class Keeper(Protocol):
    """What a stream has to know of who keeps it for the next process."""

    suspending: bool

    def release(self, stream: DurableConnection, /) -> None: ...


class DurableConnection:
    """What serve() has to do with a :class:`DurableStream`, and what that commits.

    Attributes:
        socket: the connected trio socket.
        scope: the handler's life.
        idle: whether the handler receives: there it waits for input.
        ended: whether its client was shown the end.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_closed",
        "_end_of_output",
        "_flushing",
        "_keeper",
        "_lost",
        "_slot",
        "_staged",
        "_staged_size",
        "_state",
        "_state_is_new",
        "_taken",
        "_touched",
        "ended",
        "idle",
        "scope",
        "socket",
    )

    def __init__(self, socket: trio.socket.SocketType, slot: Slot, keeper: Keeper) -> None:
        self.socket = socket
        self._slot, self._keeper = slot, keeper
        # What the handler did since the last commit: bytes of input that it took, its output, and its state.
        self._taken = 0
        self._staged: list[bytes] = []
        self._staged_size = 0
        self._state: bytes | None = None  # until it is asked for
        self._state_is_new = False
        self._touched = False  # whether there is any of that
        self._end_of_output = bool(slot.flags & END_OF_OUTPUT)
        self._closed = self.ended = False
        self._lost: OSError | None = None
        self._flushing: trio.Lock | None = None
        self.scope = trio.CancelScope()
        self.idle = False
        if slot.flags & END_OF_OUTPUT and not slot.due:
            self._push()  # the process before this one may have ended between the last byte and that

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream was closed")

    # Committing and sending

    def _settle_now(self) -> bool:
        """Do what :meth:`_settle` does, without waiting; return whether that was all."""
        slot = self._slot
        if self._touched:
            if slot.due:
                return False
            self._commit(0)
        return not (slot.due or slot.flags) or self._push()

    async def _settle(self, flags: int = 0) -> None:
        """Commit what there is, if anything, and send what is due."""
        # Output is due until it is sent, and its place is not free until then.
        while self._slot.due and self._touched:
            await self._flush()
        if self._touched:
            self._commit(flags)
        if not self._push():
            if self.idle and self._keeper.suspending:
                self.suspend()
            await self._flush()

    def _commit(self, flags: int) -> None:
        if self._end_of_output:
            flags |= END_OF_OUTPUT
        staged = self._staged
        output = staged[0] if len(staged) == 1 else b"".join(staged)
        self._slot.commit(self._taken, output, self._state if self._state_is_new else None, flags)
        if staged:
            staged.clear()
            self._staged_size = 0
        self._taken = 0
        self._state_is_new = self._touched = False

    def _roll_back(self) -> None:
        """Forget what was done since the last commit."""
        self._staged.clear()
        self._staged_size = self._taken = 0
        self._state, self._state_is_new, self._touched = None, False, False

    def _push(self) -> bool:
        """Send what is due, as far as that goes without waiting; return whether nothing is due any more."""
        slot = self._slot
        try:
            if slot.due and not slot.send():
                return False
            if slot.flags & END_OF_OUTPUT:
                self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            # There is nobody to send it to. What the client said last is dealt with all the same.
            self._lost = error
            if slot.due:
                slot.drop_output()
        return True

    async def _flush(self) -> None:
        if self._flushing is None:
            self._flushing = trio.Lock()
        async with self._flushing:
            while not self._push():
                await wait_writable(self.socket)

    # The end

    def suspend(self) -> None:
        """End the handler where it waits for input and all that it did was committed; the next process goes on."""
        if self.idle and not self._touched:
            self.scope.cancel()

    async def finish(self) -> None:
        """The handler has ended well: commit, send what is due, and end the connection for good."""
        if self.ended:
            return
        if not self._slot.flags & CLOSING:
            self._touched = True
        await self._settle(CLOSING)
        self._end()

    async def abort(self) -> None:
        """The handler has failed: end the connection, without what it did since the last commit."""
        if not self.ended:
            self._roll_back()
            await self.finish()

    def _end(self) -> None:
        """Let the client see the end. The queue holds a copy of the connection, so closing ours is not enough."""
        self.ended = self._closed = True
        if self._state is None:
            self._state = self._slot.state()  # it can be asked for after the end, too
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is gone
        self._slot.free()
        self._keeper.release(self)
        self.socket.close()

    @property
    def closing(self) -> bool:
        """Whether the handler has ended, and only what is due is left to be sent."""
        return bool(self._slot.flags & CLOSING)

    def discard(self) -> None:
        """Give the slot back, where no next process will go on with it."""
        self._slot.free()

    def leave(self) -> None:
        """Close this process's copy of the connection, and leave it to the next process."""
        self._closed = True
        self.socket.close()
