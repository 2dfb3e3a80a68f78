"""A Starlette app on the sockets that systemd passes, served by hypercorn's trio worker within serve()'s life.

hypercorn speaks HTTP and WebSocket, with TLS if it is given a certificate. activation.serve() does what a service
manager sees of a daemon: readiness, the watchdog, the number of requests in STATUS=, SIGHUP for a new certificate, the
stop that waits for requests, and the exit of an idle daemon.

Try it: socket-activate -l 8000 python examples/asgi.py [CERTIFICATE KEY], then curl http://localhost:8000/
"""

from __future__ import annotations

import ssl
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_http
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

import activation

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.websockets import WebSocket

DRAIN_TIMEOUT = 30.0
"""Seconds that requests have to finish once the daemon is told to stop."""
GOING_AWAY = 1001
"""The status that a WebSocket server closes with when it shuts down, RFC 6455."""


async def hello(request: Request) -> PlainTextResponse:
    """Answer at once, or after the seconds that the query names: /?seconds=3."""
    await trio.sleep(float(request.query_params.get("seconds", 0)))
    return PlainTextResponse("hello\n")


async def echo(socket: WebSocket) -> None:
    """Send back each message, and say goodbye when the daemon is told to stop."""
    await socket.accept()
    try:
        with activation.until_stopping() as scope:
            while True:
                await socket.send_text(await socket.receive_text())
        if scope.cancelled_caught:
            await socket.close(GOING_AWAY, "the server restarts")
    except WebSocketDisconnect:
        pass


app = Starlette(routes=[Route("/", hello), WebSocketRoute("/echo", echo)])


def counted(app: ASGIApp) -> ASGIApp:
    """Count each request and each WebSocket as work that the daemon waits for."""

    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
        else:
            with activation.busy():
                await app(scope, receive, send)

    return middleware


class Certificate:
    """A certificate that can be replaced while the daemon runs."""

    def __init__(self, certificate: str, key: str) -> None:
        self._files = (certificate, key)
        self._current = self._load()
        # What hypercorn keeps. It looks for the current one at the beginning of each handshake.
        self.context = self._load()
        self.context.sni_callback = self._choose

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.load_cert_chain(*self._files)
        return context

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> None:
        connection.context = self._current

    def reload(self) -> None:
        """Read the files again. If they cannot be used, the old ones stay in use."""
        self._current = self._load()


class TLSConfig(Config):
    """hypercorn's configuration with a certificate of ours."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__()
        self._certificate = certificate

    @property
    def ssl_enabled(self) -> bool:
        """Whether hypercorn uses TLS."""
        return True

    def create_ssl_context(self) -> ssl.SSLContext:
        """Give hypercorn the context that it is to use."""
        return self._certificate.context


async def told_to_stop() -> None:
    """Return when the daemon is told to stop: hypercorn then accepts no more and closes idle connections."""
    with activation.until_stopping():
        await trio.sleep_forever()


async def main(*certificate_and_key: str) -> None:
    """Serve until a signal, or until there was no request for five minutes."""
    certificate = Certificate(*certificate_and_key) if certificate_and_key else None
    config = TLSConfig(certificate) if certificate else Config()
    config.bind = [f"fd://{file.detach()}" for file in activation.files()]
    config.backlog = 4096  # hypercorn calls listen() once more
    config.graceful_timeout = DRAIN_TIMEOUT
    if not config.bind:
        sys.exit("asgi: no sockets were passed; start it by a socket unit or by socket-activate")
    app_in_life: Any = counted(app)  # hypercorn and Starlette have two types for one thing
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve_http, app_in_life, config, shutdown_trigger=told_to_stop))
        await activation.serve(
            None,
            idle_timeout=300,
            drain_timeout=DRAIN_TIMEOUT,
            reload=certificate.reload if certificate else None,
            status=lambda requests: f"{requests} requests under way",
        )


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
