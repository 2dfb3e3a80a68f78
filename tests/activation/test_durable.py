"""Durable connections in the life of a daemon: what a handler and its clients see over restarts and crashes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import activation
from activation.testing import activated

from .durable_kit import Kit, answer, count, line, serving

if TYPE_CHECKING:
    from activation import DurableStream

COUNTER = """
import sys, trio, activation
from functools import partial
async def count(stream):
    while line := await stream.receive_until(b"\\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)
trio.run(partial(activation.serve, count, durable=True))
"""


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
