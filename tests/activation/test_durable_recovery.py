"""Durable connections from one process to the next: what is found and what is refused, in the store and out of it."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import struct
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import activation
from activation.testing import activated
from tests.commands import LIMIT

from .durable_kit import Kit, answer, count, line, serving
from .serving import echo

if TYPE_CHECKING:
    from pathlib import Path

    from activation import DurableStream
    from activation.testing import Daemon

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
    async def main() -> None:
        listeners = activation.listeners(activation.files())
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(activation.serve, echo, listeners[1:]))
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
            await activation.serve(echo)

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
            await activation.serve(echo, listeners)

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
