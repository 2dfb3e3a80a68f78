"""The state of the containers: a folder of each below a root folder.

The folder has a file that minirunc and the container's guardian hold locked as long as they live. Where nobody holds
it, both were killed, and whoever next looks at the root folder removes what they left; with --keep, it is kept.
"""

from __future__ import annotations

import fcntl
import os
import time

from .bundle.values import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

LOCK, DOCUMENT, NOTIFY = "minirunc.lock", "state.json", "notify"
_FILES = (NOTIFY, DOCUMENT, f"{DOCUMENT}.new", LOCK)

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_LONGEST_ID = 200

# Of folders that are being made or removed. No ID begins with a dot: what has such a name belongs to nobody.
_UNFINISHED = ".minirunc-"


def default_root() -> str:
    """Where the state is without --root."""
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
        """Make the folder and lock it for the life of this process and those that it forks.

        Raises:
            BundleError: there is such a container.
        """
        os.makedirs(self.root, 0o711, exist_ok=True)
        with _RootLock(self.root):
            _sweep(self.root)
            new = os.path.join(self.root, f"{_UNFINISHED}.new")  # no ID begins with a dot
            os.mkdir(new)
            os.chmod(new, 0o700)  # or everybody could tell the service manager through the socket in it
            self._lock = os.open(os.path.join(new, LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                os.rename(new, self.folder)
            except OSError:
                _clear(new)
                raise BundleError(
                    f"there is a container {self.identity} already; expected another ID, or minirunc delete first"
                ) from None

    def write(self, document: dict[str, Any]) -> None:
        """Say that the container was started: a JSON object, as the specification's state."""
        import json

        new = self.path(f"{DOCUMENT}.new")
        with open(new, "w") as file:
            json.dump(document, file)
        os.rename(new, self.path(DOCUMENT))

    def read(self) -> dict[str, Any]:
        """What was written, with the status of now.

        Raises:
            BundleError: there is no such container.
        """
        import json

        try:
            with open(self.path(DOCUMENT)) as file:
                document: dict[str, Any] = json.load(file)
            began = document["start_time"]  # None if it had ended by then
        except (FileNotFoundError, ValueError, TypeError, KeyError):  # or it is somebody else's
            if not os.path.exists(self.path(LOCK)):
                raise BundleError(f"there is no container {self.identity} in {self.root}") from None
            return {"id": self.identity, "status": "creating", "pid": 0}
        running = began is not None and started(document["pid"]) == began
        return document | ({"status": "running"} if running else {"status": "stopped", "pid": 0})

    def pin(self) -> None:
        """Remember which container has the ID now: another one may have it before long.

        Raises:
            BundleError: there is no such container.
        """
        try:
            self._lock = os.open(self.path(LOCK), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BundleError(f"there is no container {self.identity} in {self.root}") from None

    def unpin(self) -> None:
        """Forget it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def is_held(self) -> bool:
        """Whether somebody who started the pinned container lives."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return False

    def wait_until_released(self) -> None:
        """Wait until nobody who started the pinned container lives."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def end(self, *, keep: bool) -> None:
        """Remove it, unless it is to be kept and the container was started."""
        if not (keep and os.path.exists(self.path(DOCUMENT))):
            self.remove()

    def remove(self) -> None:
        """Remove the folder of the container that was claimed or pinned, unless it is another one's by now.

        Somebody else may do the same at the same time, or be killed at it.
        """
        old = os.path.join(self.root, _UNFINISHED + self.identity)
        _clear(old)
        try:
            if not os.path.samestat(os.stat(self.path(LOCK)), os.fstat(self._lock)):
                return
            os.rename(self.folder, old)
        except OSError:
            return
        _clear(old)

    def remove_alone(self) -> None:
        """The same where others may claim the ID at any moment."""
        with _RootLock(self.root):
            self.remove()


class _RootLock:
    """Nobody else claims an ID while it is held."""

    def __init__(self, root: str) -> None:
        self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def containers(root: str) -> Iterator[State]:
    """Those below the root folder, once what killed ones left is removed."""
    try:
        with _RootLock(root):
            _sweep(root)
    except FileNotFoundError:
        return
    yield from _all(root)


def _all(root: str) -> list[State]:
    names = [name for name in os.listdir(root) if not name.startswith(".")]
    names = sorted(name for name in names if os.path.exists(os.path.join(root, name, LOCK)))
    return [State(root, name) for name in names if _LETTERS.issuperset(name)]


def _clear(folder: str) -> None:
    for name in _FILES:
        try:
            os.unlink(os.path.join(folder, name))
        except OSError:
            pass
    try:
        os.rmdir(folder)
    except OSError:
        pass


def _sweep(root: str) -> None:
    for name in os.listdir(root):
        if name.startswith(_UNFINISHED):
            _clear(os.path.join(root, name))
    for state in _all(root):
        try:
            state.pin()
            if not state.is_held() and not (os.path.exists(state.path(DOCUMENT)) and state.read().get("keep")):
                state.remove()
        except BundleError:
            pass  # somebody else has just removed it
        finally:
            state.unpin()


def started(pid: int) -> str | None:
    """When the process was started, by the kernel's clock; None where there is none, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:  # a process may have any name
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[19] if fields[0] not in "ZX" else None


def now() -> str:
    """The time as RFC 3339 has it."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09}Z"
