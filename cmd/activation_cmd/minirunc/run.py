"""minirunc run: from the bundle to the container's exit status, everything light until the container runs."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import os

import activation
from activation_cmd.common.stdio import say

from .bundle import config as configuration
from .bundle.values import BundleError
from .container import container, guardian, syscalls
from .container.descriptors import Passed
from .container.filesystem import NOTIFY_SOCKET
from .state import NOTIFY, State, now, started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .bundle.config import Config

HEAD_START = 200
"""Milliseconds: a client is waiting for the container, and loading trio would take a processor from it."""


def run(
    root: str,
    identity: str,
    *,
    bundle: str,
    preserve_fds: int,
    pid_file: str,
    keep: bool,
    strict: bool,
    permissive: Collection[str],
    new_keyring: bool,
) -> int:
    """Run a container to its end; return its exit status, 128 + n for a signal n.

    Raises:
        BundleError, OSError, ActivationError: it cannot be started. Nothing is left of it.
    """
    passed = Passed(preserve_fds)
    config = configuration.load(bundle)
    _check(config, permissive, strict=strict)
    inherited = guardian.children()
    state = State(root, identity)
    state.claim()
    pid_path = None
    try:
        # From here on signals wait, and are read when there is somebody to send them on to.
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # ignored, it would never come
        notify = _notify_socket(state)
        socket_path = state.path(NOTIFY) if notify else None
        environment = _manager_environment(config) if notify else {}
        if pid_file:
            pid_path = _PidFile(pid_file)
        start = container.Start(config, passed, socket_path, environment, mask, permissive, new_keyring=new_keyring)
        guardian_pid, pid, ended = _start(start, state, keep=keep)
        passed.close()
        state.write(_document(state, config, pid, keep=keep))
        if pid_path:
            pid_path.write(pid)

        signals = syscalls.signalfd(_signal.valid_signals())
        if _ended_soon(ended, signals, notify):
            return guardian.read_status(ended)
        # The container works already. Now is the time for what takes long to load.
        from . import supervise

        gc.freeze()
        gc.enable()
        return supervise.run(guardian_pid, pid, ended, signals, notify)
    finally:
        if pid_path:
            pid_path.close()
        state.end(keep=keep)
        guardian.end_children(inherited)  # last: until then it would remove the state, were this process killed


def _check(config: Config, permissive: Collection[str], *, strict: bool) -> None:
    if os.geteuid() != 0 and "user" not in config.namespaces:
        raise BundleError(
            "linux.namespaces has no user; expected it of whoever is not root: minirunc spec --rootless has such a "
            "configuration"
        )
    if refused := config.unapplied.refused(permissive, strict=strict):
        told = ", ".join(what for each in refused.values() for what in each)
        raise BundleError(
            f"minirunc cannot apply {told}; expected a configuration without it, or --permissive={','.join(refused)} "
            "to run the container all the same"
        )
    if told := ", ".join(config.unapplied.told()):
        say("minirunc", f"not applied: {told}")


def _start(start: container.Start, state: State, *, keep: bool) -> tuple[int, int, int]:
    """Fork the guardian, and wait until the container's process has become its program.

    Returns:
        The numbers of the two, and what the exit status will be read from.
    """
    reading, writing = os.pipe()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()
    guardian_pid = os.fork()
    if not guardian_pid:
        ours.close()
        guardian.guard(start, supervisor, theirs, writing, lambda: state.end(keep=keep))
    theirs.close()
    os.close(writing)
    pid = 0
    while message := ours.recv(1 << 16):
        kind, _, text = message.partition(b" ")
        if kind == b"map":
            from .container import id_maps

            id_maps.write(guardian_pid, start.config)
            ours.send(b"mapped")
        elif kind == b"forked":
            pid = int(text)
        elif kind == b"remark":
            say("minirunc", text.decode(errors="replace"))
        else:
            raise BundleError(text.decode(errors="replace"))
    ours.close()
    if not pid:
        raise BundleError("the container's guardian ended before it started anything; was it killed?")
    return guardian_pid, pid, reading


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
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    folder = os.open(state.folder, os.O_PATH | os.O_CLOEXEC)  # its path may be too long for a socket's
    sock.bind(f"/proc/self/fd/{folder}/{NOTIFY}")
    os.close(folder)
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


def _document(state: State, config: Config, pid: int, *, keep: bool) -> dict[str, object]:
    return {
        "ociVersion": config.version,
        "id": state.identity,
        "pid": pid,
        "bundle": config.bundle,
        "rootfs": config.rootfs,
        "created": now(),
        "annotations": config.annotations,
        "start_time": started(pid),
        "keep": keep,
    }


class _PidFile:
    """The file of --pid-file. Who reads it finds all of the number or nothing."""

    __slots__ = ("_file", "_new", "_path")

    def __init__(self, path: str) -> None:
        """See whether it can be written, before anything is started."""
        folder, name = os.path.split(path)
        self._path, self._new = path, os.path.join(folder, f".{name}")
        try:
            os.unlink(self._new)  # of one that was killed here
        except FileNotFoundError:
            pass
        self._file = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, pid: int) -> None:
        os.write(self._file, str(pid).encode())
        os.rename(self._new, self._path)

    def close(self) -> None:
        """Leave nothing unfinished."""
        os.close(self._file)
        try:
            os.unlink(self._new)
        except OSError:
            pass  # it has its name by now; or it cannot be removed, and there is more to be ended
