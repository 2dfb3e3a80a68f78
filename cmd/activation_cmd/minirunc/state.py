"""The state of the containers: a folder for each, below a root folder.

The folder has a file that minirunc and the container's guardian keep locked while they live. If the file is not locked,
both were killed: the next command that looks at the root folder removes the state, unless it is to be kept. After
``minirunc create`` only the container's process holds the lock, until its exec. So the lock also tells whether the
container still waits for ``minirunc start``.
"""

from __future__ import annotations

import _socket
import fcntl
import os

from .bundle.values import BundleError
from .state_files import DOCUMENT, LOCK, UNFINISHED, RootLock, clear

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_LONGEST_ID = 200


def default_root() -> str:
    """Return the root folder for when there is no --root."""
    if os.geteuid() == 0:
        return "/run/minirunc"
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder:
        raise BundleError("XDG_RUNTIME_DIR is not set; expected it, or --root and a folder to keep the state in")
    return os.path.join(folder, "minirunc")


class State:
    """The folder of a container."""

    def __init__(self, root: str, identity: str) -> None:
        if not _LETTERS.issuperset(identity) or identity[:1] in ("", ".") or len(identity) > _LONGEST_ID:
            raise BundleError(
                f"the ID is {identity[:99]!r}; expected letters, digits and _+-. ({_LONGEST_ID} at most), no dot first"
            )
        self.identity = identity
        self.root = os.path.abspath(root)
        self.folder = os.path.join(self.root, identity)
        self._lock = -1

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def claim(self) -> None:
        """Make the folder, and lock it while this process and those that it forks live.

        Raises:
            BundleError: there is a container with this ID.
        """
        os.makedirs(self.root, 0o711, exist_ok=True)
        with RootLock(self.root):
            _sweep(self.root)
            new = os.path.join(self.root, f"{UNFINISHED}.new")  # no ID begins with a dot
            os.mkdir(new)
            os.chmod(new, 0o700)  # or everybody could reach the sockets in it
            self._lock = os.open(os.path.join(new, LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                os.rename(new, self.folder)
            except OSError:
                clear(new)
                raise BundleError(
                    f"there is a container {self.identity} already; expected another ID, or minirunc delete first"
                ) from None

    def write(self, document: dict[str, Any]) -> None:
        """Write the container's state, a JSON object as in the specification: the container was started."""
        import json

        new = self.path(f"{DOCUMENT}.new")
        with open(new, "w") as file:
            json.dump(document, file)
        os.rename(new, self.path(DOCUMENT))

    def read(self) -> dict[str, Any]:
        """Return the state as it was written, with its current status: creating, created, running or stopped.

        Raises:
            BundleError: there is no such container.
        """
        import json

        from .processes import started

        try:
            with open(self.path(DOCUMENT)) as file:
                document: dict[str, Any] = json.load(file)
            began = document["start_time"]  # None if the process had ended by then
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # it is not there yet, or not minirunc's
            if not os.path.exists(self.path(LOCK)):
                raise self.missing() from None
            return {"id": self.identity, "status": "creating", "pid": 0}
        if began is None or started(document["pid"]) != began:
            return document | {"status": "stopped", "pid": 0}
        waits = document.get("has_gate") and self._is_locked()
        return document | {"status": "created" if waits else "running"}

    def missing(self) -> BundleError:
        """Return the error that there is no such container, in the words that podman looks for."""
        return BundleError(f"container {self.identity} does not exist in {self.root}")

    def bind(self, name: str, kind: int) -> _socket.socket:
        """Make a socket in the folder."""
        sock = _socket.socket(_socket.AF_UNIX, kind)
        folder = os.open(self.folder, os.O_PATH | os.O_CLOEXEC)  # its path may be too long for a socket's
        try:
            sock.bind(f"/proc/self/fd/{folder}/{name}")
        finally:
            os.close(folder)
        return sock

    def unlink(self, name: str) -> None:
        """Remove a file of the folder."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            pass

    def pin(self) -> None:
        """Remember which container has the ID now. Soon another one may have it.

        Raises:
            BundleError: there is no such container.
        """
        try:
            self._lock = os.open(self.path(LOCK), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self.missing() from None

    def unpin(self) -> None:
        """Forget the container."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def is_held(self) -> bool:
        """Return whether a process that started the pinned container is alive."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return False

    def _is_locked(self) -> bool:
        """Return whether the lock is held; the container need not be pinned."""
        state = State(self.root, self.identity)
        try:
            state.pin()
            return state.is_held()
        except BundleError:
            return False
        finally:
            state.unpin()

    def wait_until_released(self) -> None:
        """Wait until no process that started the pinned container is alive."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def end(self, *, keep: bool) -> None:
        """Remove the state, unless the container was started and its state is to be kept."""
        if not (keep and os.path.exists(self.path(DOCUMENT))):
            self.remove()

    def remove(self) -> None:
        """Remove the folder of the container that was claimed or pinned, unless another container has it by now.

        Another process may do the same at the same time, or may be killed halfway.
        """
        old = os.path.join(self.root, UNFINISHED + self.identity)
        clear(old)
        try:
            if not os.path.samestat(os.stat(self.path(LOCK)), os.fstat(self._lock)):
                return
            os.rename(self.folder, old)
        except OSError:
            return
        clear(old)

    def remove_alone(self) -> None:
        """Do the same while others may claim the ID."""
        with RootLock(self.root):
            self.remove()


def containers(root: str) -> Iterator[State]:
    """Return the containers below the root folder, after removing what killed ones have left."""
    try:
        with RootLock(root):
            _sweep(root)
    except FileNotFoundError:
        return
    yield from _all(root)


def find(root: str, identity: str) -> State:
    """Return the state of a container.

    Raises:
        BundleError: there is no such container.
    """
    wanted = State(root, identity)
    for state in containers(root):
        if state.identity == identity:
            return state
    raise wanted.missing()


def _all(root: str) -> list[State]:
    names = [name for name in os.listdir(root) if not name.startswith(".")]
    names = sorted(name for name in names if os.path.exists(os.path.join(root, name, LOCK)))
    return [State(root, name) for name in names if _LETTERS.issuperset(name)]


def _sweep(root: str) -> None:
    for name in os.listdir(root):
        if name.startswith(UNFINISHED):
            clear(os.path.join(root, name))
    for state in _all(root):
        try:
            state.pin()
            if not state.is_held() and not (os.path.exists(state.path(DOCUMENT)) and state.read().get("keep")):
                state.remove()
        except BundleError:
            pass  # another process has just removed it
        finally:
            state.unpin()
