"""The stream that a handler of durable connections gets."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, wait_readable

from ._durable_connection import DurableConnection

if TYPE_CHECKING:
    from ._durable_connection import Keeper
    from ._durable_slot import Slot

_MOST_WAITS: Final = 63
"""So many receives at most wait for epoll before one tries again without."""


class DurableStream(DurableConnection, trio.abc.HalfCloseableStream):
    """A connection that outlives the process: what :func:`serve` with ``durable`` gives its handler.

    **A receive is a commit** of what was done before it: the input that was taken, the output that was sent and the new
    state take effect together, or not at all. So are :meth:`commit` and the handler's normal end. When the process ends
    in between, by a restart, a crash or ``kill -9``, the next one starts the handler from its beginning with the same
    connection and the state of the last commit, and what was not committed is there again to be received.

    Between two receives a handler may do what it likes, in several tasks too. What has effects elsewhere may happen
    once more after a restart; :attr:`id` and :attr:`commits` are then the same, and make it idempotent.

    It raises :exc:`trio.BrokenResourceError` where receiving fails. Output for a client that is gone is dropped, so
    that its last words are dealt with; :meth:`commit` tells.

    Attributes:
        socket: the connected trio socket: for its addresses and options. What is received from it or sent on it
            directly does not outlive the process.
    """

    __slots__ = ("_input", "_misses", "_position", "_received", "_waits")

    def __init__(self, socket: trio.socket.SocketType, slot: Slot, keeper: Keeper) -> None:
        super().__init__(socket, slot, keeper)
        # What was received, of which the handler has not taken what begins at _position.
        self._input, self._position = slot.input(), 0
        self._received = False
        self._misses = self._waits = 0

    @property
    def id(self) -> str:
        """What tells this connection from every other one, in all processes that serve it."""
        return f"{self._slot.number:016x}-{int.from_bytes(self._slot.cookie, sys.byteorder):x}"

    @property
    def commits(self) -> int:
        """How many commits there were, in all processes. It stays the same from one receive to the next."""
        return self._slot.commits

    @property
    def state(self) -> bytes:
        """What the handler keeps of this connection; ``b""`` at first. What it is set to takes effect with the commit.

        Setting it raises ValueError where there is no room for it: ``Durable(state=...)``.
        """
        if self._state is None:
            self._state = self._slot.state()
        return self._state

    @state.setter
    def state(self, value: bytes) -> None:
        self._check_open()
        if type(value) is not bytes:
            value = bytes(memoryview(value))
        if len(value) > self._slot.places.state:
            raise ValueError(
                f"the state has {len(value)} bytes, and there is room for {self._slot.places.state}; "
                "serve(durable=activation.Durable(state=...)) makes more"
            )
        self._state, self._state_is_new, self._touched = value, True, True

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Commit, and receive what is there, at least one byte; ``b""`` at the end of input.

        Args:
            max_bytes: no more than that.

        Raises:
            trio.BrokenResourceError: the connection was reset.
            trio.ClosedResourceError: this end was closed.
            trio.BusyResourceError: another task receives.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; expected 1 or more, or None")
        if self._closed or self.idle:
            self._check_can_receive()
        self.idle = True
        try:
            if (self._touched or self._slot.due) and not self._settle_now():
                await self._settle()
            data = None
            if self._position < len(self._input):
                await self._pause()
                data = self._input[self._position :]
            else:
                # As in _receive_more(), which would be one more coroutine for each message.
                if not self._waits:
                    if self._keeper.suspending:
                        self.suspend()
                    await checkpoint()
                    data = self._receive_now()
                if data is None:
                    data = await self._wait_and_receive()
                if not data:
                    return data
            # What is left for later, if anything.
            if max_bytes is None or max_bytes >= len(data):
                self._input, self._position = b"", 0
            else:
                self._input, self._position = data, max_bytes
                data = data[:max_bytes]
            self._taken += len(data)
            self._touched = self._received = True
            return data
        finally:
            self.idle = False

    async def receive_until(self, delimiter: bytes, max_bytes: int | None = None) -> bytes:
        """Commit, and receive what goes up to the delimiter and ends with it.

        Args:
            delimiter: at least one byte.
            max_bytes: how many bytes that may be, with the delimiter; left out, as many as there is room for:
                ``Durable(input=...)``.

        Returns:
            The bytes; ``b""`` at the end of input. What is there without a delimiter stays, for the next process too.

        Raises:
            ValueError: so many bytes came without the delimiter; they stay. Or the arguments are out of range.
            trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError: as :meth:`receive_some`.
        """
        limit = self._limit("max_bytes", max_bytes)
        if not delimiter:
            raise ValueError("the delimiter is empty; expected at least one byte")
        self._check_can_receive()
        self.idle = True
        try:
            if (self._touched or self._slot.due) and not self._settle_now():
                await self._settle()
            searched, waited = self._position, False
            while True:
                found = self._input.find(delimiter, searched)
                size = found + len(delimiter) - self._position
                if found >= 0 and size <= limit:
                    if not waited:
                        await self._pause()
                    return self._take(size)
                there = len(self._input) - self._position
                if found >= 0 or there >= limit:
                    raise ValueError(f"there is no {delimiter!r} in the next {limit} bytes")
                if not await self._receive_more():
                    return b""
                waited = True
                searched = self._position + max(0, there - len(delimiter) + 1)
        finally:
            self.idle = False

    async def receive_exactly(self, count: int) -> bytes:
        """Commit, and receive so many bytes.

        Args:
            count: at least 1, and at most as many as there is room for: ``Durable(input=...)``.

        Returns:
            The bytes; ``b""`` at the end of input. Fewer stay, for the next process too.

        Raises:
            ValueError: the count is out of range.
            trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError: as :meth:`receive_some`.
        """
        self._limit("count", count)
        self._check_can_receive()
        self.idle = True
        try:
            if (self._touched or self._slot.due) and not self._settle_now():
                await self._settle()
            if len(self._input) - self._position >= count:
                await self._pause()
            while len(self._input) - self._position < count:
                if not await self._receive_more():
                    return b""
            return self._take(count)
        finally:
            self.idle = False

    def _limit(self, name: str, count: int | None) -> int:
        room = self._slot.places.input
        if count is None:
            return room
        if not 1 <= count <= room:
            raise ValueError(
                f"{name} is {count}; expected 1 to {room}, for which there is room; "
                "serve(durable=activation.Durable(input=...)) makes more"
            )
        return count

    def _check_can_receive(self) -> None:
        self._check_open()
        if self.idle:
            raise trio.BusyResourceError("another task receives from this stream already")

    def _take(self, size: int) -> bytes:
        start = self._position
        self._position = end = start + size
        self._taken += size
        self._touched = self._received = True
        return self._input[start:end] if size < len(self._input) else self._input

    async def _pause(self) -> None:
        """Give way to others, with what is wanted already there."""
        if self._keeper.suspending:
            self.suspend()
        await checkpoint()
        self._check_open()

    async def _receive_more(self) -> bool:
        """Wait for more input; False at its end."""
        data = None
        if not self._waits:
            if self._keeper.suspending:
                self.suspend()
            await checkpoint()
            data = self._receive_now()
        if data is None:
            data = await self._wait_and_receive()
        self._input = self._input[self._position :] + data
        self._position = 0
        return bool(data)

    def _receive_now(self) -> bytes | None:
        """Receive what has come while the others ran, or None.

        For a client as fast as this, the wait is one turn of the others, and asking epoll takes longer than that. Where
        a turn was too short, epoll is asked instead, and the longer the more often it was.
        """
        if self._closed:
            self._check_open()
        try:
            data = self._slot.receive()
        except OSError as error:
            raise _broken(error) from error
        if data is None:
            self._waits = self._misses = min(2 * self._misses + 1, _MOST_WAITS)
        elif self._misses:
            self._misses //= 2
        return data

    async def _wait_and_receive(self) -> bytes:
        """Wait until epoll says that there is input, and receive it."""
        if self._waits:
            self._waits -= 1
        data = None
        while data is None:
            if self._keeper.suspending:
                self.suspend()
            await wait_readable(self.socket)
            if self._keeper.suspending and self.scope.cancel_called:
                # It was suspended after this task had been woken: what has come is for the next process.
                await checkpoint_if_cancelled()
            self._check_open()
            try:
                data = self._slot.receive()
            except OSError as error:
                raise _broken(error) from error
        return data

    # Sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send the data with the next commit.

        Raises:
            ValueError: there is no room for so much in one commit: ``Durable(output=...)``; or :meth:`commit` before.
            trio.ClosedResourceError: this end was closed, or :meth:`send_eof` called.
        """
        if self._received:
            # The receive before it has given way to others.
            self._received = False
            await checkpoint_if_cancelled()
        else:
            await checkpoint()
        if self._closed or self._end_of_output:
            self._check_can_send()
        piece = data if type(data) is bytes else bytes(memoryview(data))
        size, room = self._staged_size + len(piece), self._slot.places.output
        if size > room:
            raise ValueError(
                f"the output of one commit has {size} bytes, and there is room for {room}; "
                "serve(durable=activation.Durable(output=...)) makes more, or await stream.commit() in between"
            )
        if piece:
            self._staged.append(piece)
            self._staged_size, self._touched = size, True

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: sending does not block, since what is sent waits for the commit.

        Raises:
            trio.ClosedResourceError: as :meth:`send_all`.
        """
        await checkpoint()
        self._check_can_send()

    async def send_eof(self) -> None:
        """End the output with the next commit; receiving goes on.

        Raises:
            trio.ClosedResourceError: this end was closed.
        """
        await checkpoint()
        self._check_open()
        if not self._end_of_output:
            self._end_of_output = self._touched = True

    async def commit(self) -> None:
        """Let what was done take effect now, and wait until the output is sent.

        If it is cancelled while it waits for a slow client, it has taken effect or not; the output of what has is sent
        in any case.

        Raises:
            trio.BrokenResourceError: the client is gone; what was done has taken effect, but for the output.
            trio.ClosedResourceError: this end was closed.
        """
        await checkpoint()
        self._check_open()
        await self._settle()
        if self._lost:
            raise trio.BrokenResourceError(f"socket connection broken: {self._lost}") from self._lost

    def _check_can_send(self) -> None:
        self._check_open()
        if self._end_of_output:
            raise trio.ClosedResourceError("send_eof() was called")

    # The end

    async def aclose(self) -> None:
        """Commit, send what is due, and end the connection for good; the handler may go on without it.

        Cancelled in between, it is as if the handler had ended there.
        """
        if self._closed:
            await checkpoint()
            return
        self._closed = True
        trio.lowlevel.notify_closing(self.socket)
        await checkpoint()
        await self.finish()


def _broken(error: OSError) -> trio.BrokenResourceError:
    return trio.BrokenResourceError(f"socket connection broken: {error}")
