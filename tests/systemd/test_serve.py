"""serve() under a real systemd: what the manager makes of what a daemon tells it, from its start to its end."""

from __future__ import annotations

import os
import pwd
import resource
import selectors
import shutil
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.children import open_descriptors
from tests.commands import LIMIT, connect, echoed, free_port, receive

from .conftest import UNITS
from .daemons import add_echo, ask, cpu_seconds, ended, fifo, processes

if TYPE_CHECKING:
    from .conftest import StartManager
    from .manager import Manager

USER = "nobody"

WRAPPER = """
import signal, subprocess
child = subprocess.Popen(["/usr/local/sbin/echod"], close_fds=False)
def forward(number, _):
    child.send_signal(number)
    print("forwarded", file=sys.stderr, flush=True)
signal.signal(signal.SIGTERM, forward)
sys.exit(child.wait())
"""
ACCEPT = ("foobar-accept.socket", "foobar@.service", "foobar-accept@.service")


def state(manager: Manager, unit: str = "echo.service") -> str:
    return manager.property(unit, "ActiveState")


# Start


def test_it_is_activating_until_it_accepts_and_serves_who_came_before(start_manager: StartManager) -> None:
    manager = start_manager()
    go = fifo(manager, "go")
    path = add_echo(manager, code=f"open({str(go)!r}).read()")
    with connect(path) as early:
        early.sendall(b"early")
        manager.wait_property("echo.service", "ActiveState", "activating")
        with open(go, "w"):  # the daemon has come as far as that, and is not ready
            assert state(manager) == "activating"
            early.settimeout(0.1)
            with pytest.raises(TimeoutError):
                early.recv(1)
        early.settimeout(LIMIT)
        assert receive(early, 5) == b"early"
        manager.wait_property("echo.service", "ActiveState", "active")


def test_it_is_not_active_before_it_asks_for_the_first_client(start_manager: StartManager) -> None:
    manager = start_manager()
    go = fifo(manager, "go")
    code = f"""
class Late(trio.abc.Listener):
    def __init__(self, listener):
        self.listener, self.asked = listener, False
    async def accept(self):
        if not self.asked:
            open({str(go)!r}).read()
        self.asked = True
        return await self.listener.accept()
    async def aclose(self):
        await self.listener.aclose()
"""
    path = add_echo(manager, code=code, options="[Late(listener) for listener in activation.listeners()]")
    manager.systemctl("start", "--no-block", "echo.service")
    with open(go, "w"):  # that far it has come
        assert state(manager) == "activating"
    manager.wait_property("echo.service", "ActiveState", "active")
    assert ask(path, b"hello") == b"hello"


def test_who_connects_once_start_returns_is_served_by_that_process(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager)
    for _ in range(5):
        manager.systemctl("start", "echo.service")
        assert state(manager) == "active"
        started = processes(manager)
        assert ask(path, b"hello") == b"hello"
        assert processes(manager) == started
        manager.systemctl("stop", "echo.service")


def test_the_status_tells_how_many_connections_are_open(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager)
    manager.systemctl("start", "echo.service")
    manager.wait_property("echo.service", "StatusText", "0 connections open")
    with ExitStack() as stack:
        for number in range(3):
            sock = stack.enter_context(connect(path))
            assert echoed(sock, b"hello") == b"hello"
            words = "1 connection open" if number == 0 else f"{number + 1} connections open"
            manager.wait_property("echo.service", "StatusText", words)
    manager.wait_property("echo.service", "StatusText", "0 connections open")


def test_the_status_counts_who_was_there_before_the_daemon(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager)
    for _ in range(8):
        with connect(path) as sock:
            assert echoed(sock, b"hello") == b"hello"
            manager.wait_property("echo.service", "StatusText", "1 connection open")
        manager.systemctl("stop", "echo.service")


# Out of descriptors


