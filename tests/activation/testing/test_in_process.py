"""A daemon that is a function: alone in its surroundings, and dead after a crash."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import resource
import signal
import socket
import sqlite3
from pathlib import Path

import pytest
import trio
import trio.testing

import activation
from activation.testing import activated
from tests.activation.testing import daemons
from tests.children import no_leak
from tests.commands import LIMIT

# Surroundings


async def test_tasks_and_threads_of_the_daemon_find_what_it_was_passed_and_the_test_does_not() -> None:
    found: dict[str, list[str]] = {}

    def look(who: str) -> None:
        found[who] = [file.name for file in activation.files(unset_env=False)]

    async def look_in_a_task() -> None:
        look("task")
        await trio.to_thread.run_sync(look, "thread")

    async def daemon() -> None:
        look("daemon")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_in_a_task)
        for file in activation.files():
            file.close()
        look("daemon, again")
        activation.notify("READY=1")

    async with activated(daemon, {"a": "unix", "b": "udp"}) as running:
        assert await running.wait_exited() == 0
        look("test")
    assert found == {
        "daemon": ["a", "b"],
        "task": ["a", "b"],
        "thread": ["a", "b"],
        "daemon, again": [],
        "test": [],
    }


async def test_nothing_of_the_process_is_touched() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    environ = dict(os.environ)
    async with activated(daemons.echoing, {"a": "unix"}, watchdog=1, store=1) as daemon:
        await daemon.ready()
        assert [signal.getsignal(number) for number in numbers] == handlers
        assert dict(os.environ) == environ
        assert not activation.notify("READY=1")
        await daemon.stop()


async def test_side_by_side_none_hears_or_counts_for_another() -> None:
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(activated(daemons.echoing, {"a": "tcp"})) for _ in range(5)]
        for daemon in running:
            await daemon.ready()
        client = await running[3].connect("a")
        await running[3].wait_status("1 connection open")
        await running[1].reload()
        assert await running[2].stop() == 0
        await running[0].crash()
        for daemon in (running[0], running[1], running[4]):
            assert daemon.exited is None
            assert daemon.status == "0 connections open"
            assert ("RELOADING=1" in daemon.told) == (daemon is running[1])
        await client.send_all(b"word")
        assert await client.receive_some() == b"word"


async def test_the_variables_of_one_cannot_be_the_others() -> None:
    async with (
        activated(daemons.silent, {}, env={"A": "1"}),
        activated(daemons.silent, {}, env={"A": "1"}),
    ):
        assert os.environ["A"] == "1"
        with pytest.raises(ValueError, match=r"A cannot be '2' for this daemon: another daemon .* has '1'"):
            async with activated(daemons.silent, {}, env={"A": "2"}):
                pass
    assert "A" not in os.environ


async def test_time_can_jump(autojump_clock: trio.testing.MockClock) -> None:
    async def daemon() -> None:
        await activation.serve(daemons.echo, idle_timeout=3600, drain_timeout=600)

    async with activated(daemon, {"a": "unix"}, watchdog=30.0) as running:
        await running.ready()
        client = await running.connect("a")
        await running.wait_status("1 connection open")
        assert await running.stop() == 0  # after ten minutes of drain
        assert await client.receive_some() == b""
        await running.start()
        with pytest.raises(AssertionError, match="the daemon did not end within 30 seconds"):
            await running.wait_exited()
        await trio.sleep(4000)
        assert await running.wait_exited() == 0
    assert running.watchdog_missed == 0
    assert running.told.count("WATCHDOG=1") > 3600 / 30


async def test_time_can_jump_for_a_daemon_that_is_late(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(AssertionError, match=r"the daemon did not tell READY=1 within 30 seconds"):
        async with activated(daemons.never_ready, {"a": "unix"}) as daemon:
            await daemon.ready()


async def test_a_loop_that_is_stuck_misses_the_watchdog() -> None:
    async def stuck() -> None:
        async def handle(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            end = trio.current_time() + 0.3
            while trio.current_time() < end:
                pass
            await stream.send_all(b"done")

        await activation.serve(handle)

    for _ in range(5):  # who runs first then is chance
        with pytest.raises(AssertionError, match=r"missed its watchdog (once|\d+ times): no WATCHDOG=1 within 0.2"):
            async with activated(stuck, {"a": "unix"}, watchdog=0.2) as daemon:
                await daemon.ready()
                client = await daemon.connect("a")
                await client.send_all(b"!")
                assert await client.receive_some() == b"done"
                await daemon.wait_status("0 connections open")


async def test_more_messages_than_a_queue_holds_do_not_block_the_only_loop() -> None:
    with trio.fail_after(LIMIT):

        async def daemon() -> None:
            for number in range(5000):
                activation.notify(f"X_NUMBER={number}")
            assert await activation.notify_barrier(5)
            # From a thread they are read by the loop.
            await trio.to_thread.run_sync(lambda: [activation.notify(f"X_THREAD={number}") for number in range(1000)])
            activation.notify("READY=1")

        async with activated(daemon, {}) as running:
            assert await running.wait_exited() == 0
            numbers = [told for told in running.told if told.startswith("X_NUMBER")]
            assert numbers == [f"X_NUMBER={number}" for number in range(5000)]
            assert len([told for told in running.told if told.startswith("X_THREAD")]) == 1000


async def test_what_is_told_is_there_at_once() -> None:
    async def daemon() -> None:
        for number in range(3):
            activation.notify(f"STATUS={number}")
            seen.append(running.status)
        activation.notify("READY=1")

    seen: list[str | None] = []
    async with activated(daemon, {}) as running:
        await running.wait_exited()
    assert seen == ["0", "1", "2"]


async def test_it_cannot_replace_the_process_of_its_test() -> None:
    async def daemon() -> None:
        activation.exec_process(["/bin/true"], [])

    with pytest.raises(AssertionError) as caught:
        async with activated(daemon, {}) as running:
            await running.ready()
    assert "would replace the process of the test" in str(caught.value.__cause__)


async def test_what_it_logs_is_shown_with_a_complaint(caplog: pytest.LogCaptureFixture) -> None:
    async def daemon() -> None:
        logging.getLogger("mine").warning("it gets\nworse")
        await trio.sleep_forever()

    logging.getLogger("others").warning("not the daemon's")
    with pytest.raises(AssertionError, match=r"last lines:\n    WARNING:mine:it gets\n    worse$"):
        async with activated(daemon, {}, timeout=0.05) as running:
            await running.ready()
    assert "it gets" in caplog.text


async def test_a_signal_that_nobody_hears_has_its_default_effect() -> None:
    async with activated(daemons.echoing, {"a": "unix"}) as daemon:
        await daemon.ready()
        daemon.send_signal(signal.SIGWINCH)
        await trio.testing.wait_all_tasks_blocked()
        assert daemon.exited is None
        daemon.send_signal(signal.SIGUSR1)
        assert await daemon.wait_exited() == -signal.SIGUSR1


async def test_a_second_signal_ends_it_at_once() -> None:
    async def daemon() -> None:
        await activation.serve(daemons.echo, drain_timeout=1000)

    async with activated(daemon, {"a": "unix"}) as running:
        await running.ready()
        client = await running.connect("a")
        await client.send_all(b"!")
        assert await client.receive_some() == b"!"
        running.send_signal(signal.SIGTERM)
        await trio.sleep(0.3)  # sooner, it would be the same stop
        assert running.exited is None
        running.send_signal(signal.SIGTERM)
        assert await running.wait_exited() == 0


async def test_a_daemon_whose_sockets_nobody_asked_for_leaves_none() -> None:
    async def daemon() -> None:
        activation.notify("READY=1")

    with no_leak():
        async with activated(daemon, {"a": "unix", "b": "udp"}) as running:
            assert await running.wait_exited() == 0


def test_the_library_reads_a_managers_variables_in_one_place_only() -> None:
    """Otherwise a daemon inside a test would find those of the test's own process."""
    modules = Path(activation.__file__).parent.glob("_*.py")
    readers = {path.name for path in modules if re.search(r"(?<!`)os\.environ", path.read_text())}
    assert readers == {"_environment.py", "_exec.py", "_process.py"}  # the last two give a child its environment


