"""From File to trio listeners, plain and with TLS. Go: ``activation/listeners.go``."""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence

import trio

from ._files import File, files
from ._sockets import by_name, is_stream_listener, take

log = logging.getLogger("activation")


def listeners(passed: Sequence[File] | None = None) -> list[trio.SocketListener | None]:
    """Return a trio listener for each passed socket that listens for streams. Go: ``activation.Listeners``.

    It takes TCP, Unix and vsock sockets, and their Files are given away. A descriptor of another kind, or one that was
    given away before, is None at its position and stays in ``passed``, untouched. The list is empty where nothing was
    passed::

        listeners = activation.listeners() or await trio.open_tcp_listeners(2000)

    Closing a listener closes this process's descriptor only; the socket and its path belong to the service manager.

    Args:
        passed: what :func:`files` returned. Left out, ``files()`` is called here, and a descriptor of another kind
            stays open although nothing can use it: call ``files()`` yourself where other kinds come, too.

    Raises:
        ActivationError: as :func:`files`.
        OSError: a descriptor in ``passed`` is not open; nothing was given away.
    """
    passed = files() if passed is None else passed
    return [_listener(sock) if sock else None for sock in take(passed, is_stream_listener)]


def listeners_with_names(passed: Sequence[File] | None = None) -> dict[str, list[trio.SocketListener]]:
    """Return the listeners under their names, without gaps, in order. Go: ``activation.ListenersWithNames``.

    ``FileDescriptorName=`` of systemd.socket(5); several sockets of one unit share its name. Otherwise as
    :func:`listeners`.
    """
    return by_name(passed, listeners)


def tls_listeners(
    ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext],
    passed: Sequence[File] | None = None,
    *,
    everywhere: bool | None = None,
) -> list[trio.abc.Listener[trio.abc.Stream] | None]:
    """Return the listeners, those for TCP with TLS. Go: ``activation.TLSListeners``.

    The first read or write of a connection makes the handshake; :func:`serve` makes it before it calls the handler. A
    gap stays a gap. Otherwise as :func:`listeners`.

    Args:
        ssl_context: a context for servers, with a certificate:
            ``ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)`` and its ``load_cert_chain()``. Or a function that
            returns the context for the next connection. With a function, a reload loads the new certificate into a new
            context and replaces the one in use only if that succeeds.
        passed: what :func:`files` returned; left out, ``files()`` is called here.
        everywhere: True puts TLS on Unix and vsock listeners, too. False leaves them plain. Left out, they stay plain,
            as in Go, and a warning on the logger ``activation`` names each of them: a context that demands client
            certificates demands none there.

    Raises:
        ValueError: ``ssl_context`` is for clients; nothing was given away.
        ActivationError, OSError: as :func:`listeners`.
    """
    _check_server_context(ssl_context if isinstance(ssl_context, ssl.SSLContext) else ssl_context())
    passed = files() if passed is None else passed
    found = zip(passed, listeners(passed), strict=True)
    return [
        _tls_listener(ssl_context, file.name, listener, everywhere) if listener else None for file, listener in found
    ]


def tls_listeners_with_names(
    ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext],
    passed: Sequence[File] | None = None,
    *,
    everywhere: bool | None = None,
) -> dict[str, list[trio.abc.Listener[trio.abc.Stream]]]:
    """Return the listeners under their names, those for TCP with TLS. Go: ``activation.TLSListenersWithNames``.

    Without gaps, in order. Otherwise as :func:`tls_listeners`.
    """
    return by_name(passed, lambda passed: tls_listeners(ssl_context, passed, everywhere=everywhere))


class _SwitchingTLSListener(trio.abc.Listener["trio.SSLStream[trio.SocketStream]"]):
    """A ``trio.SSLListener`` that asks for its context at each connection.

    Attributes:
        transport_listener: the listener below.
    """

    def __init__(self, transport_listener: trio.SocketListener, context: Callable[[], ssl.SSLContext]) -> None:
        self.transport_listener = transport_listener
        self._context = context

    async def accept(self) -> trio.SSLStream[trio.SocketStream]:
        stream = await self.transport_listener.accept()
        try:
            context = self._context()
            _check_server_context(context)
            return trio.SSLStream(stream, context, server_side=True)
        except BaseException:
            stream.socket.close()
            raise

    async def aclose(self) -> None:
        await self.transport_listener.aclose()


def _check_server_context(context: ssl.SSLContext) -> None:
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "ssl_context is one for clients (PROTOCOL_TLS_CLIENT); a listener needs one for servers: "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) with a certificate loaded"
        )


def _listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _tls_listener(
    ssl_context: ssl.SSLContext | Callable[[], ssl.SSLContext],
    name: str,
    listener: trio.SocketListener,
    everywhere: bool | None,
) -> trio.abc.Listener[trio.abc.Stream]:
    if not everywhere and listener.socket.family not in (socket.AF_INET, socket.AF_INET6):
        if everywhere is None:
            log.warning(
                "the listener %r at %s has no TLS, because it is not a TCP socket; everywhere=True gives it TLS, "
                "everywhere=False says that it is to be plain",
                name,
                _address(listener.socket),
            )
        return listener
    if isinstance(ssl_context, ssl.SSLContext):
        return trio.SSLListener(listener, ssl_context)
    return _SwitchingTLSListener(listener, ssl_context)


def _address(sock: trio.socket.SocketType) -> str:
    name = sock.getsockname()
    if isinstance(name, bytes):
        return "@" + os.fsdecode(name[1:])
    return name if isinstance(name, str) else f"vsock:{name[0]}:{name[1]}"