def test_clients_that_take_every_descriptor_do_not_bring_the_watchdog_upon_it(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, options="drain_timeout=0", service="LimitNOFILE=1024\nWatchdogSec=1s\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with ExitStack() as stack:
            first = stack.enter_context(connect(path))
            assert echoed(first, b"hello") == b"hello"
            began = processes(manager)
            for _ in range(1100):
                stack.enter_context(connect(path))
            manager.wait_for(lambda: "cannot accept" in manager.log, "it has no more descriptors")
            for _ in range(6):
                told = manager.property("echo.service", "WatchdogTimestampMonotonic")
                manager.wait_for(
                    lambda told=told: manager.property("echo.service", "WatchdogTimestampMonotonic") != told,  # type: ignore[misc]
                    "it says WATCHDOG=1",
                )
            assert processes(manager) == began
            assert echoed(first, b"still") == b"still"
            manager.systemctl("stop", "echo.service")
            assert manager.property("echo.service", "Result") == "success"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Reload


def test_a_reload_is_over_when_the_callable_returns_and_connections_survive_it(start_manager: StartManager) -> None:
    manager = start_manager()
    go, journal = fifo(manager, "go"), manager.folder / "journal"
    code = f"""
async def reload():
    await trio.to_thread.run_sync(lambda: open({str(go)!r}).read())
    with open({str(journal)!r}, "a") as file:
        file.write("reloaded ")
"""
    path = add_echo(manager, code=code, options="reload=reload", service="ExecReload=kill -HUP $MAINPID\n")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        before = processes(manager)
        for number in range(1, 4):
            manager.systemctl("reload", "--no-block", "echo.service")
            with open(go, "w"):  # it is in the middle of it
                manager.wait_property("echo.service", "ActiveState", "reloading")
                assert echoed(sock, b"meanwhile") == b"meanwhile"
                assert not journal.exists() or journal.read_text() == "reloaded " * (number - 1)
                assert state(manager) == "reloading"
            manager.wait_property("echo.service", "ActiveState", "active")
            assert journal.read_text() == "reloaded " * number
            assert echoed(sock, b"after") == b"after"
    assert processes(manager) == before


def test_a_reload_that_fails_is_told_and_the_daemon_goes_on(start_manager: StartManager) -> None:
    manager = start_manager()
    code = """
def reload():
    raise RuntimeError("no such configuration")
"""
    path = add_echo(manager, code=code, options="reload=reload", service="ExecReload=kill -HUP $MAINPID\n")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        before = processes(manager)
        manager.systemctl("reload", "echo.service")
        manager.wait_for(lambda: "no such configuration" in manager.log, "the failure is in the log")
        manager.wait_property("echo.service", "ActiveState", "active")
        assert echoed(sock, b"after") == b"after"
        assert ask(path, b"another") == b"another"
    assert processes(manager) == before


def test_a_reload_of_a_daemon_that_has_nothing_to_reload_succeeds(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, service="ExecReload=kill -HUP $MAINPID\nRestart=no\n")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        before = processes(manager)
        for number in range(1, 4):
            manager.systemctl("reload", "echo.service")
            manager.wait_for(
                lambda number=number: manager.log.count("nothing to reload") == number,  # type: ignore[misc]
                "the daemon has heard of it",
            )
            manager.wait_property("echo.service", "ActiveState", "active")
        assert echoed(sock, b"after") == b"after"
    assert processes(manager) == before


def test_a_reload_may_take_longer_than_the_manager_gives_by_itself(start_manager: StartManager) -> None:
    manager = start_manager()
    go = fifo(manager, "go")
    code = f"""
async def reload():
    await trio.to_thread.run_sync(lambda: open({str(go)!r}).read())
"""
    service = "ExecReload=kill -HUP $MAINPID\nTimeoutStartSec=1\n"
    path = add_echo(manager, code=code, options="reload=reload", service=service)
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        manager.systemctl("reload", "--no-block", "echo.service")
        with open(go, "w"):  # it is in the middle of it
            time.sleep(2.5)
            assert state(manager) == "reloading"
        manager.wait_property("echo.service", "ActiveState", "active")
        assert echoed(sock, b"after") == b"after"
    assert "timed out" not in manager.log


# Watchdog


@pytest.mark.parametrize("restart", ["no", "on-watchdog"])
def test_a_stuck_event_loop_ends_by_the_watchdog_and_clients_are_served_again(
    start_manager: StartManager, restart: str
) -> None:
    manager = start_manager()
    path = add_echo(manager, service=f"WatchdogSec=1\nLimitCORE=0\nRestart={restart}\nRestartSec=0\n")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        sock.sendall(b"block")
        manager.wait_for(lambda: "stuck" in manager.log, "the event loop is stuck")
        with connect(path) as waiting:  # in the queue that outlives the process
            waiting.sendall(b"patience")
            assert ended(sock)
            assert receive(waiting, 8) == b"patience"
    assert "echo.service: Watchdog timeout (limit 1s)!" in manager.log
    assert "echo.service: Failed with result 'watchdog'." in manager.log
    assert manager.property("echo.service", "NRestarts") == ("0" if restart == "no" else "1")
    assert ask(path, b"after") == b"after"


def test_a_busy_daemon_is_left_alone_by_the_watchdog(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, service="WatchdogSec=1\nLimitCORE=0\nRestart=always\n")
    rounds = 0
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(path)) for _ in range(40)]
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            for sock in clients:
                sock.sendall(bytes(1 << 16))
            for sock in clients:
                assert len(receive(sock, 1 << 16)) == 1 << 16
            rounds += 1
        before = processes(manager)
    assert rounds > 10
    assert before == processes(manager)
    assert manager.property("echo.service", "NRestarts") == "0"
    assert "Watchdog" not in manager.log


