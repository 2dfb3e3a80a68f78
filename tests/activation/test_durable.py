"""Durable connections in the life of a daemon: what a handler and its clients see over restarts and crashes."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import struct
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import activation
from activation.testing import activated
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from activation import DurableStream
    from activation.testing import Daemon

COUNTER = """
import sys, trio, activation
from functools import partial
async def count(stream):
    while line := await stream.receive_until(b"\\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)
trio.run(partial(activation.serve, count, durable=True))
"""


async def count(stream: DurableStream) -> None:
    while line := await stream.receive_until(b"\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)


def serving(handler: Callable[[Any], Awaitable[object]], **options: Any) -> Callable[[], Awaitable[object]]:
    return partial(activation.serve, handler, **{"durable": True, **options})


async def line(client: trio.SocketStream, size: int = 1000) -> bytes:
    """What comes up to a newline, or the end."""
    said = b""
    with trio.fail_after(LIMIT):
        while not said.endswith(b"\n") and (more := await client.receive_some(size)):
            said += more
    return said


async def answer(client: trio.SocketStream, said: bytes) -> bytes:
    await client.send_all(said)
    return await line(client)


class Kit:
    """What a handler and its test share."""

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.wants_durable = True
        self._went = trio.Event()
        self._noted = trio.lowlevel.ParkingLot()

    @asynccontextmanager
    async def running(self, handler: Callable[[Any], Awaitable[object]], **options: Any) -> AsyncIterator[Daemon]:
        async with activated(serving(handler, **options), {"main": "unix"}, store=3) as daemon:
            await daemon.ready()
            yield daemon

    def note(self, *words: Any) -> None:
        self.notes.append(words)
        self._noted.unpark_all()

    async def noted(self, count: int) -> None:
        with trio.fail_after(LIMIT):
            while len(self.notes) < count:
                await self._noted.park()

    async def wait(self) -> None:
        await self._went.wait()

    def go(self) -> None:
        self._went.set()


@pytest.fixture
def kit() -> Kit:
    return Kit()


KINDS = pytest.mark.parametrize("kind", ["unix", "tcp"])


@KINDS
@pytest.mark.parametrize("daemon", [serving(count), [sys.executable, "-c", COUNTER]], ids=["function", "command"])
async def test_a_client_notices_neither_restart_nor_crash(daemon: Any, kind: Any) -> None:
    async with activated(daemon, {"count": kind}, store=3) as running:
        await running.ready()
        client, other = await running.connect("count"), await running.connect("count")
        assert await answer(other, b"other\n") == b"1 other\n"
        assert await answer(client, b"first\n") == b"1 first\n"
        await running.restart()
        assert await answer(client, b"second\n") == b"2 second\n"
        await running.crash()
        assert await answer(client, b"third\n") == b"3 third\n"
        await running.restart()
        await running.restart()
        assert await answer(client, b"fourth\n") == b"4 fourth\n"
        assert await answer(other, b"other\n") == b"2 other\n"
        assert running.stored == ["activation.connections"] * 3


# What takes effect, and what does not


async def test_what_was_not_committed_did_not_happen(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        kit.note(stream.state, stream.commits, stream.id)
        said = await stream.receive_until(b"\n")
        stream.state = b"changed"
        await stream.send_all(b"answer\n")
        kit.note(said)
        await kit.wait()
        await stream.receive_until(b"\n")

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"hello\nrest")
        await kit.noted(2)
        await daemon.crash()
        await kit.noted(4)
        assert kit.notes[2:] == kit.notes[:2]  # the same beginning: no state, no commit, the same id, the same line
        assert kit.notes[0][:2] == (b"", 0)
        kit.go()
        assert await line(client) == b"answer\n"
        await daemon.crash()
        await kit.noted(5)
        assert kit.notes[4] == (b"changed", 1, kit.notes[0][2])


async def test_output_goes_out_with_the_commit_and_not_before(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"one")
        await stream.send_all(bytearray(b"two"))
        await stream.send_all(memoryview(b"\n"))
        await kit.wait()
        await stream.commit()
        await trio.sleep_forever()

    async with kit.running(handler, drain_timeout=0) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"x")
        with trio.move_on_after(0.1) as waited:
            await client.receive_some()
        assert waited.cancelled_caught
        kit.go()
        assert await line(client) == b"onetwo\n"


async def test_a_receive_waits_until_the_output_before_it_is_sent_also_after_a_crash(kit: Kit) -> None:
    """The client reads nothing until the daemon has crashed twice, with most of the output due."""
    size = 40 * 50_000

    async def handler(stream: DurableStream) -> None:
        kit.note(stream.commits)
        for number in range(stream.commits, 40):
            await stream.send_all(bytes([number]) * 50_000)
            await stream.commit()
        await stream.receive_some()

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await kit.noted(1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await daemon.crash()
        await kit.noted(2)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await daemon.crash()
        received = b""
        while len(received) < size:
            received += await client.receive_some()
        assert received == b"".join(bytes([number]) * 50_000 for number in range(40))
        assert 0 < kit.notes[1][0] < 40


async def test_an_incomplete_line_stays_for_the_next_process(kit: Kit) -> None:
    async with kit.running(count) as daemon:
        client = await daemon.connect("main")
        for piece in (b"o", b"n", b"e\ntw"):
            await client.send_all(piece)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await daemon.crash()
        assert await line(client) == b"1 one\n"
        await client.send_all(b"o\n")
        assert await line(client) == b"2 two\n"


async def test_last_words_are_dealt_with_though_nobody_hears_the_answers(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        while said := await stream.receive_until(b"\n"):
            kit.note(said)
            await stream.send_all(said)
            if said == b"0\n":
                await kit.wait()

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"".join(b"%d\n" % number for number in range(100)))
        await client.aclose()
        await kit.noted(1)
        kit.go()
        await daemon.crash()
        await daemon.wait_status("0 connections open")
        assert {note for (note,) in kit.notes} == {b"%d\n" % number for number in range(100)}


async def test_a_client_that_has_ended_its_half_gets_its_answers(kit: Kit) -> None:
    async with kit.running(count) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"a\nb\n")
        await client.send_eof()
        await daemon.crash()
        assert b"".join([data async for data in client]) == b"1 a\n2 b\n"


# The end of a connection


async def test_the_handlers_end_is_a_commit_and_the_end(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        kit.note("begins")
        await stream.receive_some()
        await stream.send_all(b"bye\n")

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"x")
        assert b"".join([data async for data in client]) == b"bye\n"
        await daemon.restart()
        await daemon.wait_status("0 connections open")
        assert len(kit.notes) == 1


async def test_a_handlers_error_ends_its_connection_for_good(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(stream: DurableStream) -> None:
        kit.note("begins")
        await stream.receive_some()
        await stream.send_all(b"never sent")
        raise RuntimeError("as it happens")

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"x")
        assert await client.receive_some() == b""
        await daemon.restart()
        await daemon.wait_status("0 connections open")
        assert len(kit.notes) == 1
        assert "RuntimeError: as it happens" in caplog.text


async def test_aclose_ends_the_connection_and_the_handler_goes_on(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"bye\n")
        kit.note("goes on")
        await kit.wait()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            stream.state = b"x"
        await stream.aclose()
        kit.note("ends")

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"x")
        assert b"".join([data async for data in client]) == b"bye\n"
        await kit.noted(1)
        kit.go()
        await kit.noted(2)
        await daemon.crash()
        await daemon.wait_status("0 connections open")


async def test_async_with_does_not_end_what_is_suspended(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        async with stream:
            await count(stream)

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        await daemon.restart()
        assert await answer(client, b"b\n") == b"2 b\n"
        await daemon.crash()
        assert await answer(client, b"c\n") == b"3 c\n"


async def test_send_eof_ends_the_output_and_input_goes_on(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        if not stream.commits:
            await stream.send_all(b"all there is\n")
            await stream.send_eof()
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_all(b"x")
        while said := await stream.receive_until(b"\n"):
            kit.note(said)

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        assert b"".join([data async for data in client]) == b"all there is\n"
        await client.send_all(b"one\n")
        await kit.noted(1)
        await daemon.restart()
        await client.send_all(b"two\n")
        await kit.noted(2)
        await client.send_eof()
        await daemon.wait_status("0 connections open")
        assert kit.notes == [(b"one\n",), (b"two\n",)]


# Suspension


async def test_what_is_between_two_receives_runs_to_its_end_at_sigterm(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        while said := await stream.receive_until(b"\n"):
            kit.note(said)
            await kit.wait()
            await stream.send_all(said)

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"one\ntwo\n")
        await kit.noted(1)
        daemon.send_signal(15)
        await trio.testing.wait_all_tasks_blocked(0.05)
        kit.go()
        assert await daemon.wait_exited() == 0
        assert await line(client, 4) == b"one\n"
        await daemon.start()
        assert await line(client) == b"two\n"
        assert kit.notes == [(b"one\n",), (b"two\n",)]


async def test_a_handler_is_never_suspended_with_a_message_that_it_has_just_received(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        while said := await stream.receive_until(b"\n"):
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                kit.note(said)
                raise
            await stream.send_all(said)

    async with kit.running(handler) as daemon:
        clients = [await daemon.connect("main") for _ in range(8)]
        for _ in range(20):
            daemon.send_signal(15)
            for client in clients:
                # Without giving way: in the next turn of the loop, handlers and the stop run in any order.
                assert os.write(client.socket.fileno(), b"x\n") == 2
            assert await daemon.wait_exited() == 0
            await daemon.start()
            for client in clients:
                assert await line(client) == b"x\n"
    assert kit.notes == []


async def test_what_takes_longer_than_drain_timeout_is_cut_without_a_commit(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        said = await stream.receive_until(b"\n")
        try:
            stream.state = b"x"
            kit.note(said, stream.commits)
            await kit.wait()
        finally:
            await stream.send_all(b"cleaned up\n")

    async with kit.running(handler, drain_timeout=0.05) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"one\n")
        await kit.noted(1)
        await daemon.restart()
        await kit.noted(2)
        assert kit.notes == [(b"one\n", 0)] * 2
        kit.go()
        assert await line(client) == b"cleaned up\n"


async def test_several_tasks_may_use_one_stream(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        async def tick() -> None:
            for number in range(20):
                await stream.send_all(b"tick %d\n" % number)
                await stream.commit()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            nursery.start_soon(count, stream)

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"".join(b"%d\n" % number for number in range(20)))
        await client.send_eof()
        lines = b"".join([data async for data in client]).splitlines()
        ticks, counts = ([one for one in lines if one.startswith(b"tick") is ticks] for ticks in (True, False))
        assert ticks == [b"tick %d" % number for number in range(20)]
        assert counts == [b"%d %d" % (number + 1, number) for number in range(20)]


# The stream's other ways


async def test_bytes_are_received_as_they_are_asked_for(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        kit.note(await stream.receive_exactly(3), await stream.receive_some(2), await stream.receive_until(b"--", 4))
        kit.note(await stream.receive_some())
        kit.note(await stream.receive_exactly(2), await stream.receive_until(b"x"), await stream.receive_some())
        kit.note(await stream.receive_some())

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"abcdefg--hij")
        await kit.noted(2)
        await client.send_all(b"1")
        await client.send_eof()
        await kit.noted(4)
        assert kit.notes == [(b"abc", b"de", b"fg--"), (b"hij",), (b"", b"", b"1"), (b"",)]


async def test_arguments_that_cannot_be_are_errors_that_say_what_can(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        for call, words in (
            (lambda: stream.receive_until(b""), "delimiter is empty"),
            (lambda: stream.receive_until(b"x", 101), "max_bytes is 101; expected 1 to 100.*Durable.input=...."),
            (lambda: stream.receive_exactly(101), "count is 101; expected 1 to 100"),
            (lambda: stream.receive_exactly(0), "count is 0"),
            (lambda: stream.receive_some(0), "max_bytes is 0"),
            (lambda: stream.send_all(bytes(301)), "has 301 bytes, and there is room for 300.*Durable.output=...."),
        ):
            with pytest.raises(ValueError, match=words):
                await call()
        with pytest.raises(ValueError, match=r"has 201 bytes, and there is room for 200.*Durable.state=...."):
            stream.state = bytes(201)
        with pytest.raises(TypeError):
            stream.state = 5  # type: ignore[assignment]
        await stream.receive_some(1)
        with pytest.raises(ValueError, match="no b'x' in the next 3 bytes"):
            await stream.receive_until(b"x", 3)
        kit.note(await stream.receive_some())
        stream.state = bytes(200)
        await stream.send_all(bytes(299))
        await stream.send_all(b"\n")

    durable = activation.Durable(input=100, output=300, state=200)
    async with kit.running(handler, durable=durable) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"12345")
        assert await line(client) == bytes(299) + b"\n"
        assert kit.notes == [(b"2345",)]


async def test_all_is_a_checkpoint_and_conflicts_are_told(kit: Kit) -> None:
    async def handler(stream: DurableStream) -> None:
        with trio.testing.assert_checkpoints():
            await stream.send_all(b"x")
        with trio.testing.assert_checkpoints():
            await stream.wait_send_all_might_not_block()
        with trio.testing.assert_checkpoints():
            await stream.commit()
        with trio.testing.assert_checkpoints():
            await stream.receive_exactly(1)
        with trio.testing.assert_checkpoints():
            await stream.receive_until(b"2")
        with trio.testing.assert_checkpoints():
            await stream.receive_some(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            await trio.testing.wait_all_tasks_blocked(0.02)
            with pytest.raises(trio.BusyResourceError):
                await stream.receive_some()
            nursery.cancel_scope.cancel()
        async with trio.open_nursery() as nursery:

            async def receive_in_vain() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

            nursery.start_soon(receive_in_vain)
            await trio.testing.wait_all_tasks_blocked(0.02)
            with trio.testing.assert_checkpoints():
                await stream.aclose()
        with trio.testing.assert_checkpoints():
            await stream.aclose()
        kit.note("done")

    async with kit.running(handler) as daemon:
        client = await daemon.connect("main")
        await client.send_all(b"123")
        await kit.noted(1)


# What cannot be


def test_rooms_have_to_be_possible() -> None:
    with pytest.raises(ValueError, match="Durable: state is 0; expected 1 to"):
        activation.Durable(state=0)


async def test_only_plain_stream_sockets_can_be_durable(tmp_path: Path) -> None:
    (tcp,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    seqpacket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    await seqpacket.bind(str(tmp_path / "a.sk"))
    seqpacket.listen()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    async with tcp:
        for listener, words in (
            (trio.SSLListener(tcp, context), "SSLListener.*keys of TLS"),
            (activation.SeqpacketListener(seqpacket), "SeqpacketListener.*expected a trio.SocketListener"),
        ):
            with pytest.raises(ValueError, match=words):
                await activation.serve(count, [listener], durable=True)  # type: ignore[call-overload]
    seqpacket.close()
    with pytest.raises(ValueError, match="handler is None"):
        await activation.serve(None, durable=True)  # type: ignore[call-overload]


async def test_only_one_serve_of_a_process_can_be_durable(kit: Kit) -> None:
    async def main() -> None:
        passed = activation.files()
        listeners = activation.listeners(passed)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(activation.serve, count, listeners[:1], durable=True))
            with pytest.raises(ValueError, match=r"another serve.*give one serve\(\) all handlers, by the names"):
                await activation.serve(count, listeners[1:], durable=True)
            kit.note("done")

    async with activated(main, {"main": "unix", "other": "unix"}, store=3) as daemon:
        await daemon.ready()
        await kit.noted(1)


def test_only_one_thread_of_a_process_can_be_durable() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(partial(activation.serve, count, listeners, durable=True))
            await trio.to_thread.run_sync(trio.run, other)
            activation.stop()

    async def other() -> None:
        with pytest.raises(ValueError, match="another serve"), trio.fail_after(20):
            await activation.serve(count, await trio.open_tcp_listeners(0, host="127.0.0.1"), durable=True)

    trio.run(main)


async def test_the_next_serve_of_a_process_goes_on_with_the_connections(kit: Kit) -> None:
    async def main() -> None:
        listeners = activation.listeners(activation.files())
        await activation.serve(count, listeners[:1], durable=True)
        if kit.wants_durable:
            await activation.serve(count, listeners[1:], durable=True)
        for listener in filter(None, listeners):
            await listener.aclose()

    async with activated(main, {"main": "unix", "other": "unix"}, store=4) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        daemon.send_signal(15)
        assert await answer(client, b"b\n") == b"2 b\n"
        other = await daemon.connect("other")
        assert await answer(other, b"a\n") == b"1 a\n"
        await daemon.crash()
        assert sorted(daemon.stored) == ["activation.connections"] * 3 + ["activation.connections.watch"]
        assert await answer(client, b"c\n") == b"3 c\n"
        assert await answer(other, b"b\n") == b"2 b\n"
        kit.wants_durable = False


async def test_a_daemon_with_listeners_of_its_own_goes_on_with_the_connections(tmp_path: Path) -> None:
    path = tmp_path / "own.sk"

    async def main() -> None:
        listener = trio.socket.socket(socket.AF_UNIX)
        path.unlink(missing_ok=True)
        await listener.bind(str(path))
        listener.listen()
        await activation.serve(count, [trio.SocketListener(listener)], durable=True)
        path.unlink()

    async with activated(main, {}, store=4) as daemon:
        await daemon.ready()
        async with await trio.open_unix_socket(str(path)) as client:
            assert await answer(client, b"a\n") == b"1 a\n"
            await daemon.restart()
            assert await answer(client, b"b\n") == b"2 b\n"
            await daemon.crash()
            assert await answer(client, b"c\n") == b"3 c\n"


async def test_at_sigint_connections_may_finish(kit: Kit) -> None:
    async with activated(serving(count), {"main": "unix"}, store=4) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        daemon.send_signal(2)
        await daemon.wait_told("STOPPING=1")
        assert await answer(client, b"b\n") == b"2 b\n"
        await client.aclose()
        assert await daemon.wait_exited() == 0


async def test_where_the_manager_gives_them_up_connections_may_finish(kit: Kit) -> None:
    async with activated(serving(count), {"main": "unix"}, store=4) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        await daemon.restart()
        assert await answer(client, b"b\n") == b"2 b\n"
        await daemon.crash()
        assert sorted(daemon.stored) == ["activation.connections"] * 3 + ["activation.connections.watch"]
        assert await answer(client, b"c\n") == b"3 c\n"
        daemon._manager.store.clear()
        daemon.send_signal(15)
        await daemon.wait_told("STOPPING=1")
        assert await answer(client, b"d\n") == b"4 d\n"
        await client.aclose()
        assert await daemon.wait_exited() == 0


async def test_where_the_manager_gives_them_up_connections_end_with_serve(kit: Kit) -> None:
    async def main() -> None:
        await activation.serve(count, durable=True, drain_timeout=0)
        await kit.wait()

    async with activated(main, {"main": "unix"}, store=4) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        daemon._manager.store.clear()
        daemon.send_signal(15)
        with trio.fail_after(LIMIT):
            assert await client.receive_some() == b""
        kit.go()


async def test_another_serve_that_is_not_durable_leaves_it_alone(kit: Kit) -> None:
    async def plain(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def main() -> None:
        listeners = activation.listeners(activation.files())
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(activation.serve, plain, listeners[1:]))
            nursery.start_soon(partial(activation.serve, count, listeners[:1], durable=True))

    async with activated(main, {"main": "unix", "other": "unix"}, store=3) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        await daemon.restart()
        assert await answer(client, b"b\n") == b"2 b\n"
        assert await answer(await daemon.connect("other"), b"a\n") == b"a\n"


async def test_where_it_is_optional_a_handler_gets_a_plain_stream_without_a_store(
    kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        kit.note(isinstance(stream, trio.SocketStream))
        async for data in stream:
            await stream.send_all(data)

    serve = serving(handler, durable=activation.Durable(optional=True))
    async with activated(serve, {"main": "unix"}) as daemon:
        await daemon.ready()
        assert await answer(await daemon.connect("main"), b"a\n") == b"a\n"
        assert kit.notes == [(True,)]
        assert "durable:" not in caplog.text


@pytest.mark.parametrize("store", [0, 2])
async def test_without_room_in_a_store_it_serves_as_always_and_says_so(
    store: int, kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    async with activated(serving(count), {"main": "unix"}, store=store) as daemon:
        await daemon.ready()
        assert daemon.stored == []
        (said,) = [record.getMessage() for record in caplog.records if "durable:" in record.getMessage()]
        assert "kept" in said
        assert "FileDescriptorStoreMax=4 or more" in said
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        daemon.send_signal(15)
        await daemon.wait_told("STOPPING=1")
        assert await answer(client, b"b\n") == b"2 b\n"  # as without durable, a connection has its time to finish
        await client.aclose()
        assert await daemon.wait_exited() == 0


async def test_clients_above_the_limit_wait(kit: Kit) -> None:
    async with kit.running(count, durable=activation.Durable(connections=2)) as daemon:
        first, second, third = [await daemon.connect("main") for _ in range(3)]
        assert await answer(first, b"a\n") == b"1 a\n"
        assert await answer(second, b"b\n") == b"1 b\n"
        await third.send_all(b"c\n")
        with trio.move_on_after(0.1) as waited:
            await third.receive_some()
        assert waited.cancelled_caught
        await daemon.restart()
        await first.aclose()
        assert await line(third) == b"1 c\n"


async def test_a_place_that_becomes_free_is_for_whoever_waits_on_any_listener(kit: Kit) -> None:
    serve = serving(count, durable=activation.Durable(connections=1))
    async with activated(serve, {"main": "unix", "other": "unix"}, store=3) as daemon:
        await daemon.ready()
        for _ in range(5):
            for name in ("main", "other", "other", "main"):
                client = await daemon.connect(name)
                assert await answer(client, b"a\n") == b"1 a\n"
                await client.aclose()


CROWDED = """
import logging, os, random, resource, socket, trio, activation, activation._durable, activation._durable_options
from functools import partial

class Telling(logging.Handler):
    def emit(self, record):
        activation.notify("X_WAITS=1") if "Too many references" in record.getMessage() else None

logging.getLogger().addHandler(Telling())
resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))
if not os.geteuid():
    os.setuid(random.randrange(1 << 20, 1 << 30))  # the kernel counts descriptors in messages for each user
