"""Handlers by FileDescriptorName=, and what nobody would serve."""

from __future__ import annotations

import itertools
import os
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

import activation
from activation._files import passed_before
from activation._life import ONE_STOP
from activation.testing import activated
from tests.children import udp_socket
from tests.commands import LIMIT

from .serving import SpecialError, echo, echoes

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_manager")


def serving(handlers: Any, **options: Any) -> Callable[[], Awaitable[None]]:
    """A daemon with these handlers."""
    return lambda: activation.serve(handlers, **options)


async def upper(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data.upper())


async def messages(channel: activation.SeqpacketChannel) -> None:
    async for message in channel:
        await channel.send(message)


async def datagrams(conn: trio.socket.SocketType) -> None:
    while True:
        data, client = await conn.recvfrom(100)
        with activation.busy():
            await conn.sendto(data, client)


async def answered(client: trio.socket.SocketType, word: bytes = b"word") -> bool:
    with trio.fail_after(LIMIT):
        await client.send(word)
        return await client.recv(100) == word


async def test_each_connection_has_the_handler_of_its_name() -> None:
    async with activated(
        serving({"a": echo, "b": upper, "c": messages}), {"a": "unix", "b": "tcp", "c": "seqpacket"}
    ) as daemon:
        await daemon.ready()
        one, other, third = await daemon.connect("a"), await daemon.connect("b"), await daemon.connect("c")
        assert await echoes(one)
        await other.send_all(b"word")
        assert await other.receive_some() == b"WORD"
        await third.send(b"word")
        assert await third.receive() == b"word"
        await daemon.wait_status("3 connections open")
        assert daemon.told.count("READY=1") == 1


async def test_several_sockets_of_one_name_and_what_is_left_have_a_handler() -> None:
    sockets = [("a", "unix"), ("b", "unix"), ("a", "unix"), ("c", "tcp")]
    async with activated(serving({"a": echo, "*": upper}), sockets) as daemon:
        await daemon.ready()
        for name, answer in (("a", b"word"), ("b", b"WORD"), ("c", b"WORD")):
            stream = await daemon.connect(name)
            await stream.send_all(b"word")
            assert await stream.receive_some() == answer


async def test_a_datagram_handler_runs_once_until_the_daemon_leaves() -> None:
    calls = []
    cancelled = trio.Event()

    async def handler(conn: trio.socket.SocketType) -> None:
        calls.append(conn)
        try:
            await datagrams(conn)
        except trio.Cancelled:
            cancelled.set()
            raise

    async with activated(serving({"udp": handler, "chat": echo}), {"udp": "udp", "chat": "unix"}) as daemon:
        await daemon.ready()
        client = await daemon.connect("udp")
        stream = await daemon.connect("chat")
        assert await answered(client)
        assert await echoes(stream)
        daemon.send_signal(signal.SIGTERM)
        await daemon.wait_told("STOPPING=1")
        # As long as connections finish, datagrams are answered.
        assert await answered(client)
        assert not cancelled.is_set()
        await stream.aclose()
        assert await daemon.wait_exited() == 0
        assert cancelled.is_set()
        assert len(calls) == 1
        assert calls[0].fileno() == -1


async def test_a_daemon_of_datagrams_alone_lives_until_it_is_told_or_idle() -> None:
    async with activated(serving({"udp": datagrams}), {"udp": "udp"}) as daemon:
        await daemon.ready()
        client = await daemon.connect("udp")
        assert await answered(client)
        assert await daemon.stop() == 0

    async def slow(conn: trio.socket.SocketType) -> None:
        _, client = await conn.recvfrom(100)
        with activation.busy():
            await trio.sleep(0.5)
            await conn.sendto(b"done", client)
        await trio.sleep_forever()

    with udp_socket() as managers, trio.socket.socket(type=socket.SOCK_DGRAM) as client:
        await client.connect(managers.getsockname())
        await client.send(b"word")  # before the clock of a daemon without clients begins
        async with activated(serving({"udp": slow}, idle_timeout=0.1), [("udp", managers)]) as daemon:
            with trio.fail_after(LIMIT):
                assert await client.recv(10) == b"done"
            assert await daemon.wait_exited() == 0
            assert "STOPPING=1" in daemon.told