# End


def test_a_stop_lets_connections_finish_and_new_clients_wait_for_the_next_start(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, service="WatchdogSec=1\n")
    with connect(path) as old:
        assert echoed(old, b"before") == b"before"
        (before,) = processes(manager)
        manager.systemctl("stop", "--no-block", "echo.service")
        manager.wait_for(lambda: "no more clients are accepted" in manager.log, "the daemon drains")
        assert state(manager) == "deactivating"
        with connect(path) as new:
            new.sendall(b"new")
            new.settimeout(1.5)  # longer than the watchdog's patience
            with pytest.raises(TimeoutError):
                new.recv(1)
            assert echoed(old, b"still here") == b"still here"
            assert state(manager) == "deactivating"
            assert processes(manager) == [before]
            old.close()
            new.settimeout(LIMIT)
            assert receive(new, 3) == b"new"
            assert before not in processes(manager)
    assert "Failed" not in manager.log


def test_a_connection_that_never_ends_is_cut_after_the_drain(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, options="drain_timeout=0.7")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        begun = time.monotonic()
        manager.systemctl("stop", "echo.service")
        assert 0.7 <= time.monotonic() - begun < 25  # by default it would be 30
        assert ended(sock)
    assert manager.property("echo.service", "Result") == "success"
    assert state(manager) == "inactive"


def test_a_drain_gets_more_time_than_the_manager_gives_by_itself(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, options="drain_timeout=20", service="TimeoutStopSec=1\n")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        manager.systemctl("stop", "--no-block", "echo.service")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            assert echoed(sock, b"still here") == b"still here"
            time.sleep(0.05)
        assert state(manager) == "deactivating"
    manager.wait_property("echo.service", "ActiveState", "inactive")
    assert manager.property("echo.service", "Result") == "success"
    assert "Stopping timed out" not in manager.log


def test_a_second_signal_ends_it_at_once(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, options="drain_timeout=1000", service="TimeoutStopSec=1000\n")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        manager.systemctl("kill", "echo.service")
        manager.wait_property("echo.service", "ActiveState", "deactivating")
        time.sleep(0.3)  # sooner, it would be the same stop
        assert echoed(sock, b"still here") == b"still here"
        manager.systemctl("kill", "echo.service")
        assert ended(sock)
    manager.wait_property("echo.service", "ActiveState", "inactive")
    assert manager.property("echo.service", "Result") == "success"


