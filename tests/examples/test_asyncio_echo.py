from __future__ import annotations

import signal
import socket
import sys
from typing import TYPE_CHECKING

import activation
from tests.children import tcp_listener
from tests.commands import LIMIT, connect, echoed, run, running

from .test_examples import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, str(EXAMPLES / "asyncio_echo.py"))


async def test_an_asyncio_daemon_tells_its_manager_and_lets_clients_finish(tmp_path: Path) -> None:
    path = str(tmp_path / "echo.sk")
    with socket.socket(socket.AF_UNIX) as listener, tcp_listener() as tcp:
        listener.bind(path)
        listener.listen()
        with activation.NotifyReceiver() as receiver:
            env = {"NOTIFY_SOCKET": receiver.address, "WATCHDOG_USEC": "100000"}
            files = [("local", listener), ("internet", tcp)]
            process = await activation.open_process(COMMAND, files, env=env)
            told: list[str] = []
            while {"READY=1", "WATCHDOG=1"} - {*told}:
                told += (await receiver.receive()).assignments
            with connect(path) as local, connect(tcp.getsockname()) as internet:
                assert echoed(local, b"hello") == b"hello"
                assert echoed(internet, b"hello") == b"hello"
                process.send_signal(signal.SIGTERM)
                while "STOPPING=1" not in told:
                    told += (await receiver.receive()).assignments
                assert echoed(local, b"still here") == b"still here"
            assert await process.wait() == 0
        assert (tmp_path / "echo.sk").is_socket()  # the path is the manager's
        with connect(path):
            pass  # and so is the socket: the next start finds this client in its queue


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
