from __future__ import annotations

import array
import random
import socket
import struct
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import (
    assert_checkpoints,
    check_half_closeable_stream,
    check_two_way_stream,
    wait_all_tasks_blocked,
)

import activation
from activation._socket_stream import MOST_WAITS, RECEIVE_SIZE, SocketStream
from tests.children import tcp_listener
from tests.commands import LIMIT

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

Ends = tuple[SocketStream, SocketStream]


def unix_sockets() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def tcp_sockets() -> tuple[socket.socket, socket.socket]:
    with tcp_listener() as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


def stream(sock: socket.socket) -> SocketStream:
    return SocketStream(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


@pytest.fixture(params=[unix_sockets, tcp_sockets])
def sockets(request: pytest.FixtureRequest) -> Callable[[], tuple[socket.socket, socket.socket]]:
    make: Callable[[], tuple[socket.socket, socket.socket]] = request.param
    return make


def pair() -> Ends:
    ours, theirs = unix_sockets()
    return stream(ours), stream(theirs)


def clog(sock: socket.socket) -> bytes:
    """Send until there is no room; return what was sent."""
    sock.setblocking(False)
    sent = bytearray()
    for chunk in (bytes(65536), b"."):
        try:
            while True:
                sent += chunk[: sock.send(chunk)]
        except BlockingIOError:
            pass
    return bytes(sent)


async def receive_all(ours: SocketStream) -> bytes:
    received = bytearray()
    async for data in ours:
        received += data
    return bytes(received)


# What trio expects of every stream


async def test_it_is_a_stream_as_trio_wants_them(sockets: Callable[[], tuple[socket.socket, socket.socket]]) -> None:
    async def make() -> Ends:
        one, other = sockets()
        return stream(one), stream(other)

    async def make_clogged() -> Ends:
        one, other = sockets()
        clog(one)
        clog(other)
        return stream(one), stream(other)

    # TCP finds room again after a while, when the other end's kernel has taken what is under way.
    await check_half_closeable_stream(make, make_clogged if sockets is unix_sockets else None)


async def test_it_has_everything_that_trios_stream_has() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        anything: object = ours
        assert isinstance(anything, trio.SocketStream)
        public = {name for name in dir(trio.SocketStream) if not name.startswith("_")}
        assert public | {"socket"} <= {name for name in dir(ours) if not name.startswith("_")}


async def test_the_stream_that_was_given_goes_on_with_the_same_socket() -> None:
    one, other = unix_sockets()
    given = trio.SocketStream(trio.socket.from_stdlib_socket(one))
    with other:
        ours = SocketStream(given)
        await given.send_all(b"x")
        assert other.recv(2) == b"x"
        await given.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()


async def test_options_are_set_and_read_as_in_trio() -> None:
    server, client = tcp_sockets()
    with client:
        async with stream(server) as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            linger = struct.pack("ii", 1, 0)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(linger)) == linger
            wrong: Any = ours.setsockopt
            with pytest.raises(TypeError, match="length"):
                wrong(socket.SOL_SOCKET, socket.SO_KEEPALIVE, None)
            with pytest.raises(TypeError, match="length"):
                wrong(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1, 4)


# Checkpoints


async def anext_of(ours: SocketStream) -> object:
    return await anext(ours)


CALLS: dict[str, Callable[[SocketStream], Awaitable[object]]] = {
    "receive_some": lambda ours: ours.receive_some(),
    "async for": anext_of,
    "send_all": lambda ours: ours.send_all(b"x"),
    "wait_send_all_might_not_block": lambda ours: ours.wait_send_all_might_not_block(),
    "send_eof": lambda ours: ours.send_eof(),
    "aclose": lambda ours: ours.aclose(),
}


@pytest.mark.parametrize("state", ["new", "waiting", "bulk"])
@pytest.mark.parametrize("name", CALLS)
async def test_every_call_is_cancelled_before_it_does_anything(name: str, state: str) -> None:
    ours, theirs = pair()
    async with ours, theirs:
        if state == "waiting":
            await miss(ours, theirs)
        if state == "bulk":
            await receive_whole_sizes(ours, theirs, 3)
        await theirs.send_all(b"for later")
        await theirs.send_all(b", too")
        assert await ours.receive_some(4) == b"for "  # so that the next send need not let others run
        with trio.CancelScope() as scope:
            scope.cancel()
            await CALLS[name](ours)
        assert scope.cancelled_caught
        if name == "aclose":
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()
            return
        await ours.send_all(b"end")
        await ours.send_eof()
        assert await receive_all(theirs) == b"end"
        await theirs.send_eof()
        assert await receive_all(ours) == b"later, too"


