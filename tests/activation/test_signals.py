from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from activation._signals import hear_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = signal.SIGUSR1


@pytest.fixture
def before() -> Iterator[list[int]]:
    """What the handler of before has got."""
    got: list[int] = []
    own = signal.signal(NUMBER, lambda number, _: got.append(number))
    yield got
    signal.signal(NUMBER, own)


async def test_every_hearer_gets_a_signal_and_the_handler_of_before_does_not(before: list[int]) -> None:
    with hear_signals(NUMBER) as one, hear_signals(NUMBER, signal.SIGUSR2) as two:
        os.kill(os.getpid(), NUMBER)
        with trio.fail_after(10):
            assert [await one.next(), await two.next()] == [NUMBER, NUMBER]
    assert before == []
    os.kill(os.getpid(), NUMBER)
    assert before == [NUMBER]


async def test_hearers_may_end_in_any_order(before: list[int]) -> None:
    one, two = hear_signals(NUMBER), hear_signals(NUMBER)
    one.__enter__()
    second = two.__enter__()
    one.__exit__(None, None, None)
    os.kill(os.getpid(), NUMBER)
    with trio.fail_after(10):
        assert await second.next() == NUMBER
    two.__exit__(None, None, None)
    assert before == []
    os.kill(os.getpid(), NUMBER)
    assert before == [NUMBER]


async def test_a_signal_that_was_not_taken_is_the_handlers_of_before(before: list[int]) -> None:
    with hear_signals(NUMBER) as hearing:
        os.kill(os.getpid(), NUMBER)
        await trio.testing.wait_all_tasks_blocked()
        assert hearing.came == [NUMBER]
        assert before == []
    assert before == [NUMBER]


async def test_a_signal_that_comes_while_the_last_one_leaves_is_not_lost(before: list[int]) -> None:
    with hear_signals(NUMBER):
        os.kill(os.getpid(), NUMBER)
    await trio.testing.wait_all_tasks_blocked()
    assert before == [NUMBER]


async def test_what_one_left_and_another_took_does_not_come_again(before: list[int]) -> None:
    with hear_signals(NUMBER) as stays:
        with hear_signals(NUMBER):
            os.kill(os.getpid(), NUMBER)
            await trio.testing.wait_all_tasks_blocked()
        assert await stays.next() == NUMBER
        await trio.testing.wait_all_tasks_blocked()
        assert stays.came == []
    assert before == []


def test_in_another_thread_there_is_nothing_to_hear(before: list[int]) -> None:
    async def hear() -> None:
        with hear_signals(NUMBER) as hearing:
            os.kill(os.getpid(), NUMBER)
            with trio.move_on_after(0.05):
                await hearing.next()
            assert hearing.came == []

    thread = threading.Thread(target=trio.run, args=(hear,))
    thread.start()
    thread.join()
    assert before == [NUMBER]
