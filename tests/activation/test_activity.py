"""The idle clock, which all serve() of a process share."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import trio

import activation
from tests.commands import LIMIT

from .serving import echo, echoes, passes, serving

if TYPE_CHECKING:
    from .serving import Manager

pytestmark = pytest.mark.usefixtures("no_manager")


async def test_it_returns_after_idle_timeout_without_a_connection() -> None:
    began = trio.current_time()
    async with serving(idle_timeout=0.2) as daemon:
        await daemon.end()
        assert trio.current_time() - began >= 0.2


async def test_a_connection_however_silent_is_no_idleness(mock_clock: trio.testing.MockClock) -> None:
    async with serving(idle_timeout=0.1) as daemon:
        async with await daemon.connect() as stream:
            await passes(mock_clock, 0.5)
            assert not daemon.ended.is_set()
            assert await echoes(stream)
        await passes(mock_clock, 0.09)
        assert not daemon.ended.is_set()
        await passes(mock_clock, 0.02)
        await daemon.end()


async def test_several_leave_together_when_all_are_idle_and_say_stopping_once(
    manager: Manager, mock_clock: trio.testing.MockClock
) -> None:
    for first, second in ((0.1, 0), (0.05, 0.1), (0.1, 0.1)):
        async with serving(idle_timeout=first) as one, serving(idle_timeout=second) as two:
            await passes(mock_clock, 0.09)
            assert not one.ended.is_set()
            assert not two.ended.is_set()
            await passes(mock_clock, 0.02)
            await one.end()
            await two.end()
        assert manager.heard().count("STOPPING=1") == 1


async def test_none_leaves_while_another_has_a_connection(manager: Manager, mock_clock: trio.testing.MockClock) -> None:
    async with serving(idle_timeout=0.05) as one, serving(idle_timeout=0) as two, serving() as stays:
        for daemon in (one, two, stays):
            async with await daemon.connect() as stream:
                assert await echoes(stream)
                await passes(mock_clock, 0.2)
                for other in (one, two):
                    assert not other.ended.is_set()
                    async with await other.connect() as another:
                        assert await echoes(another)
        await passes(mock_clock, 0.06)
        await one.end()
        await two.end()
        async with await stays.connect() as stream:
            assert await echoes(stream)
        assert "STOPPING=1" not in manager.heard()


async def test_one_that_is_cancelled_does_not_keep_the_others_from_leaving() -> None:
    async with serving(idle_timeout=0.05) as stays:
        async with serving(idle_timeout=1000):
            pass
        await stays.end()


async def test_whoever_comes_in_the_moment_of_leaving_is_served_or_left_in_the_queue() -> None:
    # The manager's copy of the socket stays: who is not accepted is found there by the next start.
    with socket.create_server(("127.0.0.1", 0), backlog=100) as managers:
        served = waited = 0
        managers.setblocking(False)
        for turn in range(200):
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(managers.dup()))

            async def client(delay: float) -> None:
                nonlocal served
                await trio.sleep(delay)
                async with await trio.open_tcp_stream(*managers.getsockname()) as stream:
                    assert await echoes(stream)
                    served += 1

            async def run(listener: trio.SocketListener) -> None:
                nonlocal waited
                await activation.serve(echo, [listener], idle_timeout=0.005)
                # The next start.
                if clients.child_tasks:
                    waited += 1
                    again = trio.SocketListener(trio.socket.from_stdlib_socket(managers.dup()))
                    await activation.serve(echo, [again], idle_timeout=0.05)

            with trio.fail_after(LIMIT):
                async with trio.open_nursery() as clients:
                    clients.start_soon(client, 0.004 + turn * 0.00001)
                    await run(listener)
        assert served == 200
        assert 0 < waited < 200


async def test_whoever_is_accepted_in_the_very_moment_of_leaving_is_served_and_a_reason_to_stay() -> None:
    class Late(trio.abc.Listener[trio.SocketStream]):
        """Its first accept succeeds although it is being cancelled."""

        def __init__(self) -> None:
            self.cancelled = trio.Event()
            self.streams = [trio.SocketStream(trio.socket.from_stdlib_socket(server))]
            self.again = trio.Event()

        async def accept(self) -> trio.SocketStream:
            try:
                if not self.streams:
                    self.again.set()
                await trio.sleep_forever()
            except trio.Cancelled:
                self.cancelled.set()
                if not self.streams:
                    raise
            return self.streams.pop()

        async def aclose(self) -> None:
            pass

    server, client = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    listener = Late()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await activation.serve(echo, [listener], idle_timeout=0.05)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run)
            await listener.cancelled.wait()
            assert await echoes(stream)
            await listener.again.wait()
            await trio.sleep(0.1)
            assert await echoes(stream)
            await stream.aclose()
            await trio.sleep_forever()
