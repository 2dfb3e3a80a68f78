from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

import activation
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENTS = {"first": "import sys\nsys.lazy_modules |= {'second'}", "second": "there = 1", "broken": "1 / 0"}


@pytest.fixture
def put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules that are there and not loaded, and a Python that says so, whichever this one is."""
    for name, content in CONTENTS.items():
        (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = {"broken", "first", "missing", "os.path", "os.sep", "trio.lowlevel.checkpoint"}
    monkeypatch.setattr(sys, "lazy_modules", names, raising=False)
    monkeypatch.setattr(sys, "get_lazy_imports", lambda: "all", raising=False)
    yield
    for name in CONTENTS:
        sys.modules.pop(name, None)


async def serve_until(moment: Any, **options: Any) -> None:
    """Serve a listener, or what the options say, until the moment has come."""
    if not options:
        options = {"listeners": await trio.open_tcp_listeners(0, host="127.0.0.1")}

    async def handler(_: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(activation.serve, handler, **options))
        with trio.fail_after(LIMIT):
            await moment()
        nursery.cancel_scope.cancel()


async def loaded() -> None:
    while "second" not in sys.modules:
        await trio.lowlevel.checkpoint()


@pytest.mark.usefixtures("put_off")
async def test_what_is_put_off_is_loaded_once_clients_are_accepted() -> None:
    assert not CONTENTS.keys() & sys.modules.keys()
    await serve_until(loaded)
    assert "first" in sys.modules
    assert "broken" not in sys.modules


@pytest.mark.usefixtures("put_off")
async def test_the_first_client_is_served_before() -> None:
    served: list[bool] = []

    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(await stream.receive_some())
        served.append("first" in sys.modules)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1]) as client:
        await client.send_all(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(activation.serve, handler, listeners)
            with trio.fail_after(LIMIT):
                assert await client.receive_some() == b"x"
                await loaded()
            nursery.cancel_scope.cancel()
    assert served == [False]


@pytest.mark.usefixtures("put_off")
async def test_what_a_program_puts_off_itself_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "get_lazy_imports", lambda: "normal", raising=False)
    await serve_until(some_turns)
    assert "first" not in sys.modules


@pytest.mark.usefixtures("put_off")
async def test_a_process_for_one_connection_loads_only_what_it_needs() -> None:
    server, client = trio.socket.socketpair()
    with client:
        await serve_until(some_turns, listeners=[], connections=[trio.SocketStream(server)])
    assert "first" not in sys.modules


async def some_turns() -> None:
    for _ in range(100):
        await trio.lowlevel.checkpoint()


@pytest.mark.may_skip
@pytest.mark.skipif(sys.version_info < (3, 15), reason="there are no lazy imports")
def test_the_first_client_does_not_wait_for_trios_locks_and_events() -> None:
    program = (
        "import socket, sys, trio, activation\n"
        "async def handler(stream):\n"
        "    print('trio._sync' in sys.modules)\n"
        "    activation.stop()\n"
        "async def main():\n"
        "    sock = trio.socket.socket()\n"
        "    await sock.bind(('127.0.0.1', 0))\n"
        "    sock.listen()\n"
        "    with socket.create_connection(sock.getsockname()):\n"
        "        await activation.serve(handler, [trio.SocketListener(sock)])\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-X", "lazy_imports=all", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