async def test_another_descriptor_is_a_file_for_its_handler(tmp_path: Path) -> None:
    got: list[bytes] = []

    async def reader(file: activation.File) -> None:
        assert file.name == "pipe"
        async with trio.lowlevel.FdStream(file.detach()) as stream:
            got.append(await stream.receive_some())

    path = tmp_path / "fifo"
    os.mkfifo(path)
    with open(path, "r+b", buffering=0) as fifo:
        fifo.write(b"word")
        async with activated(serving({"pipe": reader}), [("pipe", fifo)]) as daemon:
            await daemon.ready()
            # Where there is nothing else to do, it ends with its last handler.
            assert await daemon.wait_exited() == 0
    assert got == [b"word"]


async def test_a_handler_of_datagrams_that_fails_is_run_again(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(conn: trio.socket.SocketType) -> None:
        while True:
            data, client = await conn.recvfrom(100)
            if data == b"fail":
                raise SpecialError("a bug")
            await conn.sendto(data, client)

    async with activated(serving({"udp": fail, "chat": echo}), {"udp": "udp", "chat": "unix"}) as daemon:
        await daemon.ready()
        client, stream = await daemon.connect("udp"), await daemon.connect("chat")
        for _ in range(3):
            await client.send(b"fail")
            assert await answered(client)
            assert await echoes(stream)
    assert caplog.messages == ["the handler of 'udp' failed, and is run again: SpecialError('a bug')"]


@pytest.mark.parametrize("kind", ["a file", "a datagram socket that it has closed"])
async def test_a_handler_that_fails_for_good_stops_the_daemon_once_its_connections_have_finished(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(thing: Any) -> None:
        thing.close()
        raise SpecialError("a bug")

    failure: list[BaseException] = []
    began = trio.Event()

    async def chat(stream: trio.SocketStream) -> None:
        began.set()
        await echo(stream)

    async def late(thing: Any) -> None:
        await began.wait()
        await fail(thing)

    async def main() -> None:
        try:
            await activation.serve({"thing": late, "chat": chat})
        except SpecialError as error:
            failure.append(error)

    with open("/dev/null", "rb") as null:
        thing: Any = null if kind == "a file" else "udp"
        async with activated(main, {"thing": thing, "chat": "unix"}) as daemon:
            await daemon.ready()
            stream = await daemon.connect("chat")
            assert await echoes(stream)
            await daemon.wait_told("STOPPING=1")
            assert await echoes(stream)
            await stream.aclose()
            assert await daemon.wait_exited() == 0
    assert str(failure[0]) == "a bug"
    assert "the handler of 'thing' failed; the daemon stops: SpecialError('a bug')" in caplog.messages


@pytest.mark.parametrize(
    ("handlers", "words"),
    [
        ({"a": echo}, r"no handler serves 'b': serve\(\) has handlers for 'a', and what was passed is named 'a', 'b'"),
        ({"a": echo, "b": echo, "c": echo}, r"nothing was passed by the name 'c': .*'a', 'b', 'c', .*named 'a', 'b';"),
        ({"a": echo, "c": echo}, r"nothing was passed by the name 'c' and no handler serves 'b'"),
        ({}, r"no handler serves 'a', 'b': serve\(\) has handlers for nothing"),
        ({"*": echo, "c": echo}, r"nothing was passed by the name 'c'"),
    ],
)
async def test_names_that_do_not_go_together_are_told_with_both_lists(handlers: Any, words: str) -> None:
    async def main() -> None:
        with pytest.raises(activation.ActivationError, match=words):
            await activation.serve(handlers)

    async with activated(main, {"a": "unix", "b": "udp"}) as daemon:
        assert await daemon.wait_exited() == 0


async def test_nothing_was_passed_by_any_name() -> None:
    with pytest.raises(activation.ActivationError, match="there is nothing to serve"):
        await activation.serve({"a": echo})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("udp", r"nothing would serve 'b' \(a datagram socket\)"),
        ("seqpacket", r"nothing would serve 'b' \(a socket of sequential packets\)"),
        ("fifo", r"nothing would serve 'b' \(the FIFO .*fifo\)"),
        ("file", r"nothing would serve 'b' \(the file .*file\)"),
        ("device", r"nothing would serve 'b' \(the device /dev/null\)"),
        ("netlink", r"nothing would serve 'b' \(a netlink socket\)"),
    ],
)
async def test_what_one_handler_for_streams_would_leave_is_an_error(tmp_path: Path, kind: str, words: str) -> None:
    async def main() -> None:
        with pytest.raises(activation.ActivationError, match=words + r".*handlers by name, such as {'b': handler}, or"):
            await activation.serve(echo)

    opened: Any = kind
    if kind == "fifo":
        os.mkfifo(tmp_path / "fifo")
        opened = open(tmp_path / "fifo", "r+b", buffering=0)  # noqa: SIM115
    elif kind == "file":
        opened = open(tmp_path / "file", "w+b")  # noqa: SIM115
    elif kind == "device":
        opened = open("/dev/null", "rb")  # noqa: SIM115
    elif kind == "netlink":
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
    try:
        async with activated(main, [("a", "unix"), ("b", opened)]) as daemon:
            assert await daemon.wait_exited() == 0
    finally:
        if not isinstance(opened, str):
            opened.close()