async def miss(ours: SocketStream, theirs: SocketStream) -> None:
    """Let receiving find out that the data comes too late for a turn."""
    for _ in range(3):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.receive_some)
            await wait_all_tasks_blocked()
            await theirs.send_all(b"x")


async def receive_whole_sizes(ours: SocketStream, theirs: SocketStream, number: int) -> None:
    """Receive as much as one receive takes, several times."""
    await theirs.send_all(bytes(number * RECEIVE_SIZE))
    for _ in range(number):
        assert len(await ours.receive_some()) == RECEIVE_SIZE


async def test_of_two_calls_at_least_one_lets_others_run() -> None:
    calls: list[Callable[[SocketStream], Awaitable[object]]] = [
        lambda ours: ours.receive_some(10),
        lambda ours: ours.send_all(b"x"),
        lambda ours: ours.wait_send_all_might_not_block(),
    ]
    choose = random.Random(0)
    pairs = [pair() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for _, theirs in pairs:
            nursery.start_soon(theirs.send_all, bytes(1 << 20))
            nursery.start_soon(receive_all, theirs)
        for _ in range(500):
            with assert_checkpoints():
                for _ in range(2):
                    await choose.choice(calls)(choose.choice(pairs)[0])
        nursery.cancel_scope.cancel()
    for ours, theirs in pairs:
        await ours.aclose()
        await theirs.aclose()


async def test_in_bulk_at_least_one_of_six_calls_lets_others_run() -> None:
    calls: list[Callable[[SocketStream], Awaitable[object]]] = [
        lambda ours: ours.receive_some(),
        anext_of,
        lambda ours: ours.send_all(bytes(RECEIVE_SIZE)),
    ]
    choose = random.Random(0)
    pairs = [pair() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for _, theirs in pairs:
            nursery.start_soon(theirs.send_all, bytes(500 * RECEIVE_SIZE))
            nursery.start_soon(receive_all, theirs)
        for _ in range(100):
            with assert_checkpoints():
                for _ in range(6):
                    await choose.choice(calls)(choose.choice(pairs)[0])
        nursery.cancel_scope.cancel()
    for ours, theirs in pairs:
        await ours.aclose()
        await theirs.aclose()


async def test_in_bulk_the_others_run_once_for_three_messages() -> None:
    ours, theirs = pair()
    messages = 30
    async with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * RECEIVE_SIZE)
        await receive_whole_sizes(ours, theirs, 1)
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for _ in range(messages // 3):
            for _ in range(3):
                theirs._sock.send(bytes(RECEIVE_SIZE))
            for _ in range(3):
                await ours.send_all(await anext(ours))
                assert len(theirs._sock.recv(RECEIVE_SIZE, socket.MSG_WAITALL)) == RECEIVE_SIZE
        trio.lowlevel.remove_instrument(steps)
        assert steps.count <= messages // 3 + 1


async def test_after_bulk_a_receive_of_less_lets_others_run() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        await receive_whole_sizes(ours, theirs, 3)
        await theirs.send_all(b"some")
        assert await ours.receive_some() == b"some"
        for _ in range(10):
            await theirs.send_all(b"some more")
            with assert_checkpoints():
                assert await ours.receive_some() == b"some more"


async def test_an_answer_does_not_let_the_others_run_twice() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        await theirs.send_all(b"question")
        await ours.receive_some()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await ours.send_all(b"answer")
        trio.lowlevel.remove_instrument(steps)
        assert not steps.count
        with assert_checkpoints():
            await ours.send_all(b"and more")


class Steps(trio.abc.Instrument):
    """How often the scheduler has let a task run."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        self.count += 1


async def test_a_client_that_never_pauses_stops_neither_clocks_nor_others() -> None:
    ours, theirs = pair()
    served = 0

    async def echo() -> None:
        nonlocal served
        async for data in ours:
            await ours.send_all(data)
            served += 1

    async def flood() -> None:
        while True:
            await theirs.send_all(bytes(1000))

    async def drain() -> None:
        while await theirs.receive_some():
            pass

    async def set_clock(scope: trio.CancelScope) -> None:
        while served < 100:
            await trio.lowlevel.checkpoint()
        scope.deadline = trio.current_time() + 0.01

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        nursery.start_soon(drain)
        with trio.fail_after(LIMIT), trio.CancelScope() as scope:
            nursery.start_soon(set_clock, scope)
            await echo()
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_an_idle_receive_sleeps() -> None:
    ours, theirs = pair()
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(ours.receive_some)
        with trio.fail_after(LIMIT):
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


# Cancellation loses nothing


@pytest.mark.parametrize("seed", range(5))
async def test_a_receive_that_is_cancelled_at_any_moment_loses_nothing(seed: int) -> None:
    ours, theirs = pair()
    rest = random.Random(seed)
    data = rest.randbytes(200_000)
    received = bytearray()

    async def send() -> None:
        position = 0
        while position < len(data):
            size = rest.randrange(1, 2000)
            await theirs.send_all(data[position : position + size])
            position += size
            for _ in range(rest.randrange(3)):
                await trio.lowlevel.checkpoint()
        await theirs.send_eof()

    async def cancel(scope: trio.CancelScope) -> None:
        for _ in range(rest.randrange(4)):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with trio.fail_after(LIMIT):
            while True:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel, scope)
                    if rest.random() < 0.5:
                        some = await ours.receive_some(rest.randrange(1, 3000))
                    else:
                        some = await anext(ours, b"")
                    if not some:
                        break
                    received += some
    assert received == data


async def test_a_send_that_is_cancelled_has_sent_the_beginning() -> None:
    ours, theirs = pair()
    data = random.Random(0).randbytes(1 << 20)
    async with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, data)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await ours.send_eof()
        received = await receive_all(theirs)
        assert received
        assert data.startswith(received)


# Closing, conflicts, errors


@pytest.mark.parametrize("waiting", [False, True])
async def test_closing_wakes_a_receiver_before_and_while_it_waits(waiting: bool) -> None:
    ours, theirs = pair()
    async with theirs:
        if waiting:
            await miss(ours, theirs)

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            if waiting:
                await wait_all_tasks_blocked()
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
            await ours.aclose()


async def test_a_closed_stream_does_not_touch_the_next_one_with_its_number() -> None:
    ours, theirs = pair()
    number = ours.socket.fileno()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_some()

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")

    async with theirs, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        # Both have begun, and let others run first.
        await trio.lowlevel.cancel_shielded_checkpoint()
        ours.socket.close()
        other, peer = unix_sockets()
        assert number in {other.fileno(), peer.fileno()}
        other.send(b"not for the first stream")
        peer.send(b"not for the first stream")
        await wait_all_tasks_blocked()
        for sock in (other, peer):
            assert sock.recv(100) == b"not for the first stream"
            sock.close()


@pytest.mark.parametrize("size", [1, 1 << 20])
async def test_two_tasks_cannot_send_at_once(size: int) -> None:
    ours, theirs = pair()
    errors: list[trio.BusyResourceError] = []

    async def send() -> None:
        try:
            await ours.send_all(bytes(size))
        except trio.BusyResourceError as error:
            errors.append(error)

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert len(errors) == 1
        assert "sending" in str(errors[0])
        with pytest.raises(trio.BusyResourceError) if size > 1 else assert_checkpoints():
            await ours.send_eof()
        nursery.cancel_scope.cancel()


async def test_two_tasks_cannot_wait_for_data_at_once() -> None:
    ours, theirs = pair()
    errors: list[trio.BusyResourceError] = []

    async def receive() -> None:
        try:
            await ours.receive_some()
        except trio.BusyResourceError as error:
            errors.append(error)

    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        assert len(errors) == 1
        nursery.cancel_scope.cancel()


async def test_a_reset_connection_is_broken_and_says_why() -> None:
    server, client = tcp_sockets()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with stream(server) as ours:
        client.close()
        with pytest.raises(trio.BrokenResourceError, match="reset") as raised:
            await ours.receive_some()
        assert isinstance(raised.value.__cause__, ConnectionResetError)
        with pytest.raises(trio.BrokenResourceError, match="pipe"):
            await ours.send_all(b"x")


async def test_nothing_can_be_sent_after_the_end() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        await ours.send_eof()
        with pytest.raises(trio.ClosedResourceError, match="EOF"):
            await ours.send_all(b"x")


async def test_an_empty_send_to_a_client_that_left_is_no_error() -> None:
    ours, theirs = pair()
    async with ours:
        await theirs.aclose()
        await ours.send_all(b"")


# Data


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(array.array("q", data))])
async def test_all_of_it_is_sent_whatever_holds_it(make: Callable[[bytes], Any]) -> None:
    ours, theirs = pair()
    data = random.Random(0).randbytes(1 << 20)
    async with ours, theirs, trio.open_nursery() as nursery:

        async def send() -> None:
            await ours.send_all(make(data))
            await ours.send_eof()

        nursery.start_soon(send)
        with trio.fail_after(LIMIT):
            assert await receive_all(theirs) == data


async def test_data_that_comes_late_again_and_again_is_waited_for() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        for number in range(2 * MOST_WAITS + 10):
            async with trio.open_nursery() as nursery:

                async def receive(expected: bytes) -> None:
                    assert await anext(ours) == expected

                nursery.start_soon(receive, b"%d" % number)
                await wait_all_tasks_blocked()
                await theirs.send_all(b"%d" % number)


async def test_tls_can_begin_on_it(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = certificate
    ours, theirs = pair()
    data = random.Random(0).randbytes(300_000)

    async def echo() -> None:
        async with trio.SSLStream(ours, server, server_side=True) as encrypted:
            async for some in encrypted:
                await encrypted.send_all(some)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        with trio.fail_after(LIMIT):
            async with trio.SSLStream(theirs, client, server_hostname="localhost") as encrypted:
                nursery.start_soon(encrypted.send_all, data)
                received = bytearray()
                while len(received) < len(data):
                    received += await encrypted.receive_some()
    assert received == data


async def test_tls_on_it_is_a_stream_as_trio_wants_them(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = certificate

    async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        ours, theirs = pair()
        return (
            trio.SSLStream(ours, server, server_side=True, https_compatible=True),
            trio.SSLStream(theirs, client, server_hostname="localhost", https_compatible=True),
        )

    with trio.fail_after(LIMIT):
        await check_two_way_stream(make, None)


# What serve gives to a handler


@pytest.mark.parametrize("switching", [False, True])
async def test_serve_gives_it_to_tls_too(certificate: tuple[ssl.SSLContext, ssl.SSLContext], switching: bool) -> None:
    server, client = certificate
    got: list[object] = []

    async def handler(given: trio.SSLStream[trio.SocketStream]) -> None:
        got.append(given.transport_stream)
        async for data in given:
            await given.send_all(data)

    with tcp_listener() as sock:
        port = sock.getsockname()[1]
        passed = [activation.File(sock.detach(), "secret")]
    listeners = activation.tls_listeners((lambda: server) if switching else server, passed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(activation.serve, handler, listeners))
        with trio.fail_after(LIMIT):
            stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=client)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            await stream.aclose()
        nursery.cancel_scope.cancel()
    assert [type(one) for one in got] == [SocketStream]


async def test_serve_gives_it_to_handlers_of_plain_connections() -> None:
    got: list[object] = []

    async def handler(given: trio.SocketStream) -> None:
        got.append(given)
        assert isinstance(given, trio.SocketStream)
        async for data in given:
            await given.send_all(data)

    passed, client = unix_sockets()
    connections = [trio.SocketStream(trio.socket.from_stdlib_socket(passed))]
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:

        async def serve(*, task_status: trio.TaskStatus[Any]) -> None:
            await activation.serve(handler, listeners, connections=connections, task_status=task_status)

        await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(LIMIT):
            async with await trio.open_tcp_stream("127.0.0.1", port) as accepted, stream(client) as other:
                for one in (accepted, other):
                    await one.send_all(b"hello")
                    assert await one.receive_some() == b"hello"
        nursery.cancel_scope.cancel()
    assert [type(one) for one in got] == [SocketStream] * 2


async def test_a_program_can_keep_streams_in_a_weak_set_and_give_them_attributes_as_with_trio() -> None:
    ours, theirs = pair()
    async with ours, theirs:
        assert [*weakref.WeakSet([ours])] == [ours]
        ours.user = "somebody"  # type: ignore[attr-defined]
        assert vars(ours) == {"user": "somebody"}