others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

async def count(stream):
    while line := await stream.receive_until(b"\\n"):
        if line == b"crowd\\n":
            try:
                while True:
                    socket.send_fds(others[0], [b"."], [0])
            except OSError:
                pass
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)

trio.run(partial(activation.serve, count, durable=True))
"""


async def test_where_no_connection_can_be_held_any_more_clients_wait_for_the_next_start() -> None:
    async with activated([sys.executable, "-c", CROWDED], {"main": "unix"}, store=4) as daemon:
        await daemon.ready()
        first = await daemon.connect("main")
        assert await answer(first, b"crowd\n") == b"1 crowd\n"
        second, third, fourth = [await daemon.connect("main") for _ in range(3)]
        assert await answer(second, b"a\n") == b"1 a\n"
        await daemon.wait_told("X_WAITS=1")
        assert await answer(second, b"b\n") == b"2 b\n"
        await daemon.restart()
        for client in (third, fourth):
            assert await answer(client, b"a\n") == b"1 a\n"
        assert await answer(second, b"c\n") == b"3 c\n"
        assert await answer(first, b"d\n") == b"2 d\n"


async def test_what_is_stored_and_was_not_passed_takes_no_room(kit: Kit) -> None:
    """As where a program has replaced itself by execve(2)."""

    async def main() -> None:
        if kit.wants_durable:
            kit.wants_durable = False
            for number in range(4):
                memfd = os.memfd_create("stray")
                activation.store("activation.connections" + ".watch" * (number == 3), memfd)
                os.close(memfd)
        await activation.serve(count, durable=True)

    async with activated(main, {"main": "unix"}, store=4) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        await daemon.restart()
        assert await answer(client, b"b\n") == b"2 b\n"


# From one version of a program to the next


async def test_other_sizes_are_for_new_connections(kit: Kit) -> None:
    sizes = [activation.Durable(state=10, output=300), activation.Durable(state=1000), activation.Durable(state=10)]

    async def main() -> None:
        await activation.serve(handler, durable=sizes[len(kit.notes) // 2])

    async def handler(stream: DurableStream) -> None:
        while await stream.receive_until(b"\n"):
            try:
                stream.state = bytes(500)
            except ValueError:
                stream.state = bytes(5)
            await stream.send_all(b"%d\n" % len(stream.state))

    async with activated(main, {"main": "unix"}, store=3) as daemon:
        await daemon.ready()
        old = await daemon.connect("main")
        assert await answer(old, b"\n") == b"5\n"
        kit.notes += [()] * 2
        await daemon.restart()
        new = await daemon.connect("main")
        assert await answer(new, b"\n") == b"500\n"
        assert await answer(old, b"\n") == b"5\n"
        kit.notes += [()] * 2
        await daemon.restart()
        newest = await daemon.connect("main")
        for client, size in ((old, b"5\n"), (new, b"500\n"), (newest, b"5\n")):
            assert await answer(client, b"\n") == size


async def test_a_layout_of_another_version_is_refused_and_its_connections_end(
    kit: Kit, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kit.running(count) as daemon:
        old = await daemon.connect("main")
        assert await answer(old, b"a\n") == b"1 a\n"
        monkeypatch.setattr("activation._durable_memory.LAYOUT", 99)
        await daemon.restart()
        assert "has layout 1, and this version reads layout 99 only; the connections" in caplog.text
        assert await old.receive_some() == b""
        new = await daemon.connect("main")
        assert await answer(new, b"a\n") == b"1 a\n"
        await daemon.restart()
        assert await answer(new, b"b\n") == b"2 b\n"


async def shout(stream: DurableStream) -> None:
    while line := await stream.receive_until(b"\n"):
        await stream.send_all(line.upper())


@pytest.mark.parametrize(
    ("handlers", "main", "other"),
    [
        ({"main": count, "other": shout}, b"2 b\n", b"B\n"),
        ({"main": shout, "*": count}, b"B\n", b"2 b\n"),
        (count, b"2 b\n", b"2 b\n"),
    ],
)
async def test_a_connection_finds_the_handler_of_its_name_in_the_next_version(
    kit: Kit, handlers: Any, main: bytes, other: bytes
) -> None:
    async def version() -> None:
        await activation.serve({"main": count, "other": count} if kit.wants_durable else handlers, durable=True)

    async with activated(version, {"main": "unix", "other": "unix"}, store=3) as daemon:
        await daemon.ready()
        clients = [await daemon.connect(name) for name in ("main", "other")]
        for client in clients:
            assert await answer(client, b"a\n") == b"1 a\n"
        kit.wants_durable = False
        await daemon.restart()
        assert [await answer(client, b"b\n") for client in clients] == [main, other]


async def test_a_connection_whose_handler_is_gone_ends(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    async def version() -> None:
        await activation.serve(shout if kit.wants_durable else {"main": count}, durable=True)

    async with activated(version, {"main": "unix"}, store=3) as daemon:
        await daemon.ready()
        clients = [await daemon.connect("main") for _ in range(3)]
        for client in clients:
            assert await answer(client, b"a\n") == b"A\n"
        kit.wants_durable = False
        await daemon.restart()
        for client in clients:
            assert await client.receive_some() == b""
        assert caplog.text.count("no handler is called '' any more; its 3 connections end") == 1
        assert await answer(await daemon.connect("main"), b"a\n") == b"1 a\n"


async def test_any_callable_can_be_the_handler(kit: Kit) -> None:
    class Counting:
        __hash__ = None  # type: ignore[assignment]

        async def __call__(self, stream: DurableStream) -> None:
            await count(stream)

    async with kit.running(Counting()) as daemon:
        client = await daemon.connect("main")
        assert await answer(client, b"a\n") == b"1 a\n"
        await daemon.restart()
        assert await answer(client, b"b\n") == b"2 b\n"


HEAD = struct.Struct("=8sIB3xQ")
SEGMENT = struct.Struct("=QQIIII")


@pytest.mark.parametrize(
    "what",
    [
        *(b"", b"x", bytes(5000), HEAD.pack(b"ACTDURBL", 0, 0, 0), HEAD.pack(b"ACTDURBL", 2, 0, 0)),
        HEAD.pack(b"ACTDURBL", 1, 1, 0),
        HEAD.pack(b"ACTDURBL", 1, 255, 0) + bytes(10_000),
        *(
            HEAD.pack(b"ACTDURBL", 1, 1, 0).ljust(64, b"\0") + SEGMENT.pack(*fields) + bytes(20_000)
            for fields in (
                *((4096, 8192, 1, 1 << 20, 1, 1), (0, 8192, 1, 1, 1, 1), (4096, 4096, 1, 1, 1, 1)),
                *((4096, 8193, 1, 1, 1, 1), (1 << 63, 1 << 63, 1, 1, 1, 1), (4096, 8192, 1 << 31, 1, 1, 1)),
            )
        ),
    ],
)
async def test_memory_that_this_version_did_not_write_is_refused_and_its_connections_end(
    kit: Kit, caplog: pytest.LogCaptureFixture, what: bytes
) -> None:
    async with kit.running(count) as daemon:
        old = await daemon.connect("main")
        assert await answer(old, b"a\n") == b"1 a\n"
        daemon.send_signal(15)
        await daemon.wait_exited()
        store = daemon._manager.store
        ends = [os.dup(fd) for _, fd in store.files() if stat.S_ISSOCK(os.fstat(fd).st_mode)]
        store.clear()
        memfd = os.memfd_create("other")
        os.write(memfd, what)
        store.add([memfd, *ends], "activation.connections")
        await daemon.start()
        assert await old.receive_some() == b""
        assert "; the connections of the earlier start are closed" in caplog.text
        new = await daemon.connect("main")
        assert await answer(new, b"a\n") == b"1 a\n"
        await daemon.crash()
        assert await answer(new, b"b\n") == b"2 b\n"


async def test_sockets_that_are_no_queue_are_refused(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    async with kit.running(count) as daemon:
        daemon.send_signal(15)
        await daemon.wait_exited()
        store = daemon._manager.store
        (memfd,) = (os.dup(fd) for _, fd in store.files() if stat.S_ISREG(os.fstat(fd).st_mode))
        store.clear()
        one, other = socket.socketpair()
        store.add([memfd, one.detach(), other.detach()], "activation.connections")
        await daemon.start()
        assert "of which 1 are memfds and 0 sockets of sequential packets" in caplog.text
        assert await answer(await daemon.connect("main"), b"a\n") == b"1 a\n"


async def test_the_memory_of_many_clients_is_given_back_at_the_next_start(kit: Kit) -> None:
    def memory(daemon: Daemon) -> int:
        (size,) = (os.fstat(fd).st_blocks for _, fd in daemon._manager.store.files() if os.fstat(fd).st_blocks)
        return size * 512

    async with kit.running(count) as daemon:
        clients = [await daemon.connect("main") for _ in range(60)]
        for client in clients:
            assert await answer(client, b"a\n") == b"1 a\n"
        assert memory(daemon) >= 60 * 4096
        for client in clients[3:]:
            await client.aclose()
        await daemon.wait_status("3 connections open")
        await daemon.restart()
        for client in clients[:3]:
            assert await answer(client, b"b\n") == b"2 b\n"
        assert memory(daemon) < 20 * 4096


async def test_the_one_that_watches_the_manager_keeps_its_place_in_the_store(kit: Kit) -> None:
    async with activated(serving(count), {"main": "unix"}, store=4) as daemon:
        await daemon.ready()
        client = await daemon.connect("main")
        for number in range(1, 4):
            assert await answer(client, b"a\n") == b"%d a\n" % number
            before = {os.fstat(fd).st_ino for _, fd in daemon._manager.store.files()}
            await daemon.restart()
            assert {os.fstat(fd).st_ino for _, fd in daemon._manager.store.files()} == before
        daemon._manager.store.clear()
        daemon.send_signal(15)
        await daemon.wait_told("STOPPING=1")
        assert await answer(client, b"b\n") == b"4 b\n"  # it was told that nobody keeps the connection
        await client.aclose()
        assert await daemon.wait_exited() == 0


@pytest.mark.parametrize(("limit", "size"), [("RLIMIT_AS", 1 << 32), ("RLIMIT_FSIZE", 1 << 20)])
def test_limits_without_room_for_its_memory_are_told(limit: str, size: int) -> None:
    code = f"""
