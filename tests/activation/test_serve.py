"""A daemon's life without a service manager, and with one that only listens; tests/systemd has the real one."""

from __future__ import annotations

import errno
import logging
import os
import re
import signal
import socket
import struct
import threading
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio

import activation
from tests.children import no_leak, tcp_listener, udp_socket

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_manager")

LIMIT = 20.0


@pytest.fixture
def no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"):
        monkeypatch.delenv(name, raising=False)


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


@pytest.fixture
def manager(no_manager: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Manager(sock)


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


class Daemon:
    """A serve() that runs meanwhile."""

    def __init__(self) -> None:
        self.port = 0
        self.ended = trio.Event()

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def end(self) -> None:
        with trio.fail_after(LIMIT):
            await self.ended.wait()


@asynccontextmanager
async def serving(handler: Callable[[Any], Any] = echo, **options: Any) -> AsyncIterator[Daemon]:
    """Serve on one TCP listener; cancelled at the end of the block unless it has ended."""
    daemon = Daemon()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    daemon.port = listeners[0].socket.getsockname()[1]

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        await activation.serve(handler, listeners, task_status=task_status, **options)
        daemon.ended.set()

    async with trio.open_nursery() as nursery:
        assert await nursery.start(run) == listeners
        yield daemon
        nursery.cancel_scope.cancel()


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


# Accepting


async def test_connections_are_handled_at_once_and_closed_after_their_handler() -> None:
    with no_leak():
        async with serving() as daemon:
            async with await daemon.connect() as one, await daemon.connect() as two:
                assert await echoes(two)
                assert await echoes(one)
                await one.send_eof()
                assert await one.receive_some() == b""
                assert await echoes(two)


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


async def test_a_failed_or_unfinished_tls_handshake_costs_only_that_client(
    caplog: pytest.LogCaptureFixture, certificate: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    caplog.set_level(logging.INFO)
    context, trusting = certificate
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    port = port_of(listeners[0])
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(activation.serve, echo, listeners, handshake_timeout=0.2))
        async with await trio.open_tcp_stream("127.0.0.1", port) as garbage:
            await garbage.send_all(b"GET / HTTP/1.0\r\n\r\n")
            with trio.fail_after(LIMIT):
                while await garbage.receive_some():
                    pass
        async with await trio.open_tcp_stream("127.0.0.1", port) as silent:
            with trio.fail_after(LIMIT):
                assert await silent.receive_some() == b""
        secret = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=trusting)
        assert await echoes(secret)
        await trio.aclose_forcefully(secret)
        nursery.cancel_scope.cancel()
    assert re.search(r"127\.0\.0\.1:\d+ did not finish the TLS handshake in 0\.2 s", caplog.text)
    assert re.search(r"the connection of 127\.0\.0\.1:\d+ broke: .*SSL", caplog.text)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


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


async def test_connections_without_a_handler_are_refused_as_a_mistake() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with pytest.raises(ValueError, match="handler is None"):
        await activation.serve(None, listeners)
    await listeners[0].aclose()


async def test_a_bad_address_of_the_manager_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "nowhere")
    with pytest.raises(activation.ActivationError, match="NOTIFY_SOCKET is 'nowhere'"):
        await activation.serve(None)


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


# Handlers