@pytest.mark.parametrize("handlers", [echo, {"a": echo}])
async def test_what_may_come_from_the_managers_store_needs_no_handler(handlers: Any) -> None:
    async def main() -> None:
        try:
            await activation.serve(handlers)
        finally:
            for file in passed_before():
                file.close()

    with ExitStack() as stack:
        ours, _ = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        words, _ = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
        memory = stack.enter_context(os.fdopen(os.memfd_create("state"), "r+b"))
        reading, writing = os.pipe()
        pipe = stack.enter_context(os.fdopen(reading, "rb"))
        os.close(writing)
        library = stack.enter_context(udp_socket())
        stored: list[tuple[str, Any]] = [("state", memory), ("pipe", pipe), ("queue", ours), ("words", words)]
        stored.append(("activation.udp", library))
        async with activated(main, [("a", "unix"), *stored]) as daemon:
            await daemon.ready()
            assert await echoes(await daemon.connect("a"))


async def test_listeners_by_name_go_to_handlers_by_name(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    context, trusting = certificate

    async def main() -> None:
        passed = activation.files()
        listeners = activation.tls_listeners_with_names(context, passed, everywhere=False)
        await activation.serve({"https": upper, "admin": echo}, listeners)

    async with activated(main, {"https": "tcp", "admin": "unix"}) as daemon:
        await daemon.ready()
        assert await echoes(await daemon.connect("admin"))
        secret = trio.SSLStream(await daemon.connect("https"), trusting, server_hostname="localhost")
        await secret.send_all(b"word")
        assert await secret.receive_some() == b"WORD"


async def test_names_on_one_side_only_are_refused() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with pytest.raises(ValueError, match="there must be handlers by name"):
            await activation.serve(echo, {"a": [listener]})  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="listeners must be given by name"):
            await activation.serve({"a": echo}, [listener])  # type: ignore[call-overload]
        with pytest.raises(activation.ActivationError, match="nothing was passed by the name 'b'"):
            await activation.serve({"a": echo, "b": echo}, {"a": [listener]})


