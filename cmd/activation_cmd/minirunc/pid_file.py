"""The file of --pid-file."""

from __future__ import annotations

import os


class PidFile:
    """A file for the number of the container's process. Whoever reads it finds all of the number, or nothing."""

    __slots__ = ("_file", "_new", "_path")

    def __init__(self, path: str) -> None:
        """Make sure that it can be written, before anything is started."""
        folder, name = os.path.split(path)
        self._path, self._new = path, os.path.join(folder, f".{name}")
        try:
            os.unlink(self._new)  # left by a minirunc that was killed
        except FileNotFoundError:
            pass
        self._file = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def write(self, pid: int) -> None:
        """Write the number, and give the file its name."""
        os.write(self._file, str(pid).encode())
        os.rename(self._new, self._path)

    def close(self) -> None:
        """Remove the file if it has no number yet."""
        os.close(self._file)
        try:
            os.unlink(self._new)
        except OSError:
            pass  # it has its name by now, or cannot be removed
