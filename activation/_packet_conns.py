"""From File to trio datagram sockets. Go: ``activation/packetconns.go``."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ._files import File, files
from ._sockets import by_name, is_packet_conn, take


def packet_conns(passed: Sequence[File] | None = None) -> list[trio.socket.SocketType | None]:
    """Return a trio socket for each passed datagram socket: UDP, Unix, vsock. Go: ``activation.PacketConns``.

    Their Files are given away. A descriptor of another kind, or one that was given away before, is None at its
    position and stays in ``passed``, untouched, so that :func:`listeners` takes the TCP sockets from the same set.
    :func:`receive_datagram` and :func:`send_datagram` answer clients from the address that they sent to.

    Args:
        passed: what :func:`files` returned; left out, ``files()`` is called here.

    Raises:
        ActivationError: as :func:`files`.
        OSError: a descriptor in ``passed`` is not open; nothing was given away.
    """
    passed = files() if passed is None else passed
    return [trio.socket.from_stdlib_socket(sock) if sock else None for sock in take(passed, is_packet_conn)]


def packet_conns_with_names(passed: Sequence[File] | None = None) -> dict[str, list[trio.socket.SocketType]]:
    """Return the datagram sockets under their names, without gaps, in order. Otherwise as :func:`packet_conns`."""
    return by_name(passed, packet_conns)