def test_one_stop_that_comes_as_several_signals_is_one_drain(start_manager: StartManager) -> None:
    manager = start_manager()
    # systemd signals every process of the service, and the wrapper forwards what it got to its child.
    manager.add_program("wrapper", WRAPPER)
    path = add_echo(
        manager,
        options="activation.listeners(activation.files(pid=os.getppid()))",
        service="ExecStart=\nExecStart=wrapper\nNotifyAccess=all\n",
    )
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        assert len(processes(manager)) == 2
        # The child is ready for all of them, and does not speak for them.
        manager.wait_property("echo.service", "ActiveState", "active")
        assert manager.property("echo.service", "StatusText") == ""
        manager.systemctl("stop", "--no-block", "echo.service")
        manager.wait_for(lambda: "forwarded" in manager.log, "the wrapper has forwarded the signal")
        manager.wait_for(lambda: "no more clients are accepted" in manager.log, "the daemon drains")
        time.sleep(0.3)
        assert echoed(sock, b"still here") == b"still here"
    manager.wait_property("echo.service", "ActiveState", "inactive")
    assert "are cut" not in manager.log


# Errors


def test_a_handler_that_fails_is_told_with_its_peer_and_costs_nobody_else(start_manager: StartManager) -> None:
    manager = start_manager()
    where = ("127.0.0.1", free_port())
    path = add_echo(manager, socket=f"ListenStream={where[0]}:{where[1]}\n")
    with connect(path) as bystander:
        assert echoed(bystander, b"before") == b"before"
        before = processes(manager)
        with connect(path) as sock:
            sock.sendall(b"fail")
            assert ended(sock)
        with connect(where) as sock:
            host, port = sock.getsockname()
            sock.sendall(b"fail")
            assert ended(sock)
        assert echoed(bystander, b"after") == b"after"
        assert ask(path, b"another") == b"another"
    assert f"the handler failed for process {os.getpid()} of user 0" in manager.log.replace(
        "process 0 ", f"process {os.getpid()} "
    )
    assert f"the handler failed for {host}:{port}" in manager.log
    assert manager.log.count("RuntimeError: as I was told") == 2
    assert state(manager) == "active"
    assert processes(manager) == before


def test_out_of_descriptors_it_waits_and_serves_everybody_in_the_end(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, service="LimitNOFILE=40\n")
    assert ask(path, b"first") == b"first"
    (pid,) = processes(manager)
    alone = len(open_descriptors(pid))
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        waiting: set[socket.socket] = set()

        def served(limit: float) -> list[socket.socket]:
            """Whom it has answered meanwhile."""
            found = [key.data for key, _ in selector.select(limit)]
            for sock in found:
                assert receive(sock, 5) == b"hello"
                selector.unregister(sock)
                waiting.remove(sock)
            return found

        for _ in range(100):
            sock = stack.enter_context(connect(path))
            sock.sendall(b"hello")
            selector.register(sock, selectors.EVENT_READ, sock)
            waiting.add(sock)
        manager.wait_for(lambda: "cannot accept: Too many open files" in manager.log, "it has no descriptors left")
        accepted = len(open_descriptors(pid)) - alone
        assert 20 <= accepted < 40
        answered: list[socket.socket] = []
        while len(answered) < accepted:
            more = served(LIMIT)
            assert more, f"only {len(answered)} of {accepted} are answered"
            answered += more
        before = cpu_seconds(pid)
        assert not served(1.0)  # starved
        assert cpu_seconds(pid) - before < 0.25
        while waiting:
            assert answered, f"{len(waiting)} clients are forgotten"
            for sock in answered:
                sock.close()
            answered = served(LIMIT)
        assert processes(manager) == [pid]
    assert ask(path, b"another") == b"another"
    assert manager.log.count("cannot accept") == 1
    assert "Traceback" not in manager.log


# Idleness


