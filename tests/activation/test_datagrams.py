"""Datagrams are answered from the address, and on the interface, that they were sent to."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

import activation
from activation import DatagramClient, _datagrams
from tests.children import no_leak, run_activated
from tests.commands import LIMIT

if TYPE_CHECKING:
    from pathlib import Path


def client_of(host: str, port: int) -> socket.socket:
    """A socket that is connected there, and so hears only what comes from there."""
    ((family, kind, _, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    sock = socket.socket(family, kind)
    sock.settimeout(LIMIT)
    sock.connect(address)
    return sock


async def server_on(host: str) -> trio.socket.SocketType:
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    await sock.bind((host, 0))
    return sock


@pytest.mark.parametrize(
    ("bound", "to"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.7"),
        ("::", "127.0.0.7"),
        ("::", "::1"),
        ("127.0.0.7", "127.0.0.7"),
        ("::1", "::1"),
    ],
)
async def test_the_answer_comes_from_the_address_that_was_asked(bound: str, to: str) -> None:
    server = await server_on(bound)
    with server, client_of(to, server.getsockname()[1]) as client:
        for number in range(3):
            # The first is there before the socket tells where datagrams were sent to.
            client.send(b"%d" % number)
            with trio.fail_after(LIMIT):
                data, sender = await activation.receive_datagram(server)
            assert sender.address[:2] in (client.getsockname()[:2], ("::ffff:127.0.0.1", client.getsockname()[1]))
            assert activation.send_datagram(server, data, sender)
            assert client.recv(10) == b"%d" % number


async def test_what_was_sent_to_many_addresses_is_answered_from_each() -> None:
    server = await server_on("0.0.0.0")
    with server:
        clients = [client_of(f"127.1.2.{number}", server.getsockname()[1]) for number in range(1, 30)]
        for client in clients:
            client.send(client.getpeername()[0].encode())
        for _ in clients:
            with trio.fail_after(LIMIT):
                data, sender = await activation.receive_datagram(server)
            assert data == (sender.server_address or "").encode()
            assert activation.send_datagram(server, data, sender)
        for client in clients:
            assert client.recv(100) == client.getpeername()[0].encode()
            client.close()


IN_A_NETWORK = f"""
import socket, trio, activation

LIMIT = {LIMIT}

