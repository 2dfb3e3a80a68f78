"""From File to trio streams: connections that somebody accepted, or made, before this process began."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ._files import File, files
from ._sockets import is_stream, take


def streams(passed: Sequence[File] | None = None) -> list[trio.SocketStream | None]:
    """Return a trio stream for each passed connection.

    ``Accept=yes`` of systemd.socket(5) passes one connection, named ``connection``. The file descriptor store gives
    back those that an earlier run stored. A connection that its client has reset is a stream, too, and reading it
    raises :exc:`trio.BrokenResourceError`. Their Files are given away. A descriptor of another kind, or one that was
    given away before, is None at its position and stays in ``passed``, untouched.

    Args:
        passed: what :func:`files` returned; left out, ``files()`` is called here.

    Raises:
        ActivationError: as :func:`files`.
        OSError: a descriptor in ``passed`` is not open; nothing was given away.
    """
    passed = files() if passed is None else passed
    return [
        trio.SocketStream(trio.socket.from_stdlib_socket(sock)) if sock else None for sock in take(passed, is_stream)
    ]
