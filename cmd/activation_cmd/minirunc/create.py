"""minirunc create and start: between them, the container's process waits at a gate.

No process of minirunc stays. Whoever started ``minirunc create``, a container engine, inherits the container's process,
learns of its end, and calls ``kill`` and ``delete``.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os

from . import starting
from .bundle.values import BundleError
from .container import container, guardian
from .container.descriptors import Passed
from .container.gate import STARTING
from .pid_file import PidFile
from .reports import remark
from .state import State, find
from .state_files import GATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .starting import Order

_LONGEST_ANSWER = 1 << 16


def create(order: Order) -> int:
    """Create a container whose process waits for ``start``.

    Raises:
        BundleError, OSError, ActivationError: the container cannot be created. Nothing of it is left.
    """
    passed = Passed(order.preserve_fds)
    config = starting.load(order)
    if os.environ.get("NOTIFY_SOCKET") and "NOTIFY_SOCKET" not in config.process.env:
        remark(
            "not applied: NOTIFY_SOCKET of the environment, because minirunc create does not stay to forward what the "
            "container tells; minirunc run does"
        )
    inherited = guardian.children()
    state = State(order.root, order.identity)
    state.claim()
    pid_file = None
    is_created = False
    try:
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # if it were ignored, waitpid() would fail
        start = container.Start(config, passed, mask, order.permissive, new_keyring=order.new_keyring)
        start.gate = state.bind(GATE, _socket.SOCK_SEQPACKET)
        start.gate.listen(1)
        if order.pid_file:
            pid_file = PidFile(order.pid_file)

        def created(pid: int) -> None:
            state.write(starting.document(state, config, pid, keep=True) | {"has_gate": True})
            if pid_file:
                pid_file.write(pid)

        guardian_pid, _, _ = starting.fork(start, state, keep=False, created=created)
        # The guardian's child becomes this process's, and when this process exits, its parent's.
        os.kill(guardian_pid, _signal.SIGKILL)
        os.waitpid(guardian_pid, 0)
        is_created = True
        return 0
    finally:
        if pid_file:
            pid_file.close()
        if not is_created:
            state.remove()
            # The guardian is ended last: if this process is killed before, the guardian removes the state.
            guardian.end_children(inherited)


def start(root: str, identity: str) -> int:
    """Let the process of a created container execute its program.

    Raises:
        BundleError: there is no such container, it was started before, or its program cannot be executed.
    """
    state = find(root, identity)
    status = state.read()["status"]
    if status != "created":
        raise BundleError(f"container {identity} is {status}; expected a created one to start")
    gate = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    folder = os.open(state.folder, os.O_PATH | os.O_CLOEXEC)  # its path may be too long for a socket's
    try:
        gate.connect(f"/proc/self/fd/{folder}/{GATE}")
        gate.send(STARTING)
        answer = gate.recv(_LONGEST_ANSWER)
        # The exec closes the other end.
        failure = gate.recv(_LONGEST_ANSWER) if answer == STARTING else answer
    except (ConnectionError, FileNotFoundError):
        answer = failure = b""
    finally:
        os.close(folder)
        gate.close()
    if answer != STARTING:
        raise BundleError(f"container {identity} has just ended, or somebody else has started it")
    if failure:
        raise BundleError(failure.partition(b" ")[2].decode(errors="replace"))
    state.unlink(GATE)
    return 0
