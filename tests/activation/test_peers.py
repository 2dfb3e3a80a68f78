"""How a client is named in a log."""

from __future__ import annotations

import os
import socket
import ssl
import struct

import pytest
import trio

from activation._peers import Peer
from tests.commands import LIMIT


def connection(host: str) -> tuple[socket.socket, trio.SocketStream]:
    """A client's socket, and its server's stream."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2], LIMIT)
        accepted, _ = listener.accept()
    return client, trio.SocketStream(trio.socket.from_stdlib_socket(accepted))


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_an_internet_client_is_its_address(host: str, shown: str) -> None:
    client, stream = connection(host)
    async with stream:
        with client:
            assert str(Peer(stream)) == f"{shown}:{client.getsockname()[1]}"


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_a_client_that_has_broken_the_connection_keeps_its_name(host: str, shown: str) -> None:
    client, stream = connection(host)
    async with stream:
        port = client.getsockname()[1]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it is a reset
        client.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(OSError, match="not connected"):
            stream.socket.getpeername()
        assert str(Peer(stream)) == f"{shown}:{port}"


async def test_a_local_client_is_its_process() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(theirs.dup()))
        async with stream:
            assert str(Peer(stream)) == f"process {os.getpid()} of user {os.geteuid()}"


async def test_below_tls_is_the_same_client() -> None:
    client, stream = connection("127.0.0.1")
    with client:
        tls = trio.SSLStream(stream, ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), server_side=True)
        assert str(Peer(tls)) == f"127.0.0.1:{client.getsockname()[1]}"
        await trio.aclose_forcefully(tls)


async def test_what_has_no_name_is_a_client() -> None:
    client, stream = connection("127.0.0.1")
    client.close()
    await stream.aclose()
    assert str(Peer(stream)) == "a client"
    assert str(Peer(object())) == "a client"
