from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

import activation
from activation._files import File
from tests.children import no_leak, tcp_listener, udp_socket
from tests.commands import LIMIT

if TYPE_CHECKING:
    from pathlib import Path


async def test_two_udp_sockets_answer_each_on_its_own() -> None:
    with no_leak():
        socks = [udp_socket(), udp_socket()]
        addresses = [sock.getsockname() for sock in socks]
        first, second = activation.packet_conns([File(sock.detach(), "udp") for sock in socks])
        assert first
        assert second
        with udp_socket() as client:
            client.settimeout(LIMIT)
            client.sendto(b"to the second", addresses[1])
            client.sendto(b"to the first", addresses[0])
            for conn in (first, second):
                data, sender = await conn.recvfrom(100)
                await conn.sendto(data.upper(), sender)
            assert client.recvfrom(100) == (b"TO THE FIRST", addresses[0])
            assert client.recvfrom(100) == (b"TO THE SECOND", addresses[1])
        first.close()
        second.close()


@pytest.mark.parametrize("abstract", [False, True])
async def test_unix_datagram_sockets_are_packet_conns(tmp_path: Path, *, abstract: bool) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = ("\0" if abstract else "") + str(tmp_path / "d.sk")
    sock.bind(path)
    (conn,) = activation.packet_conns([File(sock.detach(), "log")])
    assert conn
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.sendto(b"line", path)
    assert (await conn.recvfrom(100))[0] == b"line"
    conn.close()
    assert abstract or os.path.exists(path)


async def test_streams_and_listeners_are_gaps() -> None:
    with no_leak():
        one, other = socket.socketpair()
        passed = [File(tcp_listener().detach(), "tcp"), File(one.detach(), "conn"), File(udp_socket().detach(), "udp")]
        conns = activation.packet_conns(passed)
        assert [bool(conn) for conn in conns] == [False, False, True]
        named = activation.packet_conns_with_names(passed)
        assert named == {}
        assert conns[2]
        conns[2].close()
        other.close()
        for file in passed:
            file.close()


async def test_packet_conns_have_names() -> None:
    named = activation.packet_conns_with_names([File(udp_socket().detach(), name) for name in ("dns", "ntp", "dns")])
    assert {name: len(conns) for name, conns in named.items()} == {"dns": 2, "ntp": 1}
    for conns in named.values():
        for conn in conns:
            conn.close()