def client_of(host, port):
    ((family, kind, _, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    sock = socket.socket(family, kind)
    sock.settimeout(LIMIT)
    sock.connect(address)
    return sock

async def main():
    for bound, to, interface in [
        ("0.0.0.0", "10.1.2.3", "one"),
        ("0.0.0.0", "10.1.3.4", "two"),
        ("::", "10.1.3.4", "two"),
        ("::", "fd00:1::3", "one"),
        ("::", "fd00:1::4", "two"),
        ("::", "fe80::3%one", "one"),
        ("::", "fe80::3%two", "two"),
    ]:
        server = trio.socket.socket(socket.AF_INET6 if ":" in bound else socket.AF_INET, socket.SOCK_DGRAM)
        await server.bind((bound, 0))
        with server, client_of(to, server.getsockname()[1]) as client:
            for number in range(2):
                client.send(b"x")
                data, sender = await activation.receive_datagram(server)
                if number:
                    assert socket.if_indextoname(sender.interface) == interface, sender
                if "%" in to:
                    assert sender.address[3] == socket.if_nametoindex(interface), sender
                assert activation.send_datagram(server, data, sender), sender
                assert client.recv(10) == b"x"

trio.run(main)
"""
NETWORK = """
ip link set lo up
ip link add one type veth peer name two
for name in one two; do
    ip link set $name up
    ip address add fe80::3/64 dev $name nodad
done
ip address add 10.1.2.3/24 dev one
ip address add 10.1.3.4/24 dev two
ip address add fd00:1::3/64 dev one nodad
ip address add fd00:1::4/64 dev two nodad
exec "$@"
"""


@pytest.mark.may_skip
def test_the_interface_and_the_scope_of_link_local_addresses_are_kept() -> None:
    command = ["unshare", "--net", "sh", "-euc", NETWORK, "sh", sys.executable, "-c", IN_A_NETWORK]
    if not shutil.which("ip") or subprocess.run([*command[:2], "true"], capture_output=True, check=False).returncode:
        pytest.skip("there is no ip(8), or nobody may make a network namespace here")
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr


async def test_a_client_is_the_same_for_all_that_it_sends_to_one_address() -> None:
    server = await server_on("0.0.0.0")
    with server, client_of("127.0.0.7", server.getsockname()[1]) as client:
        senders = set()
        for _ in range(3):
            client.send(b"x")
            senders.add((await activation.receive_datagram(server))[1])
        assert senders == {DatagramClient(client.getsockname(), "127.0.0.7")}
        assert {sender.server_address for sender in senders} == {"127.0.0.7"}


async def test_unix_datagrams_are_answered_as_before(tmp_path: Path) -> None:
    with no_leak():
        server = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        await server.bind(str(tmp_path / "server"))
        with server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.settimeout(LIMIT)
            client.bind(str(tmp_path / "client"))
            client.connect(str(tmp_path / "server"))
            socket.send_fds(client, [b"hello"], [0, 0])  # which are not received
            data, sender = await activation.receive_datagram(server)
            assert (data, sender) == (b"hello", DatagramClient(str(tmp_path / "client")))
            assert activation.send_datagram(server, data, sender)
            assert client.recv(100) == b"hello"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
                nameless.sendto(b"x", str(tmp_path / "server"))
            _, nobody = await activation.receive_datagram(server)
            assert not activation.send_datagram(server, b"x", nobody)
            os.unlink(tmp_path / "client")
            assert not activation.send_datagram(server, b"x", sender)


async def test_a_connected_pair_is_answered(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, trio.socket.from_stdlib_socket(theirs) as server:
        ours.settimeout(LIMIT)
        ours.send(b"x")
        data, sender = await activation.receive_datagram(server)
        assert activation.send_datagram(server, data, sender)
        assert ours.recv(10) == b"x"


async def test_a_datagram_for_which_there_is_no_room_is_lost_and_not_waited_for(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, trio.socket.from_stdlib_socket(theirs) as server:
        client = DatagramClient(None)
        while activation.send_datagram(server, bytes(1000), client):
            pass
        assert ours.recv(2000) == bytes(1000)
        assert activation.send_datagram(server, bytes(1000), client)


@pytest.mark.parametrize(
    "client",
    [
        DatagramClient(("127.0.0.1", 0), "127.0.0.1"),
        DatagramClient(("127.0.0.1", 9), "203.0.113.1"),
    ],
    ids=["port 0", "an address that went away"],
)
async def test_a_client_that_cannot_be_reached_is_no_error(client: DatagramClient) -> None:
    with await server_on("0.0.0.0") as server:
        assert activation.send_datagram(server, b"x", client) is False
        assert activation.send_datagram(server, bytes(100_000), DatagramClient(("127.0.0.1", 9))) is False


async def test_a_closed_socket_is_told() -> None:
    server = await server_on("0.0.0.0")
    server.close()
    with pytest.raises(trio.ClosedResourceError):
        activation.send_datagram(server, b"x", DatagramClient(("127.0.0.1", 9)))
    with pytest.raises(trio.ClosedResourceError):
        await activation.receive_datagram(server)


@pytest.mark.parametrize("kind", ["multicast", "broadcast"])
async def test_what_was_sent_to_many_is_answered_from_an_address_of_the_host(kind: str) -> None:
    # A datagram that came before the socket told more than its header's address: nothing can leave from that.
    group = {"multicast": "224.0.0.1", "broadcast": "255.255.255.255"}[kind]
    server = await server_on("0.0.0.0")
    with server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(LIMIT)
        client.bind(("127.0.0.1", 0))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        info = _datagrams._INFO_4.pack(0, bytes(4), socket.inet_aton(group))
        ancillary = [(socket.IPPROTO_IP, _datagrams.IP_PKTINFO, info)]
        where = _datagrams._destination(ancillary)
        assert where == ("0.0.0.0", 0)
        assert activation.send_datagram(server, b"x", DatagramClient(client.getsockname(), *where))
        assert client.recv(10) == b"x"


def test_a_passed_socket_answers_the_datagram_that_started_the_process() -> None:
    code = """
import trio
async def main():
    (conn,) = activation.packet_conns()
    for _ in range(2):
        activation.send_datagram(conn, *await activation.receive_datagram(conn))
trio.run(main)
"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        with client_of("127.0.0.7", server.getsockname()[1]) as client:
            client.send(b"one")
            client.send(b"two")
            done = run_activated(code, [server])
            assert done.returncode == 0, done.stderr
            assert [client.recv(10), client.recv(10)] == [b"one", b"two"]
