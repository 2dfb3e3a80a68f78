"""The kit as its page shows it; `make check` has mypy read this."""

from __future__ import annotations

import os
import typing

import activation
import activation.testing
from activation.testing import activated
from tests.children import output

if typing.TYPE_CHECKING:
    import trio


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def main() -> None:
    passed = activation.files()
    if passed[-1].name == "memory":
        passed.pop().close()
    else:
        memory = os.memfd_create("memory")
        activation.notify("FDSTORE=1", "FDNAME=memory", fds=[memory])
        os.close(memory)
    await activation.serve(echo, activation.listeners(passed), reload=lambda: None, drain_timeout=0)


async def test_chat() -> None:
    async with activated(main, {"chat": "unix", "admin": "tcp"}, watchdog=10.0, store=16) as daemon:
        await daemon.ready()
        client = await daemon.connect("chat")
        await client.send_all(b"hello\n")
        await daemon.wait_status("1 connection open")
        assert daemon.status == "1 connection open"
        await daemon.reload()
        await daemon.restart()
        client = await daemon.connect("chat")
        await client.send_all(b"still here\n")
        await daemon.crash()
        assert daemon.stored == ["memory"]
        assert await daemon.stop() == 0
    assert daemon.watchdog_missed == 0


def test_importing_activation_does_not_load_the_kit() -> None:
    code = "import sys; activation.files(); activation.notify('A=1'); print([n for n in sys.modules if 'testing' in n])"
    assert output(code) == "[]"
    assert output("import activation.testing, sys; print('pytest' in sys.modules)") == "False"


def test_the_public_names_are_found_where_users_find_them() -> None:
    assert activation.testing.activated.__module__ == "activation.testing"
    assert typing.get_type_hints(activation.testing.activated)["timeout"] is float
    for name in ("connect", "stop", "wait_told"):
        assert typing.get_type_hints(getattr(activation.testing.Daemon, name))
