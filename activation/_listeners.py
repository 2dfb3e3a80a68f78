"""From File to trio listeners, plain and with TLS. Go: ``activation/listeners.go``."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence

import trio

from ._files import File, files
from ._sockets import by_name, is_stream_listener, take


def listeners(passed: Sequence[File] | None = None) -> list[trio.SocketListener | None]:
    """Return a trio listener for each passed socket that listens for streams. Go: ``activation.Listeners``.

    TCP, Unix and vsock; their Files are given away. A descriptor of another kind, or one that was given away before,
    is None at its position and stays in ``passed``, untouched. The list is empty where nothing was passed::

        listeners = activation.listeners() or await trio.open_tcp_listeners(2000)

    Closing a listener closes this process's descriptor only; the socket and its path belong to the service manager.

    Args:
        passed: what :func:`files` returned. Left out, ``files()`` is called here, and what is not a listener stays open
            with nobody to use it: call ``files()`` yourself where other kinds come too.

    Raises:
        ActivationError: as :func:`files`.
        OSError: a descriptor in ``passed`` is not open; nothing was given away.
    """
    passed = files() if passed is None else passed
    return [_listener(sock) if sock else None for sock in take(passed, is_stream_listener)]


def listeners_with_names(passed: Sequence[File] | None = None) -> dict[str, list[trio.SocketListener]]:
    """Return the listeners under their names, without gaps, in order. Go: ``activation.ListenersWithNames``.

    ``FileDescriptorName=`` of systemd.socket(5); several sockets of one unit share its name. Else as :func:`listeners`.
    """
    return by_name(passed, listeners)


def tls_listeners(
    ssl_context: ssl.SSLContext, passed: Sequence[File] | None = None
) -> list[trio.abc.Listener[trio.abc.Stream] | None]:
    """Return the listeners, those for TCP with TLS. Go: ``activation.TLSListeners``.

    Unix and vsock listeners stay plain, as in Go; a gap stays a gap. The handshake is made by the first read or write
    of a connection. Else as :func:`listeners`.

    Args:
        ssl_context: a context for servers, with a certificate:
            ``ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)`` and its ``load_cert_chain()``.

    Raises:
        ValueError: ``ssl_context`` is for clients; nothing was given away.
        ActivationError, OSError: as :func:`listeners`.
    """
    if ssl_context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(
            "ssl_context is one for clients (PROTOCOL_TLS_CLIENT); a listener needs one for servers: "
            "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) with a certificate loaded"
        )
    return [_tls_listener(ssl_context, listener) if listener else None for listener in listeners(passed)]


def tls_listeners_with_names(
    ssl_context: ssl.SSLContext, passed: Sequence[File] | None = None
) -> dict[str, list[trio.abc.Listener[trio.abc.Stream]]]:
    """Return the listeners under their names, those for TCP with TLS. Go: ``activation.TLSListenersWithNames``.

    Without gaps, in order. Else as :func:`tls_listeners`.
    """
    return by_name(passed, lambda passed: tls_listeners(ssl_context, passed))


def _listener(sock: socket.socket) -> trio.SocketListener:
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _tls_listener(ssl_context: ssl.SSLContext, listener: trio.SocketListener) -> trio.abc.Listener[trio.abc.Stream]:
    if listener.socket.family in (socket.AF_INET, socket.AF_INET6):
        return trio.SSLListener(listener, ssl_context)
    return listener