import resource, trio, activation
async def main():
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    resource.setrlimit(resource.{limit}, ({size}, {size}))
    await activation.serve(print, listeners, durable=True)
trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=LIMIT, text=True)
    assert done.returncode == 1
    assert "there is no room for the memory of 16384 durable connections" in done.stderr.splitlines()[-1]
    assert f"{limit.replace('RLIMIT_', 'Limit')}=" in done.stderr.splitlines()[-1]
    assert "activation.Durable(connections=..." in done.stderr.splitlines()[-1]


async def test_a_start_that_is_not_durable_ends_what_was(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        if kit.wants_durable:
            await activation.serve(count, durable=True)
        else:
            await activation.serve(plain)

    async def plain(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async with activated(main, {"main": "unix"}, store=3) as daemon:
        await daemon.ready()
        old = await daemon.connect("main")
        assert await answer(old, b"a\n") == b"1 a\n"
        kit.wants_durable = False
        await daemon.restart()
        assert await old.receive_some() == b""
        assert daemon.stored == []
        assert "without durable=True" in caplog.text
        assert await answer(await daemon.connect("main"), b"a\n") == b"a\n"


async def test_a_start_that_is_not_durable_ends_what_was_also_with_listeners_of_its_own(
    kit: Kit, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activation._durable_serving.PATIENCE", 0.1)

    async def main() -> None:
        listeners = activation.listeners(activation.files())
        if kit.wants_durable:
            await activation.serve(count, listeners, durable=True)
        else:
            await activation.serve(plain, listeners)

    async def plain(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async with activated(main, {"main": "unix"}, store=4) as daemon:
        await daemon.ready()
        old = await daemon.connect("main")
        assert await answer(old, b"a\n") == b"1 a\n"
        kit.wants_durable = False
        await daemon.restart()
        assert await old.receive_some() == b""
        assert daemon.stored == []
        assert "without durable=True" in caplog.text


async def test_what_the_store_has_lost_a_part_of_is_refused(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await activation.serve(count, durable=True)

    async with activated(main, {"main": "unix"}, store=5) as daemon:
        await daemon.ready()
        old = await daemon.connect("main")
        assert await answer(old, b"a\n") == b"1 a\n"
        store = daemon._manager.store
        store.add([os.memfd_create("stray")], "activation.connections")
        await daemon.restart()
        assert "gave back 4 descriptors, of which 2 are memfds and 2 sockets" in caplog.text
        assert await old.receive_some() == b""
        assert await answer(await daemon.connect("main"), b"a\n") == b"1 a\n"
        assert sorted(daemon.stored) == ["activation.connections"] * 3 + ["activation.connections.watch"]


FORKING = """
import os, sys, signal, outcome, trio, activation
from functools import partial

def refused(coroutine):
    coroutine.send(None)  # to its checkpoint
    try:
        coroutine.send(outcome.Value(None))
    except RuntimeError as error:
        assert "child forked" in str(error)
        return True

async def handle(stream):
    while line := await stream.receive_until(b"\\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)
        if line == b"fork\\n":
            reading, writing = os.pipe()
            if not os.fork():
                stream.state = b"100"
                os.write(writing, b"ok" if refused(stream.commit()) else b"committed")
                signal.pause()  # with copies of all descriptors
                os._exit(0)
            assert os.read(reading, 9) == b"ok"
        if line == b"end\\n":
            return
trio.run(partial(activation.serve, handle, durable=True))
"""


async def test_a_forked_child_changes_nothing_and_keeps_nothing_open() -> None:
    async with activated([sys.executable, "-c", FORKING], {"main": "unix"}, store=3) as daemon:
        await daemon.ready()
        other = await daemon.connect("main")
        assert await answer(other, b"a\n") == b"1 a\n"
        client = await daemon.connect("main")
        assert await answer(client, b"fork\n") == b"1 fork\n"
        assert await answer(client, b"b\n") == b"2 b\n"
        await daemon.crash()
        assert await answer(client, b"end\n") == b"3 end\n"
        assert await client.receive_some() == b""
        assert await answer(other, b"b\n") == b"2 b\n"
