"""A serve() to talk to, and a manager that hears what it tells."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

import activation
from tests.commands import LIMIT

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable


class Manager:
    """What a service manager hears, word for word."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def heard(self) -> list[str]:
        lines = []
        try:
            while True:
                lines += self.sock.recv(1 << 16).decode().split("\n")
        except BlockingIOError:
            return lines

    async def hear(self, wanted: str) -> list[str]:
        """Wait until that is said; return all until then."""
        lines: list[str] = []
        with trio.fail_after(LIMIT):
            while wanted not in lines:
                await trio.lowlevel.wait_readable(self.sock)
                lines += self.heard()
        return lines


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


class Daemon:
    """A serve() that runs meanwhile."""

    def __init__(self) -> None:
        self.port = 0
        self.ended = trio.Event()
        self.scope = trio.CancelScope()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def end(self) -> None:
        with trio.fail_after(LIMIT):
            await self.ended.wait()


@asynccontextmanager
async def serving(handler: Callable[[Any], Any] = echo, **options: Any) -> AsyncIterator[Daemon]:
    """Serve on one TCP listener; cancelled at the end of the block unless it has ended.

    Unless the test says how long it waits for others, that is so long that the test would give up before.
    """
    options = {"drain_timeout": 10 * LIMIT, "handshake_timeout": 10 * LIMIT, **options}
    daemon = Daemon()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    daemon.port = listeners[0].socket.getsockname()[1]

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        with daemon.scope:
            await activation.serve(handler, listeners, task_status=task_status, **options)
        daemon.ended.set()

    async with trio.open_nursery() as nursery:
        assert await nursery.start(run) == listeners
        yield daemon
        nursery.cancel_scope.cancel()


async def passes(clock: trio.testing.MockClock, seconds: float) -> None:
    """Let so much time pass, between two moments at which everybody has done what there is to do.

    What happens in time by this clock does so on the slowest machine.
    """
    await trio.testing.wait_all_tasks_blocked(0.01)
    clock.jump(seconds)
    await trio.testing.wait_all_tasks_blocked(0.01)


async def echoes(stream: trio.abc.Stream, data: bytes = b"word") -> bool:
    """Whether the data comes back."""
    await stream.send_all(data)
    back = b""
    with trio.fail_after(LIMIT):
        while len(back) < len(data) and (more := await stream.receive_some()):
            back += more
    return back == data


def port_of(listener: trio.SSLListener[trio.SocketStream]) -> int:
    transport = listener.transport_listener
    assert isinstance(transport, trio.SocketListener)
    port: int = transport.socket.getsockname()[1]
    return port


async def refused(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return True
    await stream.aclose()
    return False


class SpecialError(Exception):
    pass
