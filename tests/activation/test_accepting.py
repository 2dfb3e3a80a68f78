"""How many are accepted: max_connections, and what the system has."""

from __future__ import annotations

import errno
from functools import partial

import pytest
import trio

import activation
from tests.children import no_leak, tcp_listener
from tests.commands import LIMIT

from .serving import echo, echoes, serving

pytestmark = pytest.mark.usefixtures("no_manager")


async def test_at_most_max_connections_are_handled_and_the_others_wait() -> None:
    running = most = 0

    async def handler(stream: trio.SocketStream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await echo(stream)
        running -= 1

    second, third = tcp_listener(), tcp_listener()
    listeners = [
        *(await trio.open_tcp_listeners(0, host="127.0.0.1")),
        *(trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in (second, third)),
    ]
    ports = [listener.socket.getsockname()[1] for listener in listeners]
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(activation.serve, handler, listeners, max_connections=2))

        async def client(port: int) -> None:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert await echoes(stream)
                await stream.send_eof()
                assert await stream.receive_some() == b""

        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as clients:
                for number in range(60):
                    clients.start_soon(client, ports[number % 3])
            # The place of who is gone is for whoever comes, on whichever listener.
            for port in ports:
                async with trio.open_nursery() as clients:
                    for _ in range(2):
                        clients.start_soon(client, port)
        nursery.cancel_scope.cancel()
    assert most == 2


async def test_without_descriptors_it_waits_says_so_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The lack is made up here, to be exact; tests/systemd has a real one.
    tries = 0
    accept = trio.SocketListener.accept

    async def failing(self: trio.SocketListener) -> trio.SocketStream:
        nonlocal tries
        tries += 1
        if tries <= 5:
            raise OSError((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)[tries % 4], "no more")
        return await accept(self)

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    async with serving() as daemon:
        began = trio.current_time()
        async with await daemon.connect() as stream:
            assert await echoes(stream)
        assert trio.current_time() - began > 0.3
    assert len([line for line in caplog.messages if "cannot accept" in line]) == 1


async def test_another_error_of_accept_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(self: trio.SocketListener) -> trio.SocketStream:
        raise OSError(errno.EBADF, "no socket")

    monkeypatch.setattr(trio.SocketListener, "accept", failing)
    with no_leak(), pytest.RaisesGroup(OSError, flatten_subgroups=True):
        async with serving():
            await trio.sleep_forever()


async def test_accepters_on_the_same_socket_do_not_keep_places_from_each_other() -> None:
    with tcp_listener() as one, tcp_listener() as two:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                shared = [trio.SocketListener(trio.socket.from_stdlib_socket(sock.dup())) for sock in (one, two)]
                await nursery.start(partial(activation.serve, echo, shared, max_connections=1))
            with trio.fail_after(LIMIT):
                for first, second in ((one, two), (two, one)):
                    async with await trio.open_tcp_stream(*first.getsockname()) as stream:
                        assert await echoes(stream)
                        async with await trio.open_tcp_stream(*second.getsockname()) as other:
                            assert await echoes(other)
            nursery.cancel_scope.cancel()
