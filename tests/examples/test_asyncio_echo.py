from __future__ import annotations

import signal
import socket
import sys

from activation.testing import activated
from tests.children import tcp_listener
from tests.commands import LIMIT, connect, echoed, run, running

from .test_examples import EXAMPLES

COMMAND = (sys.executable, str(EXAMPLES / "asyncio_echo.py"))


async def test_an_asyncio_daemon_tells_its_manager_and_lets_clients_finish() -> None:
    async with activated(COMMAND, {"local": "unix", "internet": "tcp"}, watchdog=10.0) as daemon:
        await daemon.ready()
        await daemon.wait_told("WATCHDOG=1")
        local, internet = await daemon.connect("local"), await daemon.connect("internet")
        for client in (local, internet):
            await client.send_all(b"hello")
            assert await client.receive_some() == b"hello"
        daemon.send_signal(signal.SIGTERM)
        await daemon.wait_told("STOPPING=1")
        await local.send_all(b"still here")
        assert await local.receive_some() == b"still here"
        await local.aclose()
        await internet.aclose()
        assert await daemon.wait_exited() == 0
        # The path and the socket are the manager's: the next start finds this client in its queue.
        client = await daemon.connect("local")
        await client.send_all(b"early")
        await daemon.start()
        assert await client.receive_some() == b"early"


def test_it_loads_neither_trio_nor_attrs() -> None:
    code = "import sys; sys.argv = ['']; import asyncio_echo; print(*{'trio', 'attr', 'attrs'} & {*sys.modules})"
    done = run(sys.executable, "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); {code}")
    assert done.stdout.strip() == b""
    assert done.returncode == 0, done.stderr.decode()


def test_without_sockets_it_says_how_to_start_it() -> None:
    done = run(*COMMAND)
    assert done.returncode == 1
    assert b"no sockets were passed" in done.stderr


def test_a_client_that_resets_its_connection_leaves_no_traceback() -> None:
    with tcp_listener() as tcp:
        with running(*COMMAND, passed=[tcp], status=0) as process:
            with connect(tcp.getsockname()) as rude:
                assert echoed(rude, b"x") == b"x"
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with connect(tcp.getsockname()) as client:
                assert echoed(client, b"y") == b"y"
            process.send_signal(signal.SIGTERM)
            process.wait(LIMIT)
            assert process.stderr
            assert process.stderr.read() == b""