async def test_no_datagram_is_lost_around_idle_exits(tmp_path: Path) -> None:
    # The manager's copy of the socket stays: what was not received is found there by the next start.
    managers = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    managers.bind(str(tmp_path / "managers"))
    managers.setblocking(False)

    async def slow(conn: trio.socket.SocketType) -> None:
        while True:
            data, client = await conn.recvfrom(100)
            with activation.busy():
                await trio.lowlevel.checkpoint()
                await conn.sendto(data, client)

    with managers:
        client = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        await client.bind(str(tmp_path / "client"))
        await client.connect(managers.getsockname())
        for turn in range(50):
            asked = turn.to_bytes(2, "big")

            async def ask(delay: float, asked: bytes = asked) -> None:
                await trio.sleep(delay)
                assert await answered(client, asked)

            with trio.fail_after(LIMIT):
                async with trio.open_nursery() as nursery:
                    for start in itertools.count():
                        async with activated(serving({"u": slow}, idle_timeout=0.005), [("u", managers)]) as daemon:
                            await daemon.ready()
                            if start == 0:
                                nursery.start_soon(ask, 0.004 + turn * 0.00004)
                            await daemon.wait_exited()
                        if not nursery.child_tasks:
                            break
        client.close()


@pytest.mark.parametrize("left_by", ["another task", "nobody"])
async def test_a_datagram_received_late_may_be_answered_by_another_task(tmp_path: Path, left_by: str) -> None:
    jobs, todo = trio.open_memory_channel[tuple[ExitStack, bytes, Any]](10)
    steps: list[str] = []

    async def receive(conn: trio.socket.SocketType) -> None:
        with trio.CancelScope():
            data, client = await conn.recvfrom(100)
            # As in the moment of leaving: it was received, and the daemon is not told of it yet.
            activation.stop()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            job = ExitStack()
            job.enter_context(activation.busy())
            jobs.send_nowait((job, data, (conn, client)))
            try:
                await conn.recvfrom(100)
            finally:
                steps.append("receiving ends")

    async def work() -> None:
        async for job, data, (conn, client) in todo:
            if left_by == "nobody":
                continue
            await wait_all_tasks_blocked()
            await conn.sendto(data, client)
            steps.append("answered")
            job.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        async with activated(serving({"u": receive}, drain_timeout=1), {"u": "unix-datagram"}) as daemon:
            client = await daemon.connect("u")
            if left_by == "nobody":
                await client.send(b"word")
            else:
                assert await answered(client)
            with trio.fail_after(LIMIT):
                await daemon.wait_exited()
        nursery.cancel_scope.cancel()
    assert steps == (["receiving ends"] if left_by == "nobody" else ["answered", "receiving ends"])


async def test_a_second_signal_cuts_work_on_a_datagram_that_was_received_late() -> None:
    late = trio.Event()

    async def receive(conn: trio.socket.SocketType) -> None:
        await conn.recvfrom(100)
        activation.stop()
        with trio.CancelScope(shield=True):
            await wait_all_tasks_blocked()
        with activation.busy():
            late.set()
            await trio.sleep_forever()

    async with activated(serving({"u": receive}, drain_timeout=1000), {"u": "unix-datagram"}) as daemon:
        client = await daemon.connect("u")
        await client.send(b"word")
        with trio.fail_after(LIMIT):
            await late.wait()
            await trio.sleep(ONE_STOP + 0.05)
            daemon.send_signal(signal.SIGTERM)
            await daemon.wait_exited()


async def test_what_the_program_has_stored_is_not_for_the_handler_of_the_others() -> None:
    async def main() -> None:
        activation.store_state("hits", b"1")
        await activation.serve({"chat": echo, "*": upper})

    async with activated(main, {"chat": "unix", "admin": "unix"}, store=16) as daemon:
        await daemon.restart()
        async with await daemon.connect("admin") as client:
            await client.send_all(b"word")
            assert await client.receive_some() == b"WORD"


@pytest.mark.parametrize("kind", ["udp", "unix-datagram", "seqpacket"])
@pytest.mark.parametrize("handlers", [echo, {"chat": echo, "other": echo}], ids=["one handler", "by name"])
async def test_durable_connections_are_of_stream_sockets_only(handlers: Any, kind: str) -> None:
    said = r"ValueError: durable is given, and 'other' \(a .*\) was passed, which cannot have durable connections"
    with pytest.raises(AssertionError, match=said):
        async with activated(serving(handlers, durable=True), {"chat": "unix", "other": kind}, store=16) as daemon:
            await daemon.ready()
