"""minirunc run: from the bundle to the container's exit status, everything light until the container runs."""

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
from .state import NOTIFY, State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .bundle.config import Config
    from .starting import Order

HEAD_START = 200
"""Milliseconds: a client is waiting for the container, and loading trio would take a processor from it."""


def run(order: Order) -> int:
    """Run a container to its end; return its exit status, 128 + n for a signal n.

    Raises:
        BundleError, OSError, ActivationError: it cannot be started. Nothing is left of it.
    """
    passed = Passed(order.preserve_fds)
    config = starting.load(order)
    inherited = guardian.children()
    state = State(order.root, order.identity)
    state.claim()
    pid_file = None
    try:
        # From here on signals wait, and are read when there is somebody to send them on to.
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # ignored, it would never come
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
        # The container works already. Now is the time for what takes long to load.
        from . import supervise

        gc.freeze()
        gc.enable()
        return supervise.run(guardian_pid, pid, ended, signals, notify)
    finally:
        if pid_file:
            pid_file.close()
        state.end(keep=order.keep)
        guardian.end_children(inherited)  # last: until then it would remove the state, were this process killed


def _ended_soon(ended: int, signals: int, notify: _socket.socket | None) -> bool:
    """Leave the processors to the container for HEAD_START, unless there is something to do; return whether it ended.

    With a manager to tell, its last words may be waiting: then there is something to do.
    """
    import select

    poll = select.poll()
    for readable in (ended, signals, *([notify.fileno()] if notify else ())):
        poll.register(readable, select.POLLIN)
    return not notify and ended in dict(poll.poll(HEAD_START))


def _notify_socket(state: State) -> _socket.socket | None:
    """The socket for what the container tells the service manager, if there is one."""
    if not os.environ.get("NOTIFY_SOCKET"):
        return None
    sock = state.bind(NOTIFY, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    os.chmod(state.path(NOTIFY), 0o666)  # noqa: S103  # the container's users may all tell
    return sock


def _manager_environment(config: Config) -> dict[str, str]:
    """What the service manager says to the container's process."""
    variables = {"NOTIFY_SOCKET": NOTIFY_SOCKET}
    if "WATCHDOG_USEC" in os.environ and activation.watchdog_enabled():
        variables["WATCHDOG_USEC"] = os.environ["WATCHDOG_USEC"]
        if config.own_pid_namespace:
            variables["WATCHDOG_PID"] = "1"
    if "FDSTORE" in os.environ:
        variables["FDSTORE"] = os.environ["FDSTORE"]
    return variables
