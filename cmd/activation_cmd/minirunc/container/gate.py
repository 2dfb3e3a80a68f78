"""The gate at which the process of a created container waits for ``minirunc start``.

Everything but the exec is done by then. Whoever starts the container connects to the gate, a socket in the folder of
the container's state, and learns there whether the exec fails: the exec itself closes the connection.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import fcntl
import os

from . import syscalls

STARTING = b"starting"
"""What says to start, and the answer."""


def out_of_the_way(sock: _socket.socket, above: int) -> _socket.socket:
    """The socket at a number that no passed descriptor will have; the one that is given is closed."""
    moved = _socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, above))
    sock.close()
    return moved


def leave_minirunc(channel: _socket.socket) -> None:
    """Tell ``minirunc create`` that the container is created, and live on without it."""
    channel.send(b"created")
    if channel.recv(16) != b"go":
        os._exit(1)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
    channel.send(b"alone")
    channel.close()


def wait(gate: _socket.socket) -> _socket.socket:
    """Wait for ``minirunc start``; return the connection to it."""
    # Whoever else is in the container's PID namespace cannot look into this process meanwhile.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_IGN)
    try:
        while True:
            connection = _socket.socket(fileno=gate._accept()[0])  # type: ignore[attr-defined]  # noqa: SLF001
            try:
                if connection.recv(16) == STARTING:
                    connection.send(STARTING)
                    return connection
            except OSError:
                pass  # whoever wanted to start it was killed
            connection.close()
    finally:
        _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