class SpecialError(Exception):
    pass


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


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_open_connections_finish_and_accepts_no_more(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with no_leak():
        async with serving() as daemon:
            async with await daemon.connect() as stream:
                assert await echoes(stream)
                os.kill(os.getpid(), number)
                await trio.testing.wait_all_tasks_blocked(0.02)
                assert await refused(daemon.port)
                assert await echoes(stream)
                assert not daemon.ended.is_set()
            await daemon.end()
    assert signal.getsignal(number) is before


async def test_what_is_not_done_after_drain_timeout_is_cancelled() -> None:
    cancelled = False

    async def handler(stream: trio.SocketStream) -> None:
        nonlocal cancelled
        try:
            await echo(stream)
        except trio.Cancelled:
            cancelled = True
            raise

    async with serving(handler, drain_timeout=0.2) as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        began = trio.current_time()
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon.end()
        assert 0.2 <= trio.current_time() - began < LIMIT / 2
        assert cancelled
        assert await stream.receive_some() == b""


async def test_an_error_in_a_handler_that_is_cut_does_not_end_the_daemon_badly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        async def fail_at_the_end() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise SpecialError("at the end")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            await stream.send_all(b"!")
            await trio.sleep_forever()

    async with serving(handler, drain_timeout=0) as daemon, await daemon.connect() as stream:
        assert await stream.receive_some() == b"!"
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon.end()
    assert "at the end" in caplog.text


async def test_a_second_signal_ends_it_at_once() -> None:
    async with serving(drain_timeout=1000) as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not daemon.ended.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await daemon.end()


async def test_several_in_one_process_all_hear_the_signal() -> None:
    async with serving() as one, serving() as two, serving(idle_timeout=0) as early:
        await early.end()
        async with await one.connect() as stream:
            assert await echoes(stream)
        os.kill(os.getpid(), signal.SIGTERM)
        await one.end()
        await two.end()


@pytest.mark.parametrize("moment", range(12))
async def test_a_signal_at_any_await_of_the_start_ends_it_or_lets_it_serve(moment: int, manager: Manager) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    own = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a signal before serve() hears it is this test's
    try:
        with trio.fail_after(LIMIT):
            async with trio.open_nursery() as nursery:
                steps = 0

                async def kill() -> None:
                    nonlocal steps
                    for steps in range(moment):  # noqa: B007
                        await trio.lowlevel.checkpoint()
                    os.kill(os.getpid(), signal.SIGTERM)

                nursery.start_soon(kill)
                await nursery.start(partial(activation.serve, echo, [listener], reload=print, idle_timeout=5))
                # It was ready, or has ended. What comes after that it hears.
                os.kill(os.getpid(), signal.SIGTERM)
        said = manager.heard()
        assert said.count("READY=1") <= 1
        assert said.index("STOPPING=1") > (said.index("READY=1") if "READY=1" in said else -1)
    finally:
        signal.signal(signal.SIGTERM, own)


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


# Idle


async def test_it_returns_after_idle_timeout_without_a_connection() -> None:
    began = trio.current_time()
    async with serving(idle_timeout=0.2) as daemon:
        await daemon.end()
        assert trio.current_time() - began >= 0.2


async def test_a_connection_however_silent_is_no_idleness() -> None:
    async with serving(idle_timeout=0.1) as daemon:
        async with await daemon.connect() as stream:
            with trio.move_on_after(0.5):
                await daemon.ended.wait()
            assert not daemon.ended.is_set()
            assert await echoes(stream)
        left = trio.current_time()
        await daemon.end()
        assert trio.current_time() - left >= 0.1


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


# The manager


async def test_ready_is_said_once_it_accepts_and_stopping_when_it_leaves(manager: Manager) -> None:
    async with serving() as daemon:
        assert manager.heard() == ["READY=1", "STATUS=0 connections open"]
        async with await daemon.connect() as stream:
            assert await echoes(stream)
            os.kill(os.getpid(), signal.SIGTERM)
            said = await manager.hear("EXTEND_TIMEOUT_USEC=15000000")
            assert "STOPPING=1" in said
            assert "READY=1" not in said
        await daemon.end()


async def test_leaving_when_idle_is_stopping_but_being_cancelled_is_not(manager: Manager) -> None:
    async with serving(idle_timeout=0) as daemon:
        await daemon.end()
    more_time = "EXTEND_TIMEOUT_USEC=15000000"  # for what the program does after it
    assert manager.heard() == ["READY=1", "STATUS=0 connections open", "STOPPING=1", more_time]
    async with serving():
        pass
    assert "STOPPING=1" not in manager.heard()


async def test_several_leave_together_when_all_are_idle_and_say_stopping_once(manager: Manager) -> None:
    for first, second in ((0.1, 0), (0.05, 0.1), (0.1, 0.1)):
        began = trio.current_time()
        async with serving(idle_timeout=first) as one, serving(idle_timeout=second) as two:
            await one.end()
            await two.end()
            assert trio.current_time() - began >= 0.1
        assert manager.heard().count("STOPPING=1") == 1


async def test_none_leaves_while_another_has_a_connection(manager: Manager) -> None:
    async with serving(idle_timeout=0.05) as one, serving(idle_timeout=0) as two, serving() as stays:
        for daemon in (one, two, stays):
            async with await daemon.connect() as stream:
                assert await echoes(stream)
                await trio.sleep(0.2)
                for other in (one, two):
                    assert not other.ended.is_set()
                    async with await other.connect() as another:
                        assert await echoes(another)
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


async def test_the_status_says_how_many_connections_are_open_at_most_once_a_second(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    told: list[tuple[float, str]] = []

    async with serving() as daemon:
        began = trio.current_time()
        manager.heard()
        streams: list[trio.SocketStream] = []
        while trio.current_time() < began + 20:
            if len(streams) < 5:
                streams.append(await daemon.connect())
                assert await echoes(streams[-1])
            elif trio.current_time() > began + 10:
                for stream in streams[:4]:
                    await stream.aclose()
            await trio.sleep(0.05)
            told += [(trio.current_time(), line) for line in manager.heard()]
        await streams[4].aclose()
    assert all(line.startswith("STATUS=") for _, line in told)
    times = [time for time, _ in told]
    assert all(later - earlier >= 0.99 for earlier, later in pairwise(times))
    assert "STATUS=5 connections open" in [line for _, line in told]
    assert told[-1][1] == "STATUS=1 connection open"
    assert len(told) < 6


async def test_the_watchdog_is_petted_twice_to_three_times_in_its_time(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    times = []
    async with serving():
        for _ in range(3000):
            times += [trio.current_time() for line in manager.heard() if line == "WATCHDOG=1"]
            await trio.sleep(0.01)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) > 15
    assert all(0.98 <= gap <= 1.52 for gap in gaps)


@pytest.mark.parametrize("kind", ["function", "coroutine function", "one that raises"])
async def test_a_hangup_reloads_between_reloading_and_ready(
    manager: Manager, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def function() -> None:
        nonlocal calls
        calls += 1
        if kind == "one that raises":
            raise SpecialError("bad configuration")

    async def coroutine_function() -> None:
        await trio.lowlevel.checkpoint()
        function()

    reload = coroutine_function if kind == "coroutine function" else function
    async with serving(reload=reload) as daemon:
        manager.heard()
        for number in (1, 2):
            os.kill(os.getpid(), signal.SIGHUP)
            said = [line for line in await manager.hear("READY=1") if not line.startswith("STATUS=")]
            assert said[0] == "RELOADING=1"
            assert re.fullmatch(r"MONOTONIC_USEC=\d+", said[1])
            assert said[2:] == ["READY=1"]
            assert calls == number
        async with await daemon.connect() as stream:
            assert await echoes(stream)
    assert ("bad configuration" in caplog.text) is (kind == "one that raises")


async def test_a_reload_that_hangs_does_not_keep_it_from_ending(manager: Manager) -> None:
    async with serving(reload=trio.sleep_forever) as daemon:
        os.kill(os.getpid(), signal.SIGHUP)
        await manager.hear("RELOADING=1")
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon.end()
        assert "READY=1" not in manager.heard()


async def test_a_manager_that_cannot_be_reached_is_logged_once_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    monkeypatch.setenv("WATCHDOG_USEC", "100000")
    async with serving() as daemon, await daemon.connect() as stream:
        await trio.sleep(0.2)
        assert await echoes(stream)
    assert len(caplog.messages) == 1
    assert f"{tmp_path}/none: cannot tell the service manager" in caplog.text


async def test_a_manager_that_does_not_read_keeps_it_from_nothing(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    async with serving(drain_timeout=1000) as daemon, await daemon.connect() as stream:
        with trio.fail_after(LIMIT):
            while "Resource temporarily unavailable" not in caplog.text:
                await trio.sleep(0.01)
            assert await echoes(stream)
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep(0.05)
            assert await echoes(stream)
        # What must not be lost is told as soon as the manager listens.
        assert "STOPPING=1" in await manager.hear("STOPPING=1")
    assert len([line for line in caplog.messages if "serving all the same" in line]) == 1


async def test_more_time_is_asked_for_only_while_the_drain_lasts(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    del autojump_clock

    async def stubborn(stream: trio.SocketStream) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    async with serving(stubborn, drain_timeout=7) as daemon, await daemon.connect():
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon.ended.wait()
    assert manager.heard().count("EXTEND_TIMEOUT_USEC=15000000") == 2


async def test_a_hangup_before_it_accepts_is_a_reload_after_it(manager: Manager) -> None:
    calls = 0

    def reload() -> None:
        nonlocal calls
        calls += 1
        assert manager.heard()[0] == "READY=1"

    own = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(partial(activation.serve, echo, listeners, reload=reload))
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(LIMIT):
                while not calls:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    finally:
        signal.signal(signal.SIGHUP, own)


async def test_several_in_one_process_tell_one_status(manager: Manager) -> None:
    async with serving() as one, serving() as two:
        async with await one.connect() as first, await two.connect() as second:
            assert await echoes(first)
            assert await echoes(second)
            await manager.hear("STATUS=2 connections open")


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
