"""How a daemon is told to stop, and what its program does about it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import activation
from activation._life import ONE_STOP
from tests.children import no_leak
from tests.commands import LIMIT

from .serving import SpecialError, echo, echoes, passes, refused, serving

if TYPE_CHECKING:
    from .serving import Manager

pytestmark = pytest.mark.usefixtures("no_manager")


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
        assert 0.2 <= trio.current_time() - began < 25  # by default it would be 30
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
        await trio.sleep(ONE_STOP + 0.05)
        assert await echoes(stream)
        os.kill(os.getpid(), signal.SIGINT)
        await daemon.end()


async def test_signals_within_a_moment_of_the_first_are_the_same_stop(mock_clock: trio.testing.MockClock) -> None:
    async with serving(drain_timeout=1000) as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            await trio.testing.wait_all_tasks_blocked(0.001)
        await passes(mock_clock, ONE_STOP)
        assert await echoes(stream)
        assert not daemon.ended.is_set()
        await stream.send_eof()
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


@pytest.mark.parametrize("order", ["receiver first", "receiver second"])
async def test_a_signal_receiver_of_the_program_hears_it_too(order: str) -> None:
    async with AsyncExitStack() as stack:
        if order == "receiver first":
            received = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM))
        daemon = await stack.enter_async_context(serving())
        if order == "receiver second":
            received = stack.enter_context(trio.open_signal_receiver(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon.end()
        with trio.fail_after(LIMIT):
            assert await anext(aiter(received)) == signal.SIGTERM


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on, where there are threads
@pytest.mark.parametrize("how", ["in the loop", "in a thread"])
async def test_a_forked_child_ends_by_a_signal_and_the_parent_goes_on(manager: Manager, how: str) -> None:
    # A handler in Python that a test before this one has left would run only once the child's sleep is over, if the
    # signal comes right before that.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    async with serving(drain_timeout=1000) as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        manager.heard()
        for number in (signal.SIGTERM, signal.SIGHUP) * 20:
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
            if how == "in the loop":
                child.start()
            else:
                await trio.to_thread.run_sync(child.start)
            assert child.pid
            os.kill(child.pid, number)  # at once, while the child still has the parent's handlers
            await trio.to_thread.run_sync(child.join, LIMIT)
            if child.exitcode is None:
                child.kill()
            assert child.exitcode == -number
            child.close()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await echoes(stream)
        assert not [line for line in manager.heard() if not line.startswith("STATUS=")]
        os.kill(os.getpid(), signal.SIGTERM)
        await manager.hear("STOPPING=1")
        await stream.send_eof()
        await daemon.end()


# stop()


async def test_stop_does_what_a_signal_does_and_once_more_does_nothing(manager: Manager) -> None:
    async with serving(drain_timeout=1000) as daemon:
        async with await daemon.connect() as stream:
            assert await echoes(stream)
            manager.heard()
            activation.stop()
            assert "STOPPING=1" in manager.heard()
            await trio.testing.wait_all_tasks_blocked()
            assert await refused(daemon.port)
            activation.stop()
            assert manager.heard() == []
            assert await echoes(stream)
        await daemon.end()
    activation.stop()


async def test_a_handler_may_stop_its_daemon_and_go_on() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        activation.stop()
        await echo(stream)

    async with serving(handler) as daemon:
        async with await daemon.connect() as stream:
            assert await echoes(stream)
            assert await echoes(stream)
        await daemon.end()


async def test_stop_reaches_it_from_a_thread() -> None:
    async with serving() as daemon:
        await trio.to_thread.run_sync(trio.from_thread.run_sync, activation.stop)
        await daemon.end()


async def test_stop_reaches_every_serve_of_the_process() -> None:
    async with serving() as one, serving(idle_timeout=1000) as two:
        activation.stop()
        await one.end()
        await two.end()


async def test_a_stop_before_it_begins_ends_it_at_once_and_the_next_one_lives(manager: Manager) -> None:
    activation.stop()
    activation.stop()
    async with serving() as daemon:
        await daemon.end()
        assert "READY=1" not in manager.heard()
    async with serving() as daemon, await daemon.connect() as stream:
        assert await echoes(stream)
        assert "READY=1" in manager.heard()


async def test_one_that_begins_while_another_drains_leaves_at_once() -> None:
    async with serving() as draining, await draining.connect() as stream:
        assert await echoes(stream)
        activation.stop()
        async with serving() as late:
            await late.end()
        assert await echoes(stream)


def test_outside_of_trio_it_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        activation.stop()


# until_stopping()


@pytest.mark.parametrize("how", ["stop", "a signal", "the idle clock"])
async def test_what_is_in_the_block_is_cancelled_when_it_is_told_to_stop(how: str) -> None:
    ended: list[str] = []

    async def wait(name: str) -> None:
        with activation.until_stopping() as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        ended.append(name)

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "before it serves")
            await trio.testing.wait_all_tasks_blocked()
            async with serving(idle_timeout=0.05 if how == "the idle clock" else 1000) as daemon:
                nursery.start_soon(wait, "meanwhile")
                await trio.testing.wait_all_tasks_blocked(0.001)
                if how == "stop":
                    activation.stop()
                elif how == "a signal":
                    os.kill(os.getpid(), signal.SIGTERM)
                await daemon.end()
                nursery.start_soon(wait, "afterwards")
    assert sorted(ended) == ["afterwards", "before it serves", "meanwhile"]


async def test_where_nothing_serves_the_block_is_not_cancelled() -> None:
    with activation.until_stopping() as scope:
        await trio.testing.wait_all_tasks_blocked()
    assert not scope.cancelled_caught


async def test_being_cancelled_is_not_being_told() -> None:
    with activation.until_stopping() as scope:
        async with serving():
            pass
        await trio.testing.wait_all_tasks_blocked()
    assert not scope.cancel_called


async def test_a_handler_says_goodbye() -> None:
    async def chat(stream: trio.SocketStream) -> None:
        with activation.until_stopping():
            await echo(stream)
        await stream.send_all(b"goodbye")

    async with serving(chat) as daemon:
        streams = [await daemon.connect() for _ in range(20)]
        for stream in streams:
            assert await echoes(stream)
        os.kill(os.getpid(), signal.SIGTERM)
        for stream in streams:
            assert b"".join([data async for data in stream]) == b"goodbye"
            await stream.aclose()
        await daemon.end()


async def test_what_was_received_when_it_is_told_is_not_lost() -> None:
    sender, receiver = trio.open_memory_channel[int](0)
    got = []

    async def loop() -> None:
        while True:
            with activation.until_stopping() as scope:
                got.append(await receiver.receive())
            if scope.cancelled_caught:
                return

    with trio.fail_after(LIMIT):
        async with serving() as daemon, trio.open_nursery() as nursery:
            nursery.start_soon(loop)
            await trio.testing.wait_all_tasks_blocked()
            sender.send_nowait(1)
            activation.stop()
            await daemon.end()
    assert got == [1]


# busy()


async def test_busy_keeps_the_idle_clock_from_running(mock_clock: trio.testing.MockClock) -> None:
    async with serving(idle_timeout=0.05) as daemon:
        with activation.busy():
            await passes(mock_clock, 0.2)
            with activation.busy():
                pass
            await passes(mock_clock, 0.2)
            assert not daemon.ended.is_set()
        await passes(mock_clock, 0.04)
        assert not daemon.ended.is_set()
        await passes(mock_clock, 0.02)
        await daemon.end()


@pytest.mark.parametrize("ends", ["in time", "too late"])
async def test_busy_work_is_waited_for_in_the_drain(ends: str) -> None:
    async with serving(drain_timeout=1000 if ends == "in time" else 0.2) as daemon:
        with activation.busy():
            activation.stop()
            if ends == "in time":
                await trio.sleep(0.2)
                assert not daemon.ended.is_set()
            else:
                await daemon.end()
        await daemon.end()


async def test_busy_work_is_cut_by_a_second_signal() -> None:
    async with serving(drain_timeout=1000) as daemon:
        with activation.busy():
            activation.stop()
            await trio.sleep(ONE_STOP + 0.05)
            os.kill(os.getpid(), signal.SIGTERM)
            await daemon.end()


async def test_busy_may_be_left_in_another_task_so_no_queued_job_is_lost() -> None:
    sender, receiver = trio.open_memory_channel[ExitStack](1000)
    done = 0

    async def enqueue(stream: trio.SocketStream) -> None:
        async for _ in stream:
            job = ExitStack()
            job.enter_context(activation.busy())
            sender.send_nowait(job)
            await stream.send_all(b"!")

    async def work() -> None:
        nonlocal done
        async for job in receiver:
            with job:
                await trio.sleep(0.05)
                done += 1

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            async with serving(enqueue, idle_timeout=0.5) as daemon:
                async with await daemon.connect() as stream:
                    for _ in range(20):
                        await stream.send_all(b"job")
                        assert await stream.receive_some() == b"!"
                await daemon.end()
                assert done == 20
            nursery.cancel_scope.cancel()


async def test_without_a_handler_busy_work_is_what_the_idle_clock_waits_for() -> None:
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            with activation.busy():
                nursery.start_soon(partial(activation.serve, None, idle_timeout=0.05))
                await trio.sleep(0.2)
                assert nursery.child_tasks
