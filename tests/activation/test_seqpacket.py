from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import trio

import activation
from activation._files import File
from tests.children import no_leak, tcp_listener
from tests.commands import LIMIT

if TYPE_CHECKING:
    from pathlib import Path

SO_SNDBUFFORCE = 32
"""socket(7), for root."""


def listening(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(str(path))
    sock.listen()
    return sock


async def accepted(path: Path) -> tuple[activation.SeqpacketChannel, socket.socket]:
    """A channel and its client's end."""
    (listener,) = activation.seqpacket_listeners([File(listening(path).detach(), "messages")])
    assert listener
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(str(path))
    channel = await listener.accept()
    await listener.aclose()
    return channel, client


async def test_each_message_arrives_as_it_was_sent(tmp_path: Path) -> None:
    with no_leak():
        channel, client = await accepted(tmp_path / "m.sk")
        messages = [b"one", b"two", b"x" * 100_000, b"\0"]
        for message in messages:
            client.send(message)
        assert [await channel.receive() for _ in messages] == messages
        for message in messages:
            await channel.send(message)
        assert [client.recv(1 << 20) for _ in messages] == messages
        client.send(b"last")
        client.close()
        assert [message async for message in channel] == [b"last"]
        await channel.aclose()
    assert (tmp_path / "m.sk").exists()


async def test_a_truncated_message_is_an_error_and_the_next_one_is_whole(tmp_path: Path) -> None:
    channel, client = await accepted(tmp_path / "m.sk")
    channel.max_message_size = 4
    for message in (b"12345", b"1234"):
        client.send(message)
    with pytest.raises(OSError, match="more than 4 bytes") as caught:
        await channel.receive()
    assert caught.value.errno == errno.EMSGSIZE
    assert await channel.receive() == b"1234"
    client.close()
    await channel.aclose()


def test_a_message_takes_as_much_memory_as_it_needs() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, timeout=LIMIT, check=True)
    assert int(done.stdout) < 1000


MANY = """
import os, socket, trio, activation

def resident():
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel = activation.SeqpacketChannel(trio.socket.from_stdlib_socket(ours))
    kept, before = [], resident()
    for _ in range(10_000):
        theirs.send(b"short")
        kept.append(await channel.receive())
    print((resident() - before) // len(kept))

trio.run(main)
"""


def test_threads_do_not_mix_up_their_messages(tmp_path: Path) -> None:
    async def receive(name: str) -> None:
        channel, client = await accepted(tmp_path / name)
        message = name.encode() * 100_000
        with client:
            for _ in range(300):
                client.send(message)
                assert await channel.receive() == message
        await channel.aclose()

    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda name: trio.run(receive, name), "ab"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root may have so long ones sent")
async def test_a_longer_message_than_usual_can_be_allowed(tmp_path: Path) -> None:
    channel, client = await accepted(tmp_path / "m.sk")
    client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
    channel.max_message_size = 1 << 20
    message = os.urandom(1 << 20)
    client.send(message)
    assert await channel.receive() == message
    client.close()
    await channel.aclose()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_receive_can_be_cancelled_and_closed(tmp_path: Path, waits: bool) -> None:
    channel, client = await accepted(tmp_path / "m.sk")
    if not waits:
        client.send(b"message")
    with trio.CancelScope() as scope:
        scope.cancel()
        await channel.receive()
    assert scope.cancelled_caught
    if not waits:
        assert await channel.receive() == b"message"

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        if waits:
            await trio.testing.wait_all_tasks_blocked()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        await channel.aclose()
    client.close()


async def test_what_cannot_be_sent_is_told(tmp_path: Path) -> None:
    channel, client = await accepted(tmp_path / "m.sk")
    with pytest.raises(ValueError, match="an empty message"):
        await channel.send(b"")
    with pytest.raises(OSError, match="Message too long"):
        await channel.send(bytes(10_000_000))
    client.close()
    with pytest.raises(trio.BrokenResourceError):
        await channel.send(b"x")
    await channel.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await channel.send(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await channel.receive()


async def test_a_client_that_does_not_read_makes_the_sender_wait(tmp_path: Path) -> None:
    channel, client = await accepted(tmp_path / "m.sk")
    sent = 0

    async def send() -> None:
        nonlocal sent
        for number in range(1000):
            await channel.send(b"%d" % number + bytes(10_000))
            sent += 1

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert sent < 1000
            client.setblocking(False)
            for number in range(1000):
                await trio.lowlevel.wait_readable(client)
                assert client.recv(20_000).startswith(b"%d\0" % number)
    client.close()
    await channel.aclose()


async def test_other_kinds_are_gaps_and_this_one_is_for_the_others(tmp_path: Path) -> None:
    with no_leak():
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = [File(sock.detach(), "x") for sock in (tcp_listener(), listening(tmp_path / "m.sk"), one)]
        (tcp, *gaps) = activation.listeners(passed)
        assert tcp
        assert [*gaps, *activation.packet_conns(passed), *activation.streams(passed)] == [None] * 8
        found = activation.seqpacket_listeners(passed)
        assert [bool(item) for item in found] == [False, True, False]
        assert found[1]
        await found[1].aclose()
        await tcp.aclose()
        other.close()
        passed[2].close()


async def test_serve_takes_them_like_any_listener(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(channel: activation.SeqpacketChannel) -> None:
        async for message in channel:
            if message == b"fail":
                raise LookupError("a bug")
            await channel.send(message.upper())

    listeners = activation.seqpacket_listeners([File(listening(tmp_path / "m.sk").detach(), "messages")])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        async with trio.open_nursery() as nursery:
            await nursery.start(activation.serve, handler, listeners)
            sock.connect(str(tmp_path / "m.sk"))
            client = activation.SeqpacketChannel(trio.socket.from_stdlib_socket(sock.dup()))
            await client.send(b"word")
            assert await client.receive() == b"WORD"
            await client.send(b"fail")
            with pytest.raises(trio.EndOfChannel):
                await client.receive()
            await client.aclose()
            nursery.cancel_scope.cancel()
    assert f"process {os.getpid()} of user" in caplog.text