def test_it_leaves_when_idle_and_the_next_client_starts_it_again(start_manager: StartManager) -> None:
    manager = start_manager()
    path = add_echo(manager, options="idle_timeout=0.2")
    seen = set()
    for _ in range(3):
        with connect(path) as sock:
            assert echoed(sock, b"hello") == b"hello"
            sock.settimeout(0.4)
            with pytest.raises(TimeoutError):  # a connection that says nothing is no idleness
                sock.recv(1)
            assert echoed(sock, b"still here") == b"still here"
            seen.update(processes(manager))
        manager.wait_property("echo.service", "ActiveState", "inactive")
        assert manager.property("echo.service", "Result") == "success"
        assert state(manager, "echo.socket") == "active"
        assert manager.property("echo.socket", "SubState") == "listening"
    assert len(seen) == 3


def test_what_a_program_does_after_an_idle_exit_may_take_its_time(start_manager: StartManager) -> None:
    manager = start_manager()
    code = """
async def serve_and_clean_up():
    await activation.serve(echo, idle_timeout=0.1)
    time.sleep(2.5)
    print("cleaned up", file=sys.stderr, flush=True)
trio.run(serve_and_clean_up)
sys.exit()
"""
    path = add_echo(manager, code=code, service="TimeoutStopSec=1\n")
    assert ask(path, b"hello") == b"hello"
    manager.wait_property("echo.service", "ActiveState", "inactive")
    assert "cleaned up" in manager.log
    assert manager.property("echo.service", "Result") == "success"


# Several protocols

SEVERAL = """
import logging
import trio
import activation

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

async def echo(stream):
    async for data in stream:
        await stream.send_all(data)

async def goodbye(stream):
    with activation.until_stopping():
        await echo(stream)
    await stream.send_all(b"goodbye")

async def messages(channel):
    async for message in channel:
        await channel.send(message)

async def datagrams(conn):
    while True:
        data, client = await conn.recvfrom(100)
        with activation.busy():
            await conn.sendto(data, client)

async def reader(file):
    async with trio.lowlevel.FdStream(file.detach()) as stream:
        async for data in stream:
            print("read", data.decode(), file=sys.stderr, flush=True)

trio.run(lambda: activation.serve({handlers}))
"""


def add_several(manager: Manager, handlers: str) -> None:
    """Add a service with a socket unit for each kind, and start them."""
    manager.add_program("severald", SEVERAL.format(handlers=handlers))
    kinds = {
        "echo": "ListenStream=/run/echo.sk",
        "chat": "ListenStream=/run/chat.sk",
        "messages": "ListenSequentialPacket=/run/messages.sk",
        "words": "ListenDatagram=/run/words.sk",
        "pipe": "ListenFIFO=/run/pipe",
    }
    units = {
        f"{name}.socket": f"[Socket]\n{listen}\nFileDescriptorName={name}\nService=several.service\n"
        for name, listen in kinds.items()
    }
    sockets = " ".join(units)
    units["several.service"] = f"[Service]\nType=notify\nExecStart=severald\nSockets={sockets}\nTimeoutStopSec=20\n"
    manager.add(units)
    manager.systemctl("start", *units.keys() - {"several.service"})


def test_one_daemon_serves_several_protocols_with_one_ready_and_one_drain(start_manager: StartManager) -> None:
    manager = start_manager()
    handlers = '"echo": echo, "chat": goodbye, "messages": messages, "words": datagrams, "pipe": reader'
    add_several(manager, f"{{{handlers}}}")
    run = manager.path("/run")
    with ExitStack() as stack:
        echo, chat = stack.enter_context(connect(run / "echo.sk")), stack.enter_context(connect(run / "chat.sk"))
        assert echoed(echo, b"hello") == b"hello"
        assert echoed(chat, b"hello") == b"hello"
        manager.wait_property("several.service", "ActiveState", "active")
        messages = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        messages.settimeout(LIMIT)
        messages.connect(str(run / "messages.sk"))
        messages.send(b"message")
        assert messages.recv(100) == b"message"
        words = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        words.settimeout(LIMIT)
        words.bind("\0client of this test " + str(run))  # the daemon sees other paths, but no other network
        words.connect(str(run / "words.sk"))
        words.send(b"datagram")
        assert words.recv(100) == b"datagram"
        (run / "pipe").write_text("through the pipe")
        manager.wait_for(lambda: "read through the pipe" in manager.log, "the pipe is read")
        manager.wait_property("several.service", "StatusText", "3 connections open")
        manager.systemctl("stop", "--no-block", "several.service")
        assert receive(chat, 8) == b"goodbye"
        assert echoed(echo, b"still here") == b"still here"
        assert manager.property("several.service", "ActiveState") == "deactivating"
        messages.close()
        echo.close()
        manager.wait_property("several.service", "ActiveState", "inactive")
    assert manager.property("several.service", "Result") == "success"


