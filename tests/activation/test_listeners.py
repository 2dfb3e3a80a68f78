from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

import activation
from activation._files import File
from tests.children import no_leak, output, tcp_listener, udp_socket

if TYPE_CHECKING:
    from pathlib import Path


def passed_as(*pairs: tuple[str, socket.socket]) -> list[File]:
    """The sockets as files() would have returned them."""
    return [File(sock.detach(), name) for name, sock in pairs]


def unix_listener(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.listen()
    return sock


async def say_through(listener: trio.SocketListener, address: object, word: bytes) -> bytes:
    """Connect to the address, accept by the listener, and return what arrives of the word."""
    with socket.socket(listener.socket.family) as client:
        client.connect(address)  # type: ignore[arg-type]
        client.sendall(word)
        async with await listener.accept() as stream:
            return bytes(await stream.receive_some(100))


def listener_of(family: str, tmp_path: Path) -> socket.socket:
    match family:
        case "tcp4":
            return tcp_listener()
        case "tcp6":
            return socket.create_server(("::1", 0), family=socket.AF_INET6)
        case "path":
            return unix_listener(str(tmp_path / "a.sk"))
        case _:
            return unix_listener(f"\0{tmp_path}/a.sk")


@pytest.mark.parametrize("family", ["tcp4", "tcp6", "path", "abstract"])
async def test_a_listening_socket_becomes_a_listener(family: str, tmp_path: Path) -> None:
    with no_leak():
        sock = listener_of(family, tmp_path)
        address = sock.getsockname()
        (listener,) = activation.listeners(passed_as(("a", sock)))
        assert listener
        assert await say_through(listener, address, b"word") == b"word"
        await listener.aclose()


@pytest.mark.may_skip
async def test_a_vsock_listener_is_a_listener() -> None:
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError:
        pytest.skip("the kernel has no vsock")
    sock.bind((socket.VMADDR_CID_ANY, 0xFFFFFFFF))
    sock.listen()
    (listener,) = activation.listeners(passed_as(("v", sock)))
    assert listener
    assert listener.socket.family == socket.AF_VSOCK
    await listener.aclose()


async def test_listeners_by_name_answer_on_the_right_one() -> None:
    socks = [tcp_listener() for _ in range(3)]
    addresses = [sock.getsockname() for sock in socks]
    named = activation.listeners_with_names(passed_as(("web", socks[0]), ("admin", socks[1]), ("web", socks[2])))
    assert list(named) == ["web", "admin"]
    assert await say_through(named["web"][0], addresses[0], b"first") == b"first"
    assert await say_through(named["admin"][0], addresses[1], b"second") == b"second"
    assert await say_through(named["web"][1], addresses[2], b"third") == b"third"
    for listener in [*named["web"], *named["admin"]]:
        await listener.aclose()


async def test_what_is_no_listener_is_a_gap_and_stays_untouched() -> None:
    with no_leak():
        unconnected = socket.socket()
        reading, writing = os.pipe()
        seqpacket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        passed = [
            *passed_as(("udp", udp_socket()), ("tcp", tcp_listener()), ("none", unconnected), ("seq", seqpacket)),
            File(reading, "pipe"),
        ]
        flags = [(os.get_blocking(file.fileno()), os.get_inheritable(file.fileno())) for file in passed]
        found = activation.listeners(passed)
        assert [bool(listener) for listener in found] == [False, True, False, False, False]
        assert [file.fileno() >= 0 for file in passed] == [True, False, True, True, True]
        for file, before in zip(passed, flags, strict=True):
            if file.fileno() >= 0:
                assert (os.get_blocking(file.fileno()), os.get_inheritable(file.fileno())) == before
        os.write(writing, b"x")
        assert os.read(passed[4].fileno(), 9) == b"x"
        other.send(b"y")
        assert os.read(passed[3].fileno(), 9) == b"y"
        assert found[1]
        await found[1].aclose()
        other.close()
        os.close(writing)
        for file in passed:
            file.close()


@pytest.mark.parametrize("datagrams_first", [False, True])
async def test_tcp_and_udp_come_from_one_set_in_either_order(*, datagrams_first: bool) -> None:
    with no_leak():
        passed = passed_as(("a", udp_socket()), ("b", tcp_listener()), ("c", udp_socket()))
        conns = activation.packet_conns(passed) if datagrams_first else []
        listeners = activation.listeners(passed)
        conns = conns or activation.packet_conns(passed)
        assert [bool(listener) for listener in listeners] == [False, True, False]
        assert [bool(conn) for conn in conns] == [True, False, True]
        assert activation.listeners(passed) == [None, None, None]
        assert activation.packet_conns(passed) == [None, None, None]
        assert listeners[1]
        listeners[1].socket.close()
        for conn in conns:
            if conn:
                conn.close()


def test_without_an_argument_they_take_what_files_returns() -> None:
    with tcp_listener() as tcp, udp_socket() as udp:
        code = "import trio; print(*[[bool(i) for i in getattr(activation, name)()] for name in {}])"
        env = {"LISTEN_PID": "self", "LISTEN_FDS": "2"}
        for name, kinds in [("listeners", [True, False]), ("packet_conns", [False, True]), ("streams", [False, False])]:
            assert output(code.format([name]), [tcp, udp], env) == str(kinds)
        assert output("print(list(activation.listeners_with_names()))", [tcp, udp], env) == "['LISTEN_FD_3']"
        assert output("print(list(activation.packet_conns_with_names()))", [tcp, udp], env) == "['LISTEN_FD_4']"
        assert output("print(activation.listeners(), activation.listeners_with_names())", [], {}) == "[] {}"


async def test_closing_a_listener_neither_unlinks_its_path_nor_ends_the_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "a.sk")
    with unix_listener(path) as managers:
        (listener,) = activation.listeners(passed_as(("a", managers.dup())))
        assert listener
        await listener.aclose()
        assert os.path.exists(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            managers.setblocking(True)
            managers.accept()[0].close()


async def test_a_closed_descriptor_is_an_error_and_takes_nothing() -> None:
    with no_leak():
        passed = passed_as(("a", tcp_listener()), ("b", tcp_listener()))
        os.close(passed[1].fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            activation.listeners(passed)
        assert passed[0].fileno() >= 0
        passed[0].close()


async def test_tls_wraps_tcp_leaves_unix_plain_and_keeps_the_gap(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    server, client = certificate
    tcp, unix = tcp_listener(), unix_listener(str(tmp_path / "a.sk"))
    port = tcp.getsockname()[1]
    found = activation.tls_listeners(server, passed_as(("udp", udp_socket()), ("tcp", tcp), ("unix", unix)))
    assert found[0] is None
    assert isinstance(found[1], trio.SSLListener)
    assert isinstance(found[2], trio.SocketListener)
    assert await say_through(found[2], str(tmp_path / "a.sk"), b"plain") == b"plain"

    received = b""

    async def accept_one(listener: trio.SSLListener[trio.SocketStream]) -> None:
        nonlocal received
        async with await listener.accept() as stream:
            received = bytes(await stream.receive_some(100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept_one, found[1])
        stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=client)
        await stream.send_all(b"secret")
        while not received:
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert received == b"secret"
    await trio.aclose_forcefully(stream)
    for listener in found[1:]:
        assert listener
        await listener.aclose()


async def test_tls_listeners_have_names_too(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    named = activation.tls_listeners_with_names(
        certificate[0], passed_as(("web", tcp_listener()), ("dns", udp_socket()), ("web", tcp_listener()))
    )
    assert list(named) == ["web"]
    assert [isinstance(listener, trio.SSLListener) for listener in named["web"]] == [True, True]
    for listener in named["web"]:
        await listener.aclose()


async def test_a_context_for_clients_is_refused_before_anything_is_taken(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    passed = passed_as(("web", tcp_listener()))
    with pytest.raises(ValueError, match=r"Purpose\.CLIENT_AUTH"):
        activation.tls_listeners(certificate[1], passed)
    assert passed[0].fileno() >= 0
    passed[0].close()


@pytest.mark.parametrize("everywhere", [None, False, True])
async def test_a_unix_listener_without_tls_is_named_in_a_warning_unless_that_was_asked_for(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    everywhere: bool | None,
) -> None:
    path = str(tmp_path / "a.sk")
    passed = passed_as(("web", tcp_listener()), ("admin", unix_listener(path)))
    found = activation.tls_listeners(certificate[0], passed, everywhere=everywhere)
    assert isinstance(found[0], trio.SSLListener)
    assert isinstance(found[1], trio.SSLListener) is (everywhere is True)
    assert (f"the listener 'admin' at {path} has no TLS" in caplog.text) is (everywhere is None)
    for listener in found:
        assert listener
        await listener.aclose()


async def test_with_tls_everywhere_a_plain_client_of_a_unix_listener_gets_nothing(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    path = str(tmp_path / "a.sk")
    named = activation.tls_listeners_with_names(
        certificate[0], passed_as(("admin", unix_listener(path))), everywhere=True
    )
    (listener,) = named["admin"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_secret, listener)
        async with await trio.open_unix_socket(path) as plain:
            await plain.send_all(b"give me the secret\n")
            answer = b""
            with contextlib.suppress(trio.BrokenResourceError):
                while more := await plain.receive_some():
                    answer += more
            assert b"secret" not in answer
        stream = trio.SSLStream(await trio.open_unix_socket(path), certificate[1], server_hostname="localhost")
        assert await stream.receive_some() == b"secret"
        await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def serve_secret(listener: trio.abc.Listener[trio.abc.Stream]) -> None:
    async def handle(stream: trio.abc.Stream) -> None:
        try:
            await stream.send_all(b"secret")
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(stream)

    await trio.serve_listeners(handle, [listener])


async def test_a_function_gives_the_context_of_the_next_connection(tmp_path: Path) -> None:
    def contexts(common_name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        authority = trustme.CA()
        server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
        authority.issue_cert("localhost", common_name=common_name).configure_cert(server)
        authority.configure_trust(client)
        return server, client

    current, client = contexts("first")
    with no_leak():
        sock = tcp_listener()
        port = sock.getsockname()[1]
        (listener,) = activation.tls_listeners(lambda: current, passed_as(("web", sock)))
        assert listener

        async def common_name() -> object:
            stream = await trio.open_ssl_over_tcp_stream("localhost", port, ssl_context=client)
            await stream.do_handshake()
            subject = stream.getpeercert()["subject"]
            await trio.aclose_forcefully(stream)
            return dict(item for names in subject for item in names)["commonName"]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_secret, listener)
            assert await common_name() == "first"
            current, client = contexts("second")
            assert await common_name() == "second"
            nursery.cancel_scope.cancel()


async def test_a_function_that_gives_a_context_for_clients_is_an_error_and_leaves_nothing_open(
    certificate: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    contexts = [*certificate]
    with no_leak():
        sock = tcp_listener()
        port = sock.getsockname()[1]
        (listener,) = activation.tls_listeners(lambda: contexts.pop(0), passed_as(("web", sock)))
        assert listener
        async with await trio.open_tcp_stream("localhost", port) as stream:
            with pytest.raises(ValueError, match="one for clients"):
                await listener.accept()
            assert await stream.receive_some() == b""
        await listener.aclose()
