"""Durable connections under a real systemd, and under socket-activate: restarts and kills that no client notices."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests import bundles
from tests.commands import LIMIT, SOCKET_ACTIVATE, connect, echoed, eventually, free_port, receive
from tests.durable_clients import COUNTER, crowd

from .conftest import UNITS
from .daemons import processes
from .test_minirunc import add_container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import StartManager
    from .manager import Manager

UNIT = "durable.service"
OFTEN = "[Unit]\nStartLimitIntervalSec=0\n"
SERVICE = "[Service]\nType=notify\nExecStart=durabled\nFileDescriptorStoreMax=4\nRestart=on-failure\nRestartSec=1ms\n"


def add_durable(manager: Manager, *, service: str = "", pause: str = "pass") -> list[object]:
    """Add durable.service and its socket, and start them; return where to connect: a Unix and a TCP address."""
    manager.add_program("durabled", COUNTER.format(pause=pause))
    tcp = ("127.0.0.1", free_port())
    manager.add(
        {
            "durable.socket": "[Socket]\nListenStream=/run/durable.sk\n"
            f"ListenStream={tcp[0]}:{tcp[1]}\nTriggerLimitIntervalSec=0\nBacklog=16384\n",
            UNIT: OFTEN + SERVICE + service,
        }
    )
    manager.systemctl("start", "durable.socket", UNIT)
    return [manager.path("/run/durable.sk"), tcp]


def kill(manager: Manager) -> None:
    """Kill the daemon, and wait for its end."""
    pids = processes(manager, UNIT)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    manager.wait_for(lambda: not set(pids) & set(processes(manager, UNIT)), "it has ended")


def asked(sock: socket.socket, said: bytes) -> bytes:
    sock.sendall(said)
    with sock.makefile("rb") as file:
        return file.readline()


def test_clients_notice_neither_restarts_nor_kills_nor_what_the_manager_does_itself(
    start_manager: StartManager,
) -> None:
    manager = start_manager()
    addresses = add_durable(manager)
    with crowd(addresses, 40) as clients:
        for number in range(6):
            clients.until_all_are_answered()
            manager.systemctl("restart", UNIT)
            clients.until_all_are_answered()
            kill(manager)
            if number == 2:
                clients.until_all_are_answered()
                manager.systemctl("daemon-reload")
                kill(manager)
            if number == 4:
                clients.until_all_are_answered()
                manager.systemctl("daemon-reexec")
                kill(manager)
        clients.until_all_are_answered()
    assert not clients.ended
    assert manager.property(UNIT, "NFileDescriptorStore") == "4"


@pytest.mark.parametrize("pause", ["pass", "await trio.sleep(0.002)"], ids=["at-once", "with-pauses"])
def test_clients_that_come_and_go_are_served_once_and_in_order(start_manager: StartManager, pause: str) -> None:
    manager = start_manager()
    addresses = add_durable(manager, pause=pause)
    with crowd(addresses, 40, come_and_go=True) as clients:
        for number in range(12):
            clients.until_answers(200)
            if number % 3:
                kill(manager)
            else:
                manager.systemctl("restart", UNIT)
    assert clients.ended
    assert clients.unheard <= 12  # who was between accept and hold, at a kill


def test_last_words_that_are_said_while_nobody_runs_are_heard(start_manager: StartManager) -> None:
    manager = start_manager()
    journal = manager.folder / "journal"
    pause = f'open({str(journal)!r}, "a").write(f"{{stream.id}} {{stream.commits}} {{line.decode()}}")'
    addresses = add_durable(manager, service="RestartSec=500ms\n", pause=pause)
    for address in addresses:
        for how in ("close", "reset", "half"):
            with connect(address) as sock:
                assert asked(sock, b"0\n") == b"1 0\n"
                kill(manager)
                sock.sendall(b"1\n2\n3\n")
                if how == "half":
                    sock.shutdown(socket.SHUT_WR)
                    assert receive(sock, 100) == b"2 1\n3 2\n4 3\n"
                elif how == "reset":
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            manager.wait_for(lambda: len(journal.read_text().splitlines()) >= 4, "all was dealt with")
            lines = [line.split() for line in journal.read_text().splitlines()]
            assert [(commits, said) for _, commits, said in lines] == [(n, n) for n in "0123"]
            assert len({id_ for id_, _, _ in lines}) == 1
            journal.unlink()


def test_clients_see_the_end_that_there_is(start_manager: StartManager) -> None:
    manager = start_manager()
    pause = 'if line == b"bye\\n": return\n        if line == b"fail\\n": raise RuntimeError("as told")'
    for address in add_durable(manager, pause=pause):
        # The handler's end and its error, also after restarts and kills.
        for said in (b"bye\n", b"fail\n"):
            with connect(address) as sock:
                assert asked(sock, b"0\n") == b"1 0\n"
                kill(manager)
                sock.sendall(said)
                assert sock.recv(100) == b""
        # What ends the service ends its connections; what was answered before is there.
        for command in (["stop", UNIT], ["stop", UNIT, "durable.socket"]):
            with connect(address) as sock:
                assert asked(sock, b"0\n") == b"1 0\n"
                manager.systemctl(*command)
                assert sock.recv(100) == b""
            manager.systemctl("start", "durable.socket", UNIT)
        with connect(address) as sock:
            assert asked(sock, b"0\n") == b"1 0\n"
            manager.systemctl("kill", "--signal=SIGTERM", UNIT)  # which on-failure does not restart
            assert sock.recv(100) == b""
            manager.systemctl("start", UNIT)


@pytest.mark.parametrize("access", ["", "DynamicUser=yes\n"])
def test_it_works_locked_down_and_without_root(start_manager: StartManager, access: str) -> None:
    manager = start_manager()
    foobar = (UNITS / "foobar.service").read_text().partition("DynamicUser=yes\n")[2]
    addresses = add_durable(manager, service=(access + foobar) if access else "LimitNOFILE=100:1000\n")
    with crowd(addresses, 200 if not access else 20) as clients:
        for _ in range(3):
            clients.until_all_are_answered()
            kill(manager)
            clients.until_all_are_answered()
            manager.systemctl("restart", UNIT)
    assert not clients.ended


def test_it_says_what_the_unit_lacks_and_serves_all_the_same(start_manager: StartManager) -> None:
    manager = start_manager()
    for most in (0, 1, 2, 3, 4):
        (path, _) = add_durable(manager, service=f"FileDescriptorStoreMax={most}\n")
        with connect(path) as sock:
            assert asked(sock, b"0\n") == b"1 0\n"
            kill(manager)
            if most < 3:
                assert "the unit needs FileDescriptorStoreMax=4 or more" in manager.log
                assert manager.property(UNIT, "NFileDescriptorStore") == "0"
                assert sock.recv(100) == b""
            else:
                assert "the unit needs" not in manager.log
                for number in range(1, 4):
                    assert asked(sock, b"x\n") == b"%d x\n" % (number + 1)
                    manager.systemctl("restart", UNIT)  # the drain would take longer than the test's patience
                assert manager.property(UNIT, "NFileDescriptorStore") == str(most)
        manager.systemctl("stop", "durable.socket", UNIT)
        (manager.folder / "console").write_bytes(b"")


def test_a_store_that_is_made_smaller_under_it_ends_its_connections(start_manager: StartManager) -> None:
    manager = start_manager()
    (path, _) = add_durable(manager)
    with connect(path) as sock:
        assert asked(sock, b"0\n") == b"1 0\n"
        manager.add({UNIT: OFTEN + SERVICE + "FileDescriptorStoreMax=3\n"})
        assert manager.property(UNIT, "NFileDescriptorStore") == "3"
        manager.systemctl("restart", UNIT)
        assert sock.recv(100) == b""
        assert "; the connections of the earlier start are closed" in manager.log
    with connect(path) as sock:
        assert asked(sock, b"0\n") == b"1 0\n"
        kill(manager)
        assert asked(sock, b"1\n") == b"2 1\n"


def test_ten_thousand_are_restarted_and_killed_at_once(start_manager: StartManager) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(10_000, hard - 500)
    manager = start_manager()
    # The kernel counts the descriptors in queues by user: as root's, they would leave other tests' containers no room.
    (path, _) = add_durable(manager, service=f"DynamicUser=yes\nLimitNOFILE={2 * count + 128}\n")
    clients: list[socket.socket] = []
    said = 0

    def all_are_answered() -> None:
        nonlocal said
        said += 1
        for client in clients:
            client.sendall(b"x\n")
        for client in clients:
            assert receive(client, len(b"%d x\n" % said)) == b"%d x\n" % said

    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.connect(str(path))  # it waits for room in the queue, as none with a timeout does
            client.settimeout(LIMIT)
        for restart in (manager.systemctl, kill, manager.systemctl, kill):
            all_are_answered()
            if restart is kill:
                kill(manager)
            else:
                manager.systemctl("restart", UNIT)
        all_are_answered()
        manager.wait_property(UNIT, "StatusText", f"{count} connections open")
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def another_runs(manager: Manager, before: str) -> None:
    manager.wait_for(lambda: manager.property("foobar.service", "MainPID") not in ("0", before), "it is started again")


def test_a_container_is_killed_and_restarted_beneath_its_clients(start_manager: StartManager) -> None:
    manager = start_manager(UNITS / "foobar.socket")
    # systemd may not learn how a process ended that is another one's child, so on-failure is not enough.
    service = "NotifyAccess=all\nFileDescriptorStoreMax=4\nRestart=always\nRestartSec=1ms\n"
    add_container(manager, "foobar", [], service, bundles.with_foobard)
    manager.systemctl("start", "foobar.socket")
    with connect(manager.path("/run/foobar.sk")) as sock:
        for number in range(6):
            word = b"word %d" % number
            assert echoed(sock, word) == word
            before = manager.property("foobar.service", "MainPID")
            if number % 2:
                manager.systemctl("restart", "foobar.service")
            else:
                manager.wait_property("foobar.service", "ActiveState", "active")
                manager.systemctl("kill", "--signal=SIGKILL", "foobar.service")
                another_runs(manager, before)
        assert echoed(sock, b"last") == b"last"


# Under socket-activate


@contextmanager
def activator(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([SOCKET_ACTIVATE, *arguments], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT)
        print((folder / "log").read_text())


def daemon(folder: Path) -> int:
    """The number of the daemon, which writes it at each start; it is another one each time."""
    try:
        return int((folder / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def test_clients_may_finish_when_socket_activate_stops(tmp_path: Path) -> None:
    program = tmp_path / "durabled"
    program.write_text(f"#!{sys.executable}\n{COUNTER.format(pause='pass')}")
    program.chmod(0o755)
    with activator(tmp_path, "-l", str(tmp_path / "a.sk"), str(program)) as process:
        eventually(lambda: "listening on" in (tmp_path / "log").read_text(), "it listens")
        with connect(tmp_path / "a.sk") as sock:
            assert asked(sock, b"0\n") == b"1 0\n"
            process.terminate()
            eventually(lambda: "ending pid" in (tmp_path / "log").read_text(), "it is told to stop")
            for number in range(1, 500):
                assert asked(sock, b"x\n") == b"%d x\n" % (number + 1)
        assert process.wait(LIMIT) == 0


def restarted(folder: Path, pid: int) -> None:
    eventually(lambda: daemon(folder) != pid, "it is started again")


@pytest.mark.parametrize("how", ["command", "units"])
def test_the_same_under_socket_activate(tmp_path: Path, how: str) -> None:
    program = tmp_path / "durabled"
    note = f'import os; open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))\n'
    program.write_text(f"#!{sys.executable}\n{note}{COUNTER.format(pause='pass')}")
    program.chmod(0o755)
    path, tcp = tmp_path / "a.sk", ("127.0.0.1", free_port())
    arguments = ["-l", str(path), "-l", f"{tcp[0]}:{tcp[1]}", str(program)]
    if how == "units":
        (tmp_path / "a.socket").write_text(f"[Socket]\nListenStream={path}\nListenStream={tcp[0]}:{tcp[1]}\n")
        (tmp_path / "a.service").write_text(OFTEN + SERVICE.replace("durabled", str(program)))
        arguments = [str(tmp_path / "a.socket")]
    with activator(tmp_path, *arguments):
        eventually(lambda: (tmp_path / "log").read_text().count("listening on") == 2, "it listens")
        with crowd([path, tcp], 20) as clients:
            for _ in range(4):
                clients.until_all_are_answered()
                pid = daemon(tmp_path)
                os.kill(pid, signal.SIGKILL)
                restarted(tmp_path, pid)
        assert not clients.ended
