"""minirunc run: from the bundle to the container's exit status."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import os

import activation

from . import starting
from .container import container, guardian, syscalls
from .container.descriptors import Passed
from .container.filesystem import NOTIFY_SOCKET
from .state import State
from .state_files import NOTIFY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .bundle.config import Config
    from .starting import Order

HEAD_START = 200
"""Milliseconds in which the container has the processors to itself: a client waits for it, and trio can wait."""


def run(order: Order) -> int:
    """Run a container to its end.

    Returns:
        The exit status of its first process, 128 + n if signal n killed it.

    Raises:
        BundleError, OSError, ActivationError: the container cannot be started. Nothing of it is left.
    """
    passed = Passed(order.preserve_fds)
    config = starting.load(order)
    inherited = guardian.children()
    state = State(order.root, order.identity)
    state.claim()
    pid_file = None
    try:
        # From here on signals stay pending. They are read when the container runs, which gets them.
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # if it were ignored, it would never come
        notify = _notify_socket(state)
        start = container.Start(config, passed, mask, order.permissive, new_keyring=order.new_keyring)
        if notify:
            start.notify_socket, start.env = state.path(NOTIFY), _manager_environment(config)
        if order.pid_file:
            from .pid_file import PidFile

            pid_file = PidFile(order.pid_file)
        guardian_pid, pid, ended = starting.fork(start, state, keep=order.keep)
        passed.close()
        state.write(starting.document(state, config, pid, keep=order.keep))
        if pid_file:
            pid_file.write(pid)

        signals = syscalls.signalfd(_signal.valid_signals())
        if _ended_soon(ended, signals, notify):
            return guardian.read_status(ended)
        # The container serves its client already, so that trio can be loaded now.
        from . import supervise

        gc.freeze()
        gc.enable()
        return supervise.run(guardian_pid, pid, ended, signals, notify)
    finally:
        if pid_file:
            pid_file.close()
        state.end(keep=order.keep)
        # The guardian is ended last: if this process is killed before, the guardian removes the state.
        guardian.end_children(inherited)


def _ended_soon(ended: int, signals: int, notify: _socket.socket | None) -> bool:
    """Wait for HEAD_START, or until there is something to do.

    Returns:
        Whether the container has ended and nothing else is to be done. With a service manager there is: the container's
        last messages may have to be forwarded.
    """
    import select

    poll = select.poll()
    for readable in (ended, signals, *([notify.fileno()] if notify else ())):
        poll.register(readable, select.POLLIN)
    return not notify and ended in dict(poll.poll(HEAD_START))


def _notify_socket(state: State) -> _socket.socket | None:
    """Make the socket that receives what the container tells the service manager; None without a service manager."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    sock = state.bind(NOTIFY, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    os.chmod(state.path(NOTIFY), 0o666)  # noqa: S103  # for every user of the container; the folder keeps others out
    return sock


def _manager_environment(config: Config) -> dict[str, str]:
    """Return the variables by which the service manager talks to the container's process."""
    variables = {"NOTIFY_SOCKET": NOTIFY_SOCKET}
    if "WATCHDOG_USEC" in os.environ and activation.watchdog_enabled():
        variables["WATCHDOG_USEC"] = os.environ["WATCHDOG_USEC"]
        if config.own_pid_namespace:
            variables["WATCHDOG_PID"] = "1"
    if "FDSTORE" in os.environ:
        variables["FDSTORE"] = os.environ["FDSTORE"]
    return variables
