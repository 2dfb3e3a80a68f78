"""FlushPending= of systemd.socket(5): what clients have sent, or that they have come, is forgotten."""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOST: Final = 1024
"""Connections or reads of one descriptor: clients that come faster than they are turned away do not hold this up."""
_CHUNK: Final = 65536


def flush(descriptors: Iterable[int]) -> None:
    """Close the connections that wait, and read what waits to be read."""
    for descriptor in descriptors:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        with suppress(OSError):
            for _ in range(_MOST):
                if not poll.poll(0) or not _take(descriptor):
                    break


def _take(descriptor: int) -> bool:
    """Take one; return whether there may be another."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return bool(os.read(descriptor, _CHUNK))
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.accept()[0].close()
        else:
            sock.recv(_CHUNK, socket.MSG_DONTWAIT)
    return True