# A crash


async def test_nothing_of_a_crashed_daemon_reaches_anybody(tmp_path: Path) -> None:
    """Not what its clean-up tells, stores, sends, writes, commits or maps."""
    cleaned_up = trio.Event()
    database = str(tmp_path / "database")

    async def handle(stream: trio.SocketStream) -> None:
        memory = os.memfd_create("memory")
        os.ftruncate(memory, 100)
        activation.notify("FDSTORE=1", "FDNAME=memory", fds=[memory])
        connection = sqlite3.connect(database)
        connection.execute("CREATE TABLE IF NOT EXISTS facts (fact)")
        connection.execute("INSERT INTO facts VALUES ('committed')")
        connection.commit()
        with (
            contextlib.closing(connection),
            mmap.mmap(memory, 100) as shared,
            open(tmp_path / "file", "a") as file,
        ):
            os.close(memory)
            shared[:6] = b"before"
            print("before", file=file, flush=True)
            connection.execute("INSERT INTO facts VALUES ('never committed')")
            try:
                await stream.receive_some()
                await stream.send_all(b"!")
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    activation.notify("STATUS=dying")
                    activation.notify("FDSTORE=1", "FDNAME=late", fds=[0])
                    shared[:6] = b"after!"
                    print("after", file=file)
                    with contextlib.suppress(trio.BrokenResourceError):
                        await stream.send_all(b"farewell")
                    with contextlib.suppress(sqlite3.Error):
                        connection.commit()
                    with contextlib.suppress(OSError):
                        stream.socket.shutdown(socket.SHUT_WR)
                    cleaned_up.set()

    async def daemon() -> None:
        passed = activation.files()
        for file in passed[1:]:
            file.close()
        await activation.serve(handle, activation.listeners(passed[:1]))

    with no_leak():
        async with activated(daemon, {"a": "unix"}, store=5) as running:
            await running.ready()
            client = await running.connect("a")
            await client.send_all(b"?")
            assert await client.receive_some() == b"!"
            assert running.stored_state("memory") == b"before" + bytes(94)
            with trio.fail_after(LIMIT):
                await running.crash()
            assert cleaned_up.is_set()
            assert "STATUS=dying" not in running.told
            assert running.stored == ["memory"]
            assert running.stored_state("memory") == b"before" + bytes(94)
            assert (tmp_path / "file").read_text() == "before\n"
            assert await client.receive_some() == b""
            with contextlib.closing(sqlite3.connect(database)) as connection:
                assert connection.execute("SELECT * FROM facts").fetchall() == [("committed",)]
            assert await running.stop() == 0


