from __future__ import annotations

import socket
import struct

import pytest
import trio

import activation
from activation._files import File
from tests.children import no_leak, tcp_listener, udp_socket
from tests.commands import LIMIT


def accepted() -> tuple[socket.socket, socket.socket]:
    """The server's and the client's end of a TCP connection."""
    with tcp_listener() as listener:
        client = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client


async def test_an_accepted_connection_is_a_stream_both_ways() -> None:
    with no_leak():
        for server, client in (accepted(), socket.socketpair()):
            (stream,) = activation.streams([File(server.detach(), "connection")])
            assert stream
            client.sendall(b"ping")
            assert await stream.receive_some(10) == b"ping"
            await stream.send_all(b"pong")
            assert client.recv(10) == b"pong"
            await stream.aclose()
            assert client.recv(10) == b""
            client.close()


async def test_what_its_client_left_behind_is_still_read() -> None:
    server, client = accepted()
    client.sendall(b"last words")
    client.close()
    (stream,) = activation.streams([File(server.detach(), "connection")])
    assert stream
    assert await stream.receive_some(100) == b"last words"
    assert await stream.receive_some(100) == b""
    await stream.aclose()


async def test_a_connection_that_was_reset_meanwhile_is_a_broken_stream_and_no_gap() -> None:
    server, client = accepted()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    with trio.fail_after(LIMIT):
        await trio.lowlevel.wait_readable(server)
    (stream,) = activation.streams([File(server.detach(), "connection")])
    assert stream
    with pytest.raises(trio.BrokenResourceError):
        await stream.receive_some(100)
    await stream.aclose()


async def test_listeners_datagrams_and_unconnected_sockets_are_gaps() -> None:
    with no_leak():
        socks = [tcp_listener(), udp_socket(), socket.socket(), socket.socket(socket.AF_UNIX)]
        passed = [File(sock.detach(), "x") for sock in socks]
        assert activation.streams(passed) == [None] * 4
        for file in passed:
            assert file.fileno() >= 0
            file.close()
