"""foobard and its units under a real systemd, and what systemd passes to a service in the ways that it can."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import trio

from tests.commands import LIMIT, connect, echoed, free_port, receive

from .conftest import UNITS

if TYPE_CHECKING:
    from .conftest import StartManager
    from .manager import Manager

FOOBAR = (UNITS / "foobar.socket", UNITS / "foobar.service")
SESSION = "connect success !\nhello\nthere\n"

# Every listener tells its clients its position and its name, and every connection that was passed its own.
TELL = """
import json, trio, activation

passed = activation.files()
names = [file.name for file in passed]

async def tell(position, stream):
    async with stream:
        await stream.send_all(json.dumps([position, names]).encode())

async def main():
    async with trio.open_nursery() as nursery:
        for position, listener in enumerate(activation.listeners(passed)):
            if listener:
                def told(stream, position=position):
                    return tell(position, stream)
                nursery.start_soon(trio.serve_listeners, told, [listener])
        for position, stream in enumerate(activation.streams(passed)):
            if stream:
                nursery.start_soon(tell, position, stream)

trio.run(main)
"""
TELLING = "[Service]\nExecStart=tell\n"


def started(manager: Manager) -> list[int]:
    """The foobard processes inside, as ps would show them there."""
    found = []
    for file in manager.path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = file.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if any(Path(argument.decode()).name == "foobard" for argument in arguments):
            found.append(int(file.parent.name))
    return found


def told(manager: Manager, path: str) -> tuple[int, list[str]]:
    """The position of the descriptor that led there, and the names of all that were passed."""
    with connect(manager.path(path)) as sock:
        position, names = json.loads(receive(sock, 1 << 16))
    return position, names


def test_the_service_is_inactive_until_a_client_comes(start_manager: StartManager) -> None:
    manager = start_manager(*FOOBAR)
    manager.systemctl("start", "foobar.socket")
    assert manager.property("foobar.socket", "ActiveState") == "active"
    assert manager.property("foobar.socket", "SubState") == "listening"
    assert manager.path("/run/foobar.sk").is_socket()
    assert manager.property("foobar.service", "ActiveState") == "inactive"
    assert started(manager) == []

    assert manager.run("client", input="hello\nthere\n").stdout == SESSION

    assert manager.property("foobar.service", "ActiveState") == "active"
    assert started(manager) == [int(manager.property("foobar.service", "MainPID"))]
    assert manager.property("foobar.socket", "SubState") == "running"


def test_the_same_process_serves_the_clients_that_follow(start_manager: StartManager) -> None:
    manager = start_manager(*FOOBAR)
    manager.systemctl("start", "foobar.socket")
    with connect(manager.path("/run/foobar.sk")) as first:
        assert echoed(first, b"first") == b"first"
        serving = started(manager)
        assert manager.run("client", input="hello\nthere\n").stdout == SESSION
        assert echoed(first, b"still here") == b"still here"
    assert started(manager) == serving
    assert len(serving) == 1


def test_a_stopped_service_starts_again_with_the_next_client(start_manager: StartManager) -> None:
    manager = start_manager(*FOOBAR)
    manager.systemctl("start", "foobar.socket")
    manager.run("client", input="hello\n")
    before = started(manager)

    manager.systemctl("stop", "foobar.service")
    assert manager.property("foobar.service", "ActiveState") == "inactive"
    assert manager.property("foobar.service", "Result") == "success"
    assert started(manager) == []
    assert manager.path("/run/foobar.sk").is_socket()

    assert manager.run("client", input="hello\nthere\n").stdout == SESSION
    assert manager.property("foobar.service", "ActiveState") == "active"
    assert len(started(manager)) == 1
    assert started(manager) != before


async def test_no_client_is_refused_while_the_service_restarts(start_manager: StartManager) -> None:
    manager = start_manager(*FOOBAR, {"foobar.service.d/often.conf": "[Unit]\nStartLimitIntervalSec=0\n"})
    manager.systemctl("start", "foobar.socket")
    path = manager.path("/run/foobar.sk")
    say_served, served = trio.open_memory_channel[None](0)

    async def client() -> None:
        while True:
            stream = await trio.open_unix_socket(path)  # an OSError here is what must never be
            async with stream:
                try:
                    await stream.send_all(b"hello")
                    answer = await stream.receive_some()
                except trio.BrokenResourceError:
                    continue  # the restart came between
            if answer:
                await say_served.send(None)

    processes = set()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(client)
            for _ in range(10):
                for _ in range(15):
                    await served.receive()
                processes.add(manager.property("foobar.service", "MainPID"))
                await trio.to_thread.run_sync(manager.systemctl, "restart", "foobar.service")
            nursery.cancel_scope.cancel()
    assert len(processes) == 10
    assert manager.property("foobar.socket", "Result") == "success"


def test_every_socket_of_two_units_comes_under_its_name(start_manager: StartManager) -> None:
    front = "[Socket]\nListenStream=/run/front1.sk\nListenStream=/run/front2.sk\nFileDescriptorName=front\n"
    back = "[Socket]\nListenStream=/run/back.sk\nFileDescriptorName=back\n"
    manager = start_manager(
        {
            "front.socket": front + "Service=tell.service\n",
            "back.socket": back + "Service=tell.service\n",
            "tell.service": "[Unit]\nRequires=front.socket back.socket\n" + TELLING,
        }
    )
    manager.add_program("tell", TELL)
    manager.systemctl("start", "front.socket", "back.socket")

    first, names = told(manager, "/run/front1.sk")
    second, _ = told(manager, "/run/front2.sk")
    other, _ = told(manager, "/run/back.sk")
    assert sorted(names) == ["back", "front", "front"]
    assert sorted([first, second, other]) == [0, 1, 2]
    assert [names[first], names[second], names[other]] == ["front", "front", "back"]
    assert first < second  # a unit's sockets keep their order; that of units is not promised


def test_a_socket_is_named_for_its_unit_by_default(start_manager: StartManager) -> None:
    manager = start_manager({"plain.socket": "[Socket]\nListenStream=/run/plain.sk\n", "plain.service": TELLING})
    manager.add_program("tell", TELL)
    manager.systemctl("start", "plain.socket")
    assert told(manager, "/run/plain.sk") == (0, ["plain.socket"])


def test_an_accepted_connection_is_a_stream_named_connection(start_manager: StartManager) -> None:
    tell = "[Socket]\nListenStream=/run/tell.sk\nAccept=yes\n"
    manager = start_manager({"tell.socket": tell, "tell@.service": TELLING})
    manager.add_program("tell", TELL)
    manager.systemctl("start", "tell.socket")
    assert told(manager, "/run/tell.sk") == (0, ["connection"])


def test_foobard_serves_each_accepted_connection_by_a_process_that_ends_with_it(start_manager: StartManager) -> None:
    manager = start_manager(UNITS / "foobar-accept.socket", UNITS / "foobar-accept@.service")
    manager.systemctl("start", "foobar-accept.socket")
    assert started(manager) == []
    path = manager.path("/run/foobar-accept.sk")
    with connect(path) as first, connect(path) as second:
        assert echoed(first, b"first") == b"first"
        assert echoed(second, b"second") == b"second"
        assert len(started(manager)) == 2
        assert manager.property("foobar-accept.socket", "NConnections") == "2"
        first.shutdown(socket.SHUT_WR)
        assert receive(first, 1) == b""
        manager.wait_for(lambda: len(started(manager)) == 1, "the first connection's process has ended")
        assert echoed(second, b"still here") == b"still here"
    manager.wait_property("foobar-accept.socket", "NConnections", "0")
    assert started(manager) == []
    assert manager.systemctl("list-units", "--failed", "--no-legend") == ""
    assert "Failed with result" not in manager.log  # a failed instance is collected at once


def test_one_service_takes_its_tcp_and_its_udp_socket_from_one_unit(start_manager: StartManager) -> None:
    address = ("127.0.0.1", free_port())
    sockets = (UNITS / "foobar-inet.socket").read_text().replace(":2007", f":{address[1]}")
    assert sockets.count(f"={address[0]}:{address[1]}\n") == 2
    manager = start_manager({"foobar-inet.socket": sockets}, UNITS / "foobar-inet.service")
    manager.systemctl("start", "foobar-inet.socket")
    assert started(manager) == []
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(LIMIT)
        udp.connect(address)
        assert echoed(udp, b"datagram") == b"datagram"
        with connect(address) as tcp:
            assert echoed(tcp, b"stream") == b"stream"
        assert echoed(udp, b"again") == b"again"
    assert len(started(manager)) == 1


def test_foobard_serves_without_root_and_without_a_network_of_its_own(start_manager: StartManager) -> None:
    manager = start_manager(*FOOBAR)
    manager.systemctl("start", "foobar.socket")
    assert manager.run("client", input="hello\nthere\n").stdout == SESSION
    daemon = manager.path(f"/proc/{manager.property('foobar.service', 'MainPID')}")
    status = dict(line.split(":\t", 1) for line in (daemon / "status").read_text().splitlines() if ":\t" in line)
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (daemon / "ns/net").readlink() != manager.path("/proc/1/ns/net").readlink()


def test_a_session_goes_on_when_foobard_is_killed_or_restarted(start_manager: StartManager) -> None:
    manager = start_manager(*FOOBAR)
    manager.systemctl("start", "foobar.socket")
    with manager.popen("client", stdin=PIPE, stdout=PIPE, bufsize=1) as client:
        assert client.stdin
        assert client.stdout
        assert client.stdout.readline() == "connect success !\n"
        seen = set()
        for number in range(8):
            client.stdin.write(f"line {number}\n")
            client.stdin.flush()
            assert client.stdout.readline() == f"line {number}\n"
            (pid,) = started(manager)
            seen.add(pid)
            if number % 2:
                manager.systemctl("restart", "foobar.service")
            else:
                manager.systemctl("kill", "--signal=SIGKILL", "foobar.service")
        assert len(seen) == 8
        client.stdin.close()
        assert client.wait(LIMIT) == 0
    assert "durable" not in manager.log


def test_foobard_says_nothing_where_its_unit_keeps_no_connections(start_manager: StartManager) -> None:
    service = (UNITS / "foobar.service").read_text().replace("FileDescriptorStoreMax=4\n", "")
    manager = start_manager(UNITS / "foobar.socket", {"foobar.service": service})
    manager.systemctl("start", "foobar.socket")
    assert manager.run("client", input="hello\nthere\n").stdout == SESSION
    assert "durable" not in manager.log
