"""What serve() takes, and what it refuses; its life has a module for each part, and so have the tests."""

from __future__ import annotations

import os
import signal
import socket
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import activation
from tests.children import no_leak, udp_socket
from tests.commands import LIMIT

from .serving import echo, echoes, port_of, refused, serving

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from .serving import Manager

pytestmark = pytest.mark.usefixtures("no_manager")


async def test_several_kinds_of_listeners_are_served_at_once(
    tmp_path: Path, certificate: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    context, trusting = certificate
    unix = trio.socket.socket(socket.AF_UNIX)
    await unix.bind(str(tmp_path / "a.sk"))
    unix.listen()
    (tls,) = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    tls_port = port_of(tls)
    async with trio.open_nursery() as nursery:
        await nursery.start(activation.serve, echo, [None, tls, trio.SocketListener(unix), None, tcp])
        async with await trio.open_unix_socket(str(tmp_path / "a.sk")) as stream:
            assert await echoes(stream)
        async with await trio.open_tcp_stream(*tcp.socket.getsockname()) as stream:
            assert await echoes(stream)
        secret = await trio.open_ssl_over_tcp_stream("localhost", tls_port, ssl_context=trusting)
        assert await echoes(secret)
        await trio.aclose_forcefully(secret)
        nursery.cancel_scope.cancel()


async def test_nothing_to_serve_is_told_with_what_to_do() -> None:
    for listeners in (None, [], [None]):
        with pytest.raises(activation.ActivationError, match=r"nothing to serve.*socket-activate.* or give serve\(\)"):
            await activation.serve(echo, listeners)


@pytest.mark.parametrize(
    "options",
    [
        {"idle_timeout": -1},
        {"idle_timeout": float("nan")},
        {"drain_timeout": -1},
        {"handshake_timeout": -1},
        {"max_connections": 0},
    ],
)
async def test_an_argument_out_of_range_is_named(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} is .*; expected"):
        await activation.serve(echo, [], **options)


async def test_connections_without_a_handler_are_refused_as_a_mistake() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.raises(ValueError, match="handler is None"):
        await activation.serve(None, listeners)  # type: ignore[arg-type]
    await listeners[0].aclose()


async def test_a_bad_address_of_the_manager_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "nowhere")
    with pytest.raises(activation.ActivationError, match="NOTIFY_SOCKET is 'nowhere'"):
        await activation.serve(None)


async def test_variables_that_cannot_be_true_end_it_before_anything_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    with pytest.raises(activation.ActivationError, match="WATCHDOG_USEC is 'soon'"):
        await activation.serve(echo, [])


async def test_connections_that_were_accepted_before_are_served_and_then_it_returns(manager: Manager) -> None:
    with no_leak():
        pairs = [socket.socketpair() for _ in range(2)]
        connections = [trio.SocketStream(trio.socket.from_stdlib_socket(pair[0])) for pair in pairs]
        clients = [trio.SocketStream(trio.socket.from_stdlib_socket(pair[1])) for pair in pairs]
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                started = await nursery.start(partial(activation.serve, echo, [], connections=[None, *connections]))
                assert started == []
                assert "READY=1" in manager.heard()
                for client in clients:
                    assert await echoes(client)
                for client in clients:
                    await client.aclose()


async def test_without_a_handler_it_lives_until_a_signal_beside_the_callers_own_tasks(manager: Manager) -> None:
    with udp_socket() as udp, udp_socket() as client:
        udp.setblocking(False)
        async with trio.open_nursery() as nursery:
            with trio.socket.from_stdlib_socket(udp.dup()) as conn:

                @nursery.start_soon
                async def answer() -> None:
                    while True:
                        data, sender = await conn.recvfrom(100)
                        await conn.sendto(data, sender)

                with trio.fail_after(LIMIT):
                    nursery.start_soon(activation.serve, None)
                    await manager.hear("READY=1")
                    client.sendto(b"word", udp.getsockname())
                    await trio.lowlevel.wait_readable(client)
                    assert client.recv(100) == b"word"
                    os.kill(os.getpid(), signal.SIGTERM)
                    await manager.hear("STOPPING=1")
                    nursery.cancel_scope.cancel()


async def test_in_another_thread_it_serves_without_signals() -> None:
    ready, ended = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()
    theirs: list[tuple[int, trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def run() -> None:
        with trio.move_on_after(LIMIT) as scope:
            async with serving() as daemon:
                theirs.append((daemon.port, trio.lowlevel.current_trio_token(), scope))
                token.run_sync_soon(ready.set)
                await daemon.ended.wait()
        token.run_sync_soon(ended.set)

    threading.Thread(target=trio.run, args=(run,), daemon=True).start()
    with trio.fail_after(LIMIT):
        await ready.wait()
        ((port, their_token, scope),) = theirs
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            assert await echoes(stream)
        their_token.run_sync_soon(scope.cancel)
        await ended.wait()


async def test_cancelling_it_from_outside_closes_everything() -> None:
    with no_leak():
        async with serving() as daemon:
            client = await daemon.connect()
            assert await echoes(client)
        assert await refused(daemon.port)
        assert await client.receive_some() == b""
        await client.aclose()
