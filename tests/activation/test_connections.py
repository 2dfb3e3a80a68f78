"""Handlers: their streams, their errors, and the handshake before them."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import struct
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import activation
from activation._connections import MOST_MESSAGES
from tests.children import no_leak
from tests.commands import LIMIT

from .serving import SpecialError, echo, echoes, passes, port_of, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_manager")


async def test_connections_are_handled_at_once_and_closed_after_their_handler() -> None:
    with no_leak():
        async with serving() as daemon:
            async with await daemon.connect() as one, await daemon.connect() as two:
                assert await echoes(two)
                assert await echoes(one)
                await one.send_eof()
                assert await one.receive_some() == b""
                assert await echoes(two)


async def test_a_failed_or_unfinished_tls_handshake_costs_only_that_client(
    caplog: pytest.LogCaptureFixture,
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
    mock_clock: trio.testing.MockClock,  # which no machine is too slow for
) -> None:
    caplog.set_level(logging.INFO)
    context, trusting = certificate
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    port = port_of(listeners[0])
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(activation.serve, echo, listeners, handshake_timeout=0.2))
        async with await trio.open_tcp_stream("127.0.0.1", port) as garbage:
            await garbage.send_all(b"GET / HTTP/1.0\r\n\r\n")
            while await garbage.receive_some():
                pass
        async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
            await passes(mock_clock, 0.2)
            assert await silent.receive_some() == b""
        secret = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=trusting)
        assert await echoes(secret)
        await trio.aclose_forcefully(secret)
        nursery.cancel_scope.cancel()
    assert re.search(r"127\.0\.0\.1:\d+ did not finish the TLS handshake in 0\.2 s", caplog.text)
    assert re.search(r"the connection of 127\.0\.0\.1:\d+ broke: .*SSL", caplog.text)
    # What may be the server's own fault is a warning, once a minute at most.
    (warning,) = [record for record in caplog.records if record.levelno > logging.INFO]
    assert re.fullmatch(r"the TLS handshake with 127\.0\.0\.1:\d+ failed: .*HTTP_REQUEST.*", warning.getMessage())


async def test_failed_handshakes_are_counted_and_who_only_went_away_is_not(
    caplog: pytest.LogCaptureFixture,
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, trusting = certificate
    without_certificate = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listeners = await trio.open_ssl_over_tcp_listeners(0, without_certificate, host="127.0.0.1")
    port = port_of(listeners[0])
    minutes = 0.0
    monkeypatch.setattr("activation._occasional.time.monotonic", lambda: 60 * minutes)
    async with trio.open_nursery() as nursery:
        await nursery.start(activation.serve, echo, listeners)
        async with await trio.open_tcp_stream("127.0.0.1", port):
            pass
        for minutes in (1, 1.3, 1.6, 1.9, 2.1):  # noqa: B007
            client = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=trusting)
            with pytest.raises(trio.BrokenResourceError):
                await client.do_handshake()
            await trio.aclose_forcefully(client)
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    first, second = caplog.messages
    assert re.fullmatch(r"the TLS handshake with 127\.0\.0\.1:\d+ failed: .*NO_SHARED_CIPHER.*", first)
    assert re.fullmatch(r"the TLS handshake with .* failed: .*NO_SHARED_CIPHER.*; 3 more like this before", second)


async def test_handshakes_have_no_more_than_half_of_the_places(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext], mock_clock: trio.testing.MockClock
) -> None:
    context, trusting = certificate
    listeners: list[trio.abc.Listener[Any]] = [
        *(await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")),
        *(await trio.open_tcp_listeners(0, host="127.0.0.1")),
    ]
    tls_port, plain_port = port_of(listeners[0]), listeners[1].socket.getsockname()[1]  # type: ignore[arg-type,attr-defined]
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await nursery.start(partial(activation.serve, echo, listeners, max_connections=4, handshake_timeout=1))
        for _ in range(6):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", tls_port))
        # Others still have the other half.
        for _ in range(2):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", plain_port))
            assert await echoes(stream)
        # Those who have finished leave their half to the next ones.
        secret = await trio.open_ssl_over_tcp_stream("localhost", tls_port, ssl_context=trusting)
        stack.push_async_callback(trio.aclose_forcefully, secret)
        for _ in range(3):  # two of the six at a time
            await passes(mock_clock, 1)
        assert await echoes(secret)


async def test_a_finished_handshake_does_not_count_against_the_half(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    context, trusting = certificate
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        await nursery.start(partial(activation.serve, echo, listeners, max_connections=3))
        with trio.fail_after(LIMIT):
            for _ in range(3):
                secret = await trio.open_ssl_over_tcp_stream("localhost", port_of(listeners[0]), ssl_context=trusting)
                stack.push_async_callback(trio.aclose_forcefully, secret)
                assert await echoes(secret)


async def test_tls_ends_with_a_goodbye(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async def bye(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.send_all(b"bye")

    context, trusting = certificate
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(activation.serve, bye, listeners)
        stream = await trio.open_ssl_over_tcp_stream("localhost", port_of(listeners[0]), ssl_context=trusting)
        with trio.fail_after(LIMIT):
            assert [data async for data in stream] == [b"bye"]
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_handlers_exception_is_logged_with_the_peer_and_costs_its_connection_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        async for data in stream:
            if data == b"fail":
                raise SpecialError("a bug")
            if data == b"fail in a task":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(handler, Fail())  # type: ignore[arg-type]
                    await trio.sleep_forever()
            await stream.send_all(data)

    with no_leak():
        async with serving(handler) as daemon, await daemon.connect() as other:
            for word in (b"fail", b"fail in a task"):
                assert await echoes(other)
                async with await daemon.connect() as stream:
                    await stream.send_all(word)
                    assert await stream.receive_some() == b""
                    peer = f"127.0.0.1:{stream.socket.getsockname()[1]}"
                assert await echoes(other)
                record = caplog.records[-1]
                assert record.name == "activation"
                assert record.levelno == logging.ERROR
                assert peer in record.getMessage()
                assert "a bug" in caplog.text
    assert len(caplog.records) == 2


class Fail:
    """A stream whose only word is a failure."""

    def __aiter__(self) -> Fail:
        return self

    async def __anext__(self) -> bytes:
        return b"fail"


async def test_a_client_that_resets_is_known_by_its_address_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving() as daemon:
        sock = socket.create_connection(("127.0.0.1", daemon.port))
        peer = f"127.0.0.1:{sock.getsockname()[1]}"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        with trio.fail_after(LIMIT):
            while peer not in caplog.text:
                await trio.testing.wait_all_tasks_blocked()
        (record,) = caplog.records
        assert record.levelno == logging.INFO
        assert not record.exc_info


@pytest.mark.parametrize("fault", ["reset", "failure"])
async def test_clients_cannot_grow_the_log_without_limit(
    fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    seconds = 0.0
    monkeypatch.setattr("activation._occasional.time.monotonic", lambda: seconds)

    ended = 0

    async def handler(stream: trio.SocketStream) -> None:
        nonlocal ended
        try:
            if fault == "failure":
                raise SpecialError("a bug")
            await echo(stream)
        finally:
            ended += 1

    async def clients(daemon: Any, number: int) -> None:
        until = ended + number
        for _ in range(number):
            sock = socket.create_connection(("127.0.0.1", daemon.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        with trio.fail_after(LIMIT):
            while ended < until:
                await trio.testing.wait_all_tasks_blocked()

    async with serving(handler) as daemon:
        await clients(daemon, MOST_MESSAGES + 30)
        assert len(caplog.records) == MOST_MESSAGES
        seconds = 60.0
        await clients(daemon, 1)
    assert len(caplog.records) == MOST_MESSAGES + 1
    assert caplog.messages[-1].endswith("; 30 more like this before")
    assert all((record.exc_info is not None) == (fault == "failure") for record in caplog.records)


async def test_a_storm_of_one_failure_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        if await stream.receive_some() == b"other":
            raise ZeroDivisionError("another bug")
        raise SpecialError("a bug")

    async with serving(handler) as daemon:
        for word in (*[b"one"] * (MOST_MESSAGES + 5), b"other"):
            async with await daemon.connect() as stream:
                await stream.send_all(word)
                assert await stream.receive_some() == b""
    assert len(caplog.records) == MOST_MESSAGES + 1
    assert "another bug" in caplog.text


async def test_the_peer_is_known_although_the_handler_has_closed_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        async with stream:
            raise SpecialError("a bug")

    async with serving(handler) as daemon, await daemon.connect() as stream:
        assert await stream.receive_some() == b""
        assert f"127.0.0.1:{stream.socket.getsockname()[1]}" in caplog.text


async def test_a_local_client_is_known_by_its_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(stream: trio.SocketStream) -> None:
        raise SpecialError

    unix = trio.socket.socket(socket.AF_UNIX)
    await unix.bind(str(tmp_path / "a.sk"))
    unix.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(activation.serve, fail, [trio.SocketListener(unix)])
        async with await trio.open_unix_socket(str(tmp_path / "a.sk")) as stream:
            assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert f"process {os.getpid()} of user {os.getuid()}" in caplog.text


async def test_a_handler_may_end_the_whole_daemon_by_what_is_no_error() -> None:
    async def leave(stream: trio.SocketStream) -> None:
        raise SystemExit(7)

    with no_leak(), pytest.RaisesGroup(SystemExit, flatten_subgroups=True):
        async with serving(leave) as daemon, await daemon.connect():
            await trio.sleep_forever()
