"""What a test does with a daemon and sees of it, the same for a function and for a command."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

import activation
from activation.testing import activated
from tests.children import no_leak
from tests.commands import LIMIT

if TYPE_CHECKING:
    from pathlib import Path

    from activation.testing import Daemon
    from tests.activation.testing.conftest import Starts


async def echoes(stream: trio.SocketStream, data: bytes = b"word") -> bool:
    await stream.send_all(data)
    with trio.fail_after(LIMIT):
        return await stream.receive_some() == data


async def ends(stream: trio.SocketStream) -> bool:
    """Whether the other end closes the connection."""
    with trio.fail_after(LIMIT):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


def ended(daemon: Daemon) -> int | None:
    """Its exit status; mypy believes that an attribute stays what it was."""
    return daemon.exited


async def test_a_whole_life(started: Starts) -> None:
    with no_leak():
        async with activated(started("echoing"), {"chat": "unix", "admin": "tcp"}, watchdog=5.0) as daemon:
            await daemon.ready()
            chat, admin = await daemon.connect("chat"), await daemon.connect("admin")
            assert await echoes(chat)
            assert await echoes(admin)
            await daemon.wait_status("2 connections open")
            assert daemon.status == "2 connections open"
            before = len(daemon.told)
            await daemon.reload()
            assert [told.partition("=")[0] for told in daemon.told[before:] if told != "WATCHDOG=1"] == [
                *("RELOADING", "MONOTONIC_USEC", "EXTEND_TIMEOUT_USEC", "READY")
            ]
            assert ended(daemon) is None
            assert await daemon.stop() == 0
            assert ended(daemon) == 0
            assert await ends(chat)
            assert "STOPPING=1" in daemon.told
            assert await daemon.stop() == 0
        assert daemon.watchdog_missed == 0
        assert daemon.told.count("WATCHDOG=1") >= 1


async def test_every_kind_of_socket_is_passed_and_reached(started: Starts, tmp_path: Path) -> None:
    kinds = {"a": "unix", "b": "tcp", "c": "udp", "d": "unix-datagram", "e": "seqpacket"}
    with no_leak(), socket.socket(socket.AF_UNIX) as own, trio.fail_after(LIMIT):
        own.bind(str(tmp_path / "own.sk"))
        own.listen()
        async with activated(started("every_kind"), [*kinds.items(), ("own", own)]) as daemon:
            assert await daemon.wait_told("X_NAMES=") == "X_NAMES=a,b,c,d,e,own"
            for name in ("a", "b", "own"):
                assert await echoes(await daemon.connect(name))
            for name in ("c", "d"):
                packets = await daemon.connect(name)
                await packets.send(b"packet")
                assert await packets.recv(100) == b"packet"
            messages = await daemon.connect("e")
            await messages.send(b"message")
            assert await messages.receive() == b"message"
            assert daemon.address("own") == str(tmp_path / "own.sk")
            async with await trio.open_tcp_stream(*daemon.address("b")) as stream:
                assert await echoes(stream)
            paths = [daemon.address(name) for name in ("a", "d", "e")]
            assert all(map(os.path.exists, paths))
            with pytest.raises(KeyError, match=r"passed no socket 'x'; it is passed a, b, c, d, e, own"):
                daemon.address("x")
        assert own.fileno() >= 0
        assert not any(map(os.path.exists, paths))
        assert not os.path.exists(os.path.dirname(paths[0]))


async def test_sockets_and_the_store_outlive_a_restart_and_a_crash_but_not_a_stop(started: Starts) -> None:
    with no_leak():
        async with activated(started("counting"), {"a": "unix"}, store=2) as daemon:
            await daemon.ready()
            path = daemon.address("a")
            inode = os.stat(path).st_ino
            assert daemon.stored == ["starts"]
            assert daemon.stored_state("starts") == b"1"
            assert daemon.stored_state("others") is None
            client = await daemon.connect("a")
            assert await echoes(client)
            await daemon.restart()
            assert await ends(client)
            await daemon.wait_told("X_START=2")
            client = await daemon.connect("a")
            assert await echoes(client)
            await daemon.crash()
            assert await ends(client)
            await daemon.wait_told("X_START=3")
            assert daemon.stored_state("starts") == b"3"
            assert await echoes(await daemon.connect("a"))
            assert (daemon.address("a"), os.stat(path).st_ino) == (path, inode)
            assert await daemon.stop() == 0
            assert daemon.stored == []
            await daemon.start()
            await daemon.wait_told("X_START=1")
            assert [told for told in daemon.told if told.startswith("X_")] == [
                *("X_START=1", "X_START=2", "X_START=3", "X_START=1")
            ]


async def test_a_state_is_read_as_the_daemon_has_stored_it(started: Starts) -> None:
    with no_leak():
        async with activated(started("remembering"), {"a": "unix"}, store=1) as daemon:
            await daemon.ready()
            assert daemon.stored_state("starts") == b"1"
            await daemon.crash()
            await daemon.restart()
            await daemon.crash()
            assert daemon.stored_state("starts") == b"4"
            assert daemon.stored == ["starts"]


async def test_a_client_that_comes_while_nothing_runs_is_served_by_the_next_start(started: Starts) -> None:
    async with activated(started("leaving"), {"a": "tcp"}) as daemon:
        assert await daemon.wait_exited() == 0
        client = await daemon.connect("a")
        await client.send_all(b"early")
        await daemon.start()
        assert await client.receive_some() == b"early"
        with pytest.raises(RuntimeError, match=r"is running; use restart\(\)"):
            await daemon.start()
        await client.aclose()
        assert await daemon.wait_exited() == 0


async def test_the_exit_status_is_the_programs(started: Starts) -> None:
    async with activated(started("exiting"), {"a": "unix"}) as daemon:
        await daemon.ready()
        assert await daemon.stop() == 7
    async with activated(started("silent"), {}) as daemon:
        await daemon.ready()
        daemon.send_signal(signal.SIGTERM)
        assert await daemon.wait_exited() == -signal.SIGTERM


async def test_variables_reach_the_daemon_and_nobody_else(
    started: Starts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What the test's own process was given by a manager is not the daemon's.
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("WATCHDOG_USEC", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("GREETING", "before")
    async with activated(started("environment"), {}, env={"GREETING": "hello", "OTHER": "more"}) as daemon:
        await daemon.ready()
        await daemon.wait_told("X_SEEN=hello more None []")
        assert await daemon.stop() == 0
    assert os.environ["GREETING"] == "before"
    assert "OTHER" not in os.environ


async def test_waiting_for_what_was_told_before_returns_at_once(started: Starts) -> None:
    async with activated(started("echoing"), {"a": "unix"}) as daemon:
        await daemon.ready()
        assert await daemon.wait_told("READY=1") == "READY=1"
        assert await daemon.wait_told("STATUS=") == "STATUS=0 connections open"
        client = await daemon.connect("a")
        await daemon.wait_status("1 connection open")
        await client.aclose()
        await daemon.wait_status("0 connections open")


async def test_side_by_side_each_has_its_own(started: Starts) -> None:
    async with activated(started("echoing"), {"a": "unix"}) as one, activated(started("counting"), {"a": "tcp"}) as two:
        await one.ready()
        await two.ready()
        client = await one.connect("a")
        assert await echoes(client)
        assert await echoes(await two.connect("a"))
        await one.wait_status("1 connection open")
        await two.wait_status("1 connection open")
        await two.crash()
        assert await echoes(client)
        assert await two.stop() == 0
        assert "STOPPING=1" not in one.told
        assert await echoes(client)


async def test_what_is_nonsense_is_refused_at_once(started: Starts) -> None:
    daemon = started("echoing")

    async def enter(sockets: Any, **options: Any) -> None:
        async with activated(daemon, sockets, **options):
            pass

    with no_leak():
        with pytest.raises(ValueError, match="'pipe' of 'a' is no kind of socket; expected unix, tcp, udp, unix-dat"):
            await enter({"b": "unix", "a": "pipe"})
        with pytest.raises(ValueError, match="'a:b' cannot be a descriptor's name"):
            await enter({"a:b": "unix"})
        with pytest.raises(ValueError, match="LISTEN_FDS, NOTIFY_SOCKET cannot be set by env"):
            await enter({}, env={"NOTIFY_SOCKET": "", "LISTEN_FDS": "", "A": ""})
        with pytest.raises(ValueError, match="watchdog is 0; expected"):
            await enter({}, watchdog=0)


async def test_what_is_no_socket_has_no_address(started: Starts) -> None:
    with open(os.devnull) as file:
        async with activated(started("closing"), [("file", file)]) as daemon:
            with pytest.raises(ValueError, match="'file' is no socket"):
                daemon.address("file")
            with pytest.raises(ValueError, match="'file' is no socket"):
                await daemon.connect("file")
            await daemon.ready()
    one, two = socket.socketpair()
    with one, two:
        async with activated(started("closing"), [("connection", one)]) as daemon:
            with pytest.raises(ValueError, match="'connection' takes no clients"):
                await daemon.connect("connection")
            await daemon.ready()


async def test_what_is_stored_and_no_file_has_no_contents() -> None:
    async def daemon() -> None:
        one, other = socket.socketpair()
        with one, other:
            activation.notify("FDSTORE=1", "FDNAME=pair", "READY=1", fds=[one])
            await trio.sleep_forever()

    async with activated(daemon, {}, store=1) as running:
        await running.ready()
        assert running.stored == ["pair"]
        with pytest.raises(ValueError, match="'pair' in the store is no file and has no contents"):
            running.stored_state("pair")
        assert repr(running).endswith("running, status None>")
        await running.stop()
        assert repr(running).endswith("ended with SIGTERM, status None>")
