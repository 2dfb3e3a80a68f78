from __future__ import annotations

import signal
import sys

from tests.children import tcp_listener
from tests.commands import LIMIT, connect, echoed, run, running

from .test_examples import EXAMPLES

COMMAND = (sys.executable, str(EXAMPLES / "anyio_echo.py"))


def test_clients_are_served_and_those_that_are_connected_finish_after_a_stop() -> None:
    with tcp_listener() as listener, running(*COMMAND, passed=[listener], status=0) as process:
        with connect(listener.getsockname()) as first, connect(listener.getsockname()) as second:
            assert echoed(first, b"hello") == b"hello"
            assert echoed(second, b"hello") == b"hello"
            process.send_signal(signal.SIGTERM)
            with connect(listener.getsockname()):  # waits in the queue for the next start
                assert echoed(first, b"still here") == b"still here"
        process.wait(LIMIT)


def test_without_sockets_it_says_how_to_start_it() -> None:
    done = run(*COMMAND)
    assert done.returncode == 1
    assert b"no sockets were passed" in done.stderr
