"""The stream that serve() gives to its handlers: ``trio.SocketStream`` with less work between a request and its answer.

trio's stream tries to receive at once, asks epoll where nothing has come yet, and goes through the scheduler after
every send. An echo pays for all three. This stream does two things in another order:

- Receiving lets the other tasks run first, and tries then. As long as clients answer as fast as the server does, the
  data is there, and epoll is not asked. Where the data was not there, the next receives ask epoll straight away; the
  more often that happens, the more of them.
- A send that follows a receive on the same stream does not let the others run once more: the receive has just done so.

A third thing concerns bulk. A receive that got as much as it asked for most likely left some. So the next two receives
on that stream try at once. A Unix socket holds three times what one receive takes, and the scheduler runs once for all
of it.

The contract is that of trio. Every call checks for cancellation before it does anything; a cancelled call has received
nothing, and has sent nothing unless it had to wait for the client in the middle of it. Of any two calls that a task
makes in a row, at least one lets other tasks run, and then deadlines expire, too. In bulk it is one of six, so that a
task moves up to 192 KiB in and out before it is the others' turn. trio leaves its own scheduler the freedom to pass
over the rest, see ``trio.lowlevel.checkpoint``.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, overload

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, wait_readable, wait_writable

if TYPE_CHECKING:
    from typing_extensions import Buffer

RECEIVE_SIZE = 65536
"""Bytes that one receive returns at most, unless the caller says otherwise. trio has the same number."""

MOST_WAITS = 63
"""How many receives in a row ask epoll first, at most, before one tries without."""

HAS_MORE = -1
"""In place of their number: the last receive got a whole RECEIVE_SIZE, so there is more."""

MOST_AT_ONCE = 2
"""How many receives in bulk do not let the others run, at most, after one that did."""

# Several threads that run trio share these. At worst a call lets the others run needlessly, or does so a little later.

_received_last: SocketStream | None = None
"""The stream that was received from last, until something is sent on it. Its task has let the others run since it last
sent, so it may send once without."""

_at_once = 0
"""How many receives in bulk may still follow without letting the others run. This is not a stream's own number, or a
task with many streams could keep the others out."""


class SocketStream(trio.abc.HalfCloseableStream):
    """A connected stream socket. It has all that ``trio.SocketStream`` has; isinstance() takes it for one.

    Args:
        stream: the stream whose socket it takes; that stream goes on with the same socket.

    Attributes:
        socket: the trio socket, which this stream owns.
    """

    # With what trio's own has: attributes of the program, and weak references.
    __slots__ = ("__dict__", "__weakref__", "_misses", "_sending", "_sock", "_waits", "socket")

    def __init__(self, stream: trio.SocketStream) -> None:
        # To receive and send at once takes the standard library's socket, and a trio socket does not give away its own.
        # So both are made anew, one in the other: when either is closed, both are.
        self._sock = socket.socket(fileno=stream.socket.detach())
        self.socket = stream.socket = trio.socket.from_stdlib_socket(self._sock)
        self._sending = False
        self._misses = 0
        self._waits = 0

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for data and return up to ``max_bytes`` bytes of it; ``b""`` is the end of the stream."""
        if max_bytes is None:
            max_bytes = RECEIVE_SIZE
        elif max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}; expected 1 or more")
        data = None
        if self._waits <= 0:
            if self._waits == HAS_MORE and self._may_go_on():
                await checkpoint_if_cancelled()
            else:
                await checkpoint()
            data = self._read(max_bytes)
        return await self._wait_and_read(max_bytes) if data is None else data

    async def __anext__(self) -> bytes:
        # Without receive_some(): another coroutine in between is 5 % of the time that an echo takes.
        data = None
        if self._waits <= 0:
            if self._waits == HAS_MORE and self._may_go_on():
                await checkpoint_if_cancelled()
            else:
                await checkpoint()
            data = self._read(RECEIVE_SIZE)
        if data is None:
            data = await self._wait_and_read(RECEIVE_SIZE)
        if data:
            return data
        raise StopAsyncIteration

    def _may_go_on(self) -> bool:
        """Whether this is one of the receives in bulk that need not let the others run."""
        global _at_once
        self._waits = 0
        _at_once = _at_once - 1 if _at_once else MOST_AT_ONCE
        return _at_once < MOST_AT_ONCE

    def _read(self, max_bytes: int) -> bytes | None:
        """Return what has come while the others ran, or None."""
        global _received_last
        try:
            data = self._sock.recv(max_bytes)
        except BlockingIOError:
            self._waits = self._misses = min(2 * self._misses + 1, MOST_WAITS)
            return None
        except OSError as error:
            raise self._stream_error(error) from error
        if self._misses:
            self._misses //= 2
        if len(data) == RECEIVE_SIZE:
            self._waits = HAS_MORE
        _received_last = self
        return data

    async def _wait_and_read(self, max_bytes: int) -> bytes:
        """Wait until epoll says that there is data, and return it."""
        global _received_last
        self._check_open()
        self._waits -= 1
        while True:
            await wait_readable(self._sock)
            try:
                data = self._sock.recv(max_bytes)
            except BlockingIOError:
                continue
            except OSError as error:
                raise self._stream_error(error) from error
            if len(data) == max_bytes:  # There is more.
                self._misses = 0
                self._waits = HAS_MORE if max_bytes == RECEIVE_SIZE else 0
            _received_last = self
            return data

    # Sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``; return when the kernel has taken all of it."""
        global _received_last
        if self._sending:
            raise self._busy()
        if _received_last is self:
            _received_last = None
            await checkpoint_if_cancelled()
        else:
            self._sending = True
            try:
                await checkpoint()
            finally:
                self._sending = False
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        if not size:
            self._check_open()
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._stream_error(error) from error
        if sent < size:
            await self._send_rest(data, sent)

    async def _send_rest(self, data: bytes | bytearray | memoryview, sent: int) -> None:
        self._sending = True
        try:
            with memoryview(data) as items, items.cast("B") as view:
                while sent < len(view):
                    await wait_writable(self._sock)
                    try:
                        with view[sent:] as rest:
                            sent += self._sock.send(rest)
                    except BlockingIOError:
                        pass
                    except OSError as error:
                        raise self._stream_error(error) from error
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room for some data."""
        if self._sending:
            raise self._busy()
        self._check_open()
        self._sending = True
        try:
            await wait_writable(self._sock)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """Tell the other end that no more data comes; receiving goes on."""
        if self._sending:
            raise self._busy()
        self._sending = True
        try:
            await checkpoint()
            if not self.socket.did_shutdown_SHUT_WR:
                self.socket.shutdown(trio.socket.SHUT_WR)
        except OSError as error:
            raise self._stream_error(error) from error
        finally:
            self._sending = False

    # The rest

    async def aclose(self) -> None:
        """Close the socket; tasks that wait for it get :exc:`trio.ClosedResourceError`."""
        self.socket.close()
        await checkpoint()

    @overload
    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None: ...

    @overload
    def setsockopt(self, level: int, option: int, value: None, length: int) -> None: ...

    def setsockopt(self, level: int, option: int, value: int | Buffer | None, length: int | None = None) -> None:
        """Set an option of the socket; see ``socket.socket.setsockopt``."""
        if length is None:
            if value is None:
                raise TypeError("value is None, but length is not given; expected a value, or None and a length")
            self.socket.setsockopt(level, option, value)
        elif value is not None:
            raise TypeError(f"value is {value!r}, and length is given; expected None for a value that goes with it")
        else:
            self.socket.setsockopt(level, option, value, length)

    @overload
    def getsockopt(self, level: int, option: int) -> int: ...

    @overload
    def getsockopt(self, level: int, option: int, buffersize: int) -> bytes: ...

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Return an option of the socket; see ``socket.socket.getsockopt``."""
        return self.socket.getsockopt(level, option, buffersize)

    def _check_open(self) -> None:
        if self._sock.fileno() < 0:
            raise trio.ClosedResourceError("this socket was already closed")

    def _busy(self) -> trio.BusyResourceError:
        return trio.BusyResourceError("another task is currently sending data on this SocketStream")

    def _stream_error(self, error: OSError) -> trio.BrokenResourceError | trio.ClosedResourceError:
        """What trio's streams raise for an error of the socket."""
        if error.errno == errno.EBADF:
            return trio.ClosedResourceError("this socket was already closed")
        if error.errno == errno.EPIPE and self.socket.did_shutdown_SHUT_WR:
            return trio.ClosedResourceError("can't send data after sending EOF")
        return trio.BrokenResourceError(f"socket connection broken: {error}")


# trio makes its class final, so that no subclass breaks when its private parts change. This one uses none of them.
trio.SocketStream.register(SocketStream)
