"""examples/asgi.py with real clients: httpx for HTTP, httpx-ws for WebSocket."""

from __future__ import annotations

import signal
import ssl
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import httpx_ws
import pytest
import trio
import trustme
from wsproto.frame_protocol import CloseReason

import activation
from tests.children import tcp_listener
from tests.commands import LIMIT

from .test_examples import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Daemon:
    """The example as a child, and what it has told its manager.

    Attributes:
        port: where it serves, on 127.0.0.1.
    """

    def __init__(self, process: trio.Process, receiver: activation.NotifyReceiver, port: int) -> None:
        self.process = process
        self.port = port
        self._receiver = receiver
        self._told: list[str] = []

    async def wait_told(self, assignment: str) -> None:
        with trio.fail_after(LIMIT):
            while assignment not in self._told:
                self._told += (await self._receiver.receive()).assignments

    async def reload(self) -> None:
        self._told.clear()
        self.process.send_signal(signal.SIGHUP)
        await self.wait_told("READY=1")

    async def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        await self.wait_told("STOPPING=1")

    async def wait(self) -> int:
        with trio.fail_after(LIMIT):
            return await self.process.wait()


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Daemon]:
    with tcp_listener() as listener, activation.NotifyReceiver() as receiver:
        port = listener.getsockname()[1]
        env = {"NOTIFY_SOCKET": receiver.address, "WATCHDOG_USEC": "1000000"}
        command = [sys.executable, str(EXAMPLES / "asgi.py"), *arguments]
        process = await activation.open_process(command, [("http", listener)], env=env)
        try:
            daemon = Daemon(process, receiver, port)
            await daemon.wait_told("READY=1")
            yield daemon
        finally:
            if process.returncode is None:
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def test_requests_are_served_and_counted() -> None:
    async with running() as daemon, httpx.AsyncClient(base_url=f"http://127.0.0.1:{daemon.port}") as client:
        assert (await client.get("/")).text == "hello\n"
        await daemon.wait_told("WATCHDOG=1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/?seconds=1.5")
            await daemon.wait_told("STATUS=1 requests under way")
        await daemon.wait_told("STATUS=0 requests under way")


async def test_a_stop_lets_a_request_finish_and_is_not_held_up_by_keep_alive() -> None:
    async with (
        running() as daemon,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{daemon.port}", timeout=LIMIT) as idle,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{daemon.port}", timeout=LIMIT) as busy,
    ):
        assert (await idle.get("/")).text == "hello\n"  # its connection stays open
        answers = []

        async def ask() -> None:
            answers.append((await busy.get("/?seconds=1.5")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await daemon.wait_told("STATUS=1 requests under way")
            await daemon.stop()
        assert answers == ["hello\n"]
        assert await daemon.wait() == 0


async def test_a_websocket_is_told_goodbye() -> None:
    socket: httpx_ws.AsyncWebSocketSession
    async with (
        running() as daemon,
        httpx.AsyncClient() as client,
        httpx_ws.aconnect_ws(f"http://127.0.0.1:{daemon.port}/echo", client) as socket,
    ):
        await socket.send_text("hello")
        assert await socket.receive_text() == "hello"
        await daemon.stop()
        with pytest.raises(httpx_ws.WebSocketDisconnect) as closed:
            await socket.receive_text()
        assert closed.value.code == CloseReason.GOING_AWAY
        assert await daemon.wait() == 0


async def test_sighup_loads_a_new_certificate_and_keeps_the_old_one_if_that_cannot_be_used(tmp_path: Path) -> None:
    files = (str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem"))
    authorities = [trustme.CA(), trustme.CA()]

    def write(authority: trustme.CA) -> None:
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(files[1])
        issued.cert_chain_pems[0].write_to_path(files[0])

    async def is_trusted(authority: trustme.CA) -> bool:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        async with httpx.AsyncClient(verify=context) as client:
            try:
                answer = await client.get(f"https://localhost:{daemon.port}/")
            except httpx.ConnectError:
                return False
            return answer.text == "hello\n"

    write(authorities[0])
    async with running(*files) as daemon:
        assert [await is_trusted(authority) for authority in authorities] == [True, False]
        write(authorities[1])
        await daemon.reload()
        assert [await is_trusted(authority) for authority in authorities] == [False, True]
        authorities[0].issue_cert("localhost").cert_chain_pems[0].write_to_path(files[0])  # not the key's
        await daemon.reload()
        assert [await is_trusted(authority) for authority in authorities] == [False, True]
        await daemon.stop()
        assert await daemon.wait() == 0