def test_a_socket_that_nobody_would_serve_fails_the_start(start_manager: StartManager) -> None:
    manager = start_manager()
    for handlers, words in (
        ("echo", "'messages' (a socket of sequential packets)"),
        ('{"echo": echo, "chat": echo, "messages": messages, "words": datagrams}', "no handler serves 'pipe'"),
    ):
        manager.add_program("severald", SEVERAL.format(handlers=handlers))
        if handlers == "echo":
            add_several(manager, handlers)
        manager.run("systemctl", "start", "several.service", check=False)
        manager.wait_for(lambda words=words: words in manager.log, "the error is told")  # type: ignore[misc]
        manager.wait_property("several.service", "ActiveState", "failed")
        manager.systemctl("reset-failed", "several.service")


# The units


def foobard_processes(manager: Manager) -> list[int]:
    """All that the accept units run."""
    slices = manager.path("/sys/fs/cgroup/system.slice")
    found = [
        pid for folder in slices.glob("**/*.service") for pid in processes(manager, str(folder.relative_to(slices)))
    ]
    return sorted(found)


@pytest.mark.parametrize("copied", ["as files", "as links"])
def test_the_accept_units_run_a_process_for_each_connection(start_manager: StartManager, copied: str) -> None:
    manager = start_manager(*(UNITS / name for name in ACCEPT))
    if copied == "as links":  # what cp -a makes of them; cp follows
        alias = manager.folder / "units" / "foobar-accept@.service"
        alias.unlink()
        alias.symlink_to(ACCEPT[1])
        manager.systemctl("daemon-reload")
    manager.systemctl("start", "foobar-accept.socket")
    path = manager.path("/run/foobar-accept.sk")
    assert foobard_processes(manager) == []
    with connect(path) as first:
        assert echoed(first, b"first") == b"first"
        (one,) = foobard_processes(manager)
        with connect(path) as second:
            assert echoed(second, b"second") == b"second"
            assert len(foobard_processes(manager)) == 2
            assert manager.property("foobar-accept.socket", "NConnections") == "2"
        manager.wait_for(lambda: foobard_processes(manager) == [one], "the second one's process has ended")
        assert echoed(first, b"still here") == b"still here"
    manager.wait_for(lambda: foobard_processes(manager) == [], "all have ended")
    manager.wait_property("foobar-accept.socket", "NConnections", "0")
    assert manager.property("foobar-accept.socket", "NAccepted") == "2"
    assert manager.systemctl("list-units", "--failed", "--no-legend") == ""
    # A finished instance does not stay loaded.
    manager.wait_for(
        lambda: not manager.systemctl("list-units", "--all", "--no-legend", "foobar-accept@*"), "none stays"
    )


def test_above_max_connections_an_accept_socket_turns_clients_away(start_manager: StartManager) -> None:
    assert "\nMaxConnections=64\n" in (UNITS / ACCEPT[0]).read_text()
    fewer = "[Socket]\nMaxConnections=2\n"  # as many processes as that start on two cores in no time
    manager = start_manager(*(UNITS / name for name in ACCEPT), {"foobar-accept.socket.d/fewer.conf": fewer})
    manager.systemctl("start", "foobar-accept.socket")
    path = manager.path("/run/foobar-accept.sk")
    with connect(path) as first, connect(path) as second:
        assert echoed(first, b"first") == b"first"
        assert echoed(second, b"second") == b"second"
        with connect(path) as third:
            assert ended(third)
        assert manager.property("foobar-accept.socket", "NRefused") == "1"
        assert echoed(first, b"still here") == b"still here"
    manager.wait_property("foobar-accept.socket", "NConnections", "0")
    with connect(path) as fourth:
        assert echoed(fourth, b"fourth") == b"fourth"


