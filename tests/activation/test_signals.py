"""How a daemon hears signals beside whoever else wants them, and how a forked child does not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from activation._signals import Signals
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBER = signal.SIGUSR1


@pytest.fixture
def before() -> Iterator[list[int]]:
    """What the handler of before has got."""
    got: list[int] = []
    own = signal.signal(NUMBER, lambda number, _: got.append(number))
    yield got
    signal.signal(NUMBER, own)


@contextmanager
def hearing(*numbers: int) -> Iterator[Signals]:
    signals = Signals()
    signals.hear(*(numbers or (NUMBER,)))
    try:
        yield signals
    finally:
        signals.end()


def kill(number: int = NUMBER) -> None:
    os.kill(os.getpid(), number)


async def test_a_signal_is_heard_and_the_handler_of_before_does_not_get_it(before: list[int]) -> None:
    with hearing() as signals, trio.fail_after(LIMIT):
        signals.hear(signal.SIGUSR2)
        for number in (NUMBER, signal.SIGUSR2, NUMBER):
            kill(number)
            assert await signals.next() == number
    assert before == []
    kill()
    assert before == [NUMBER]


async def test_several_signals_come_in_their_order(before: list[int]) -> None:
    numbers = [signal.SIGUSR2, NUMBER, signal.SIGUSR2, NUMBER, NUMBER]
    with hearing(NUMBER, signal.SIGUSR2) as signals, trio.fail_after(LIMIT):
        for number in numbers:
            kill(number)
        assert [await signals.next() for _ in numbers] == numbers


async def test_a_signal_that_was_not_taken_is_the_handlers_of_before(before: list[int]) -> None:
    with hearing(NUMBER, signal.SIGUSR2) as signals, trio.fail_after(LIMIT):
        kill(signal.SIGUSR2)
        kill()
        assert await signals.next() == signal.SIGUSR2
        assert before == []
    assert before == [NUMBER]


async def test_a_signal_that_comes_right_before_the_end_is_not_lost(before: list[int]) -> None:
    with hearing():
        kill()
    assert before == [NUMBER]


async def test_a_signal_that_is_taken_care_of_does_not_come_again(before: list[int]) -> None:
    with hearing() as signals:
        kill()
        signals.end(taken={NUMBER})
    assert before == []


@pytest.mark.parametrize("order", ["receiver first", "receiver second"])
async def test_a_receiver_of_the_program_hears_it_too(before: list[int], order: str) -> None:
    async def both_hear(signals: Signals, received: object) -> None:
        with trio.fail_after(LIMIT):
            for _ in range(3):
                kill()
                assert await signals.next() == NUMBER
                assert await anext(received) == NUMBER  # type: ignore[call-overload]

    if order == "receiver first":
        with trio.open_signal_receiver(NUMBER) as received:
            with hearing() as signals:
                await both_hear(signals, received)
            kill()
            with trio.fail_after(LIMIT):
                assert await anext(aiter(received)) == NUMBER
    else:
        with hearing() as signals:
            with trio.open_signal_receiver(NUMBER) as received:
                await both_hear(signals, received)
            kill()
            with trio.fail_after(LIMIT):
                assert await signals.next() == NUMBER
    assert before == []
    kill()
    assert before == [NUMBER]


async def test_a_receiver_that_outlives_the_daemon_leaves_the_handler_of_before(before: list[int]) -> None:
    with hearing():
        receiver = trio.open_signal_receiver(NUMBER)
        received = receiver.__enter__()
    kill()
    with trio.fail_after(LIMIT):
        assert await anext(aiter(received)) == NUMBER
    receiver.__exit__(None, None, None)
    assert before == []
    kill()
    assert before == [NUMBER]
    kill()
    assert before == [NUMBER, NUMBER]


async def test_the_handler_of_before_is_back_as_soon_as_such_a_receiver_is_gone(before: list[int]) -> None:
    handler = signal.getsignal(NUMBER)
    with hearing():
        receiver = trio.open_signal_receiver(NUMBER)
        receiver.__enter__()
    await wait_all_tasks_blocked()
    receiver.__exit__(None, None, None)
    await wait_all_tasks_blocked()
    assert signal.getsignal(NUMBER) is handler


def test_it_is_back_at_the_end_of_the_loop_at_the_latest(before: list[int]) -> None:
    handler = signal.getsignal(NUMBER)

    async def main() -> None:
        with hearing():
            receiver = trio.open_signal_receiver(NUMBER)
            receiver.__enter__()
        receiver.__exit__(None, None, None)

    trio.run(main)
    assert signal.getsignal(NUMBER) is handler


async def test_the_next_daemon_hears_what_such_a_receiver_leaves(before: list[int]) -> None:
    with hearing():
        receiver = trio.open_signal_receiver(NUMBER)
        receiver.__enter__()
    for turns in (True, False):
        with hearing() as signals:
            receiver.__exit__(None, None, None)
            if turns:
                await wait_all_tasks_blocked()
            else:
                signals.end()
                signals.hear(NUMBER)
            kill()
            with trio.fail_after(LIMIT):
                assert await signals.next() == NUMBER
            receiver = trio.open_signal_receiver(NUMBER)
            receiver.__enter__()
    receiver.__exit__(None, None, None)
    await wait_all_tasks_blocked()
    assert before == []
    kill()
    assert before == [NUMBER]


async def test_a_receiver_that_was_there_first_and_ends_first_leaves_the_signal_to_the_daemon(
    before: list[int],
) -> None:
    receiver = trio.open_signal_receiver(NUMBER)
    receiver.__enter__()
    with hearing() as signals:
        receiver.__exit__(None, None, None)
        await wait_all_tasks_blocked()
        kill()
        with trio.fail_after(LIMIT):
            assert await signals.next() == NUMBER
        assert before == []
    kill()
    assert before == [NUMBER]


FOREIGN = """
#include <signal.h>
static void handle(int number) { (void)number; }
__attribute__((constructor)) static void begin(void) { signal(SIGTERM, handle); }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_handler_that_is_not_pythons_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "foreign.c").write_text(FOREIGN)
    library = str(tmp_path / "foreign.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(tmp_path / "foreign.c")], check=True)
    program = (
        "import activation, os, signal, trio\n"
        "assert signal.getsignal(signal.SIGTERM) is None\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(activation.serve, None)\n"
        "        await trio.testing.wait_all_tasks_blocked()\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "trio.run(main)\n"
        "print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import trio.testing\n{program}"],
        env={**os.environ, "LD_PRELOAD": library},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


async def test_what_came_goes_on_to_the_descriptor_of_before(before: list[int]) -> None:
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    reading.settimeout(LIMIT)
    trios = signal.set_wakeup_fd(writing.fileno())
    try:
        with hearing() as signals, trio.fail_after(LIMIT):
            kill()
            assert await signals.next() == NUMBER
            assert reading.recv(10) == bytes([NUMBER])
        kill()
        assert reading.recv(10) == bytes([NUMBER])
    finally:
        signal.set_wakeup_fd(trios)
        reading.close()
        writing.close()


def test_in_another_thread_there_is_nothing_to_hear(before: list[int]) -> None:
    async def hear() -> None:
        with hearing() as signals:
            kill()
            with trio.move_on_after(0.05):
                await signals.next()
                raise AssertionError

    thread = threading.Thread(target=trio.run, args=(hear,))
    thread.start()
    thread.join()
    assert before == [NUMBER]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on, where there are threads
@pytest.mark.parametrize("forks", ["the loop's thread", "another thread"])
async def test_a_forked_child_has_the_handlers_of_before_and_the_parent_hears_nothing(
    before: list[int], forks: str
) -> None:
    def child() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                kill()
                os._exit(0 if before == [NUMBER] and signal.set_wakeup_fd(-1) == -1 else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    with hearing() as signals, trio.fail_after(LIMIT):
        if forks == "another thread":
            assert await trio.to_thread.run_sync(child) == 0
        else:
            assert child() == 0
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.05):
            await signals.next()
            raise AssertionError
        kill()
        assert await signals.next() == NUMBER
    assert before == []