async def test_a_shielded_wait_ends_at_a_crash() -> None:
    async def handle(stream: trio.SocketStream) -> None:
        with trio.CancelScope(shield=True):
            await stream.send_all(b"!")
            try:
                assert await stream.receive_some() == b""
            except trio.ClosedResourceError:
                pass

    async def daemon() -> None:
        await activation.serve(handle)

    async with activated(daemon, {"a": "unix"}) as running:
        client = await running.connect("a")
        assert await client.receive_some() == b"!"
        with trio.fail_after(LIMIT):
            await running.crash()
        assert await client.receive_some() == b""


async def test_the_tests_own_descriptors_survive_a_crash(tmp_path: Path) -> None:
    with open(tmp_path / "own", "w") as file, socket.create_server(("127.0.0.1", 0)) as own:
        for _ in range(20):
            async with activated(daemons.echoing, [("a", own)]) as running:
                await running.ready()
                clients = [await running.connect("a") for _ in range(3)]
                for client in clients:
                    await client.send_all(b"!")
                    assert await client.receive_some() == b"!"
                    await client.aclose()
                # Numbers that were the daemon's are the test's now.
                pairs = [socket.socketpair() for _ in range(4)]
                await running.crash()
                for one, two in pairs:
                    one.sendall(b"alive")
                    assert two.recv(100) == b"alive"
                    one.close()
                    two.close()
        file.write("alive")
    assert (tmp_path / "own").read_text() == "alive"


