"""The files of the containers' state, and the lock that keeps two commands from claiming one ID."""

from __future__ import annotations

import fcntl
import os

LOCK, DOCUMENT, NOTIFY, GATE = "minirunc.lock", "state.json", "notify", "gate"
"""The files in the folder of a container."""

UNFINISHED = ".minirunc-"
"""How the names of folders begin that are being made or removed. No ID begins with a dot."""


class RootLock:
    """While it is held, nobody else claims an ID below the root folder."""

    def __init__(self, root: str) -> None:
        self._descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def clear(folder: str) -> None:
    """Remove the folder of a container with its files, as far as they are there and can be removed."""
    for name in (NOTIFY, GATE, DOCUMENT, f"{DOCUMENT}.new", LOCK):
        try:
            os.unlink(os.path.join(folder, name))
        except OSError:
            pass
    try:
        os.rmdir(folder)
    except OSError:
        pass