def test_the_inet_units_serve_tcp_and_udp(start_manager: StartManager) -> None:
    host, port = "127.0.0.1", free_port()
    text = (UNITS / "foobar-inet.socket").read_text()
    assert text.count(f"{host}:2007\n") == 2
    manager = start_manager(
        UNITS / "foobar-inet.service", {"foobar-inet.socket": text.replace(f"{host}:2007\n", f"{host}:{port}\n")}
    )
    manager.systemctl("start", "foobar-inet.socket")
    assert processes(manager, "foobar-inet.service") == []
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(LIMIT)
        udp.connect((host, port))
        assert echoed(udp, b"datagram") == b"datagram"
        before = processes(manager, "foobar-inet.service")
        with connect((host, port)) as tcp:
            assert echoed(tcp, b"stream") == b"stream"
            assert echoed(udp, b"another") == b"another"
    manager.wait_property("foobar-inet.service", "ActiveState", "active")
    assert processes(manager, "foobar-inet.service") == before
    assert len(before) == 1
    # A stop, and the next datagram starts it again.
    manager.systemctl("stop", "foobar-inet.service")
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(LIMIT)
        udp.connect((host, port))
        assert echoed(udp, b"after") == b"after"
    assert processes(manager, "foobar-inet.service") not in ([], before)
    assert manager.property("foobar-inet.socket", "Result") == "success"


def test_the_user_units_serve_under_a_user_s_own_manager(start_manager: StartManager) -> None:
    home, runtime, units = (f"/run/{USER}/{name}" for name in ("home", "runtime", "units"))
    variables = f"HOME={home} XDG_RUNTIME_DIR={runtime} SYSTEMD_UNIT_PATH={units} SYSTEMD_GENERATOR_PATH=/run/none"
    manager = start_manager(
        {
            "user.service": "[Service]\nType=notify\nDelegate=yes\nKillMode=mixed\n"
            f"User={USER}\nEnvironment={variables}\n"
            "ExecStart=/lib/systemd/systemd --user --unit=basic.target --log-target=console\n"
        }
    )
    for name in ("home/.local/bin", "runtime", "units"):
        manager.path(f"/run/{USER}/{name}").mkdir(parents=True)
    for file in (UNITS / "user").iterdir():
        shutil.copy(file, manager.path(units))
    for name in ("basic", "shutdown", "sockets", "paths", "timers"):
        manager.path(f"{units}/{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    manager.path(f"{home}/.local/bin/foobard").symlink_to("/usr/local/sbin/foobard")
    manager.run("chown", "-R", USER, f"/run/{USER}")
    manager.run("chmod", "755", "/sys/fs/cgroup")  # nobody else's manager has to look into it

    def own(*arguments: str) -> str:
        command = ("setpriv", f"--reuid={USER}", "--clear-groups", "env", *variables.split())
        return manager.run(*command, "systemctl", "--user", *arguments).stdout.strip()

    manager.systemctl("start", "user.service")
    own("start", "foobar.socket")
    assert own("show", "-P", "ActiveState", "foobar.service") == "inactive"
    assert ask(manager.path(f"{runtime}/foobar.sk"), b"hello") == b"hello"
    assert own("show", "-P", "ActiveState", "foobar.service") == "active"
    pid = own("show", "-P", "MainPID", "foobar.service")
    assert manager.path(f"/proc/{pid}").stat().st_uid == pwd.getpwnam(USER).pw_uid
    own("stop", "foobar.service")
    assert ask(manager.path(f"{runtime}/foobar.sk"), b"again") == b"again"