async def test_what_has_the_number_of_a_passed_descriptor_that_was_closed_dies_with_the_daemon() -> None:
    began = trio.Event()

    async def daemon() -> None:
        (file,) = activation.files()
        number = file.fileno()
        file.close()
        # A pipe to the test, whose end has that number.
        with open(os.dup(writing), "wb", buffering=0) as end, open(os.dup(writing), "wb", buffering=0):
            assert end.fileno() == number
            began.set()
            try:
                await trio.sleep_forever()
            finally:
                end.write(b"from the dead")

    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as heard:
        async with activated(daemon, {"a": "unix"}) as running:
            with trio.fail_after(LIMIT):
                await began.wait()
            os.close(writing)
            running.send_signal(signal.SIGKILL)
            await running.wait_exited()
            assert heard.read() == b""


async def test_it_may_crash_before_it_has_begun_and_again_and_again() -> None:
    with no_leak():
        async with activated(daemons.echoing, {"a": "unix"}) as daemon:
            for _ in range(30):
                await daemon.crash()
            client = await daemon.connect("a")
            await client.send_all(b"!")
            assert await client.receive_some() == b"!"


async def test_a_crash_in_the_middle_of_a_failure_is_no_complaint() -> None:
    async def daemon() -> None:
        activation.notify("READY=1")
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("in the clean-up")

    async with activated(daemon, {}) as running:
        await running.crash()
        await running.crash()
        await running.restart()


async def test_a_file_that_the_daemon_has_closed_is_the_tests_when_the_test_opens_it(tmp_path: Path) -> None:
    async def daemon() -> None:
        async def handle(stream: trio.SocketStream) -> None:
            low, high = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "own", os.O_RDONLY)
            await stream.send_all(b"%d" % high)
            await stream.receive_some()
            os.close(high)  # above one that is free: the lowest number stays what it is
            os.close(low)
            await stream.send_all(b"!")

        await activation.serve(handle)

    (tmp_path / "own").write_text("")
    async with activated(daemon, {"a": "unix"}) as running:
        client = await running.connect("a")
        number = int(await client.receive_some())
        await client.send_all(b"!")
        await client.receive_some()
        own = [os.open(tmp_path / "own", os.O_RDWR) for _ in range(5)]
        assert number in own
        await running.crash()
        for descriptor in own:
            assert os.write(descriptor, b".") == 1
        assert (tmp_path / "own").stat().st_size == 1
        assert await running.stop() == 0
    for descriptor in own:
        os.close(descriptor)


async def test_it_goes_on_where_no_descriptor_is_free() -> None:
    async with activated(daemons.echoing, {"a": "unix"}) as daemon:
        await daemon.ready()
        client = await daemon.connect("a")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            await client.send_all(b"!")
            assert await client.receive_some() == b"!"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await daemon.crash()
        assert await client.receive_some() == b""


async def test_a_socket_that_the_test_has_closed_is_an_error_that_leaves_nothing() -> None:
    with no_leak():
        closed = socket.socket()
        closed.close()
        with socket.socket() as sock, pytest.raises(OSError, match="Bad file descriptor"):
            async with activated(daemons.echoing, [("a", sock), ("b", closed)]):
                pass
