"""examples/asgi.py with real clients: httpx for HTTP, httpx-ws for WebSocket."""

from __future__ import annotations

import signal
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import httpx_ws
import pytest
import trio
import trustme
from wsproto.frame_protocol import CloseReason

from activation.testing import activated
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from activation.testing import Daemon

    from .conftest import Started


@asynccontextmanager
async def running(example: Any) -> AsyncIterator[tuple[Daemon, str]]:
    """The example, and the address that it serves."""
    async with activated(example, {"http": "tcp"}, watchdog=60.0) as daemon:
        await daemon.ready()
        host, port = daemon.address("http")
        yield daemon, f"{host}:{port}"


async def test_requests_are_served_and_counted(started: Started) -> None:
    async with (
        running(started("asgi")) as (daemon, address),
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        assert (await client.get("/")).text == "hello\n"
        await daemon.wait_told("WATCHDOG=1")
        await daemon.wait_status("0 requests under way")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/?seconds=1.5")
            await daemon.wait_status("1 requests under way")
        await daemon.wait_status("0 requests under way")


async def test_a_stop_lets_a_request_finish_and_is_not_held_up_by_keep_alive(started: Started) -> None:
    async with (
        running(started("asgi")) as (daemon, address),
        httpx.AsyncClient(base_url=f"http://{address}", timeout=LIMIT) as idle,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=LIMIT) as busy,
    ):
        assert (await idle.get("/")).text == "hello\n"  # its connection stays open
        await daemon.wait_status("0 requests under way")
        answers = []

        async def ask() -> None:
            answers.append((await busy.get("/?seconds=1.5")).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await daemon.wait_status("1 requests under way")
            daemon.send_signal(signal.SIGTERM)
        assert answers == ["hello\n"]
        assert await daemon.wait_exited() == 0


async def test_a_websocket_is_told_goodbye(started: Started) -> None:
    socket: httpx_ws.AsyncWebSocketSession
    async with (
        running(started("asgi")) as (daemon, address),
        httpx.AsyncClient() as client,
        httpx_ws.aconnect_ws(f"http://{address}/echo", client) as socket,
    ):
        await socket.send_text("hello")
        assert await socket.receive_text() == "hello"
        daemon.send_signal(signal.SIGTERM)
        with pytest.raises(httpx_ws.WebSocketDisconnect) as closed:
            await socket.receive_text()
        assert closed.value.code == CloseReason.GOING_AWAY
        assert await daemon.wait_exited() == 0


async def test_sighup_loads_a_new_certificate_and_keeps_the_old_one_if_that_cannot_be_used(
    started: Started, tmp_path: Path
) -> None:
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
                answer = await client.get(f"https://localhost:{address.partition(':')[2]}/")
            except httpx.ConnectError:
                return False
            return answer.text == "hello\n"

    write(authorities[0])
    async with running(started("asgi", *files)) as (daemon, address):
        assert [await is_trusted(authority) for authority in authorities] == [True, False]
        write(authorities[1])
        await daemon.reload()
        assert [await is_trusted(authority) for authority in authorities] == [False, True]
        authorities[0].issue_cert("localhost").cert_chain_pems[0].write_to_path(files[0])  # not the key's
        await daemon.reload()
        assert [await is_trusted(authority) for authority in authorities] == [False, True]
        assert await daemon.stop() == 0
