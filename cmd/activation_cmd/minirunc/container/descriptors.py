"""How a container runtime takes the descriptors of an activation, and hands them to what runs inside.

That is two calls, files() before the fork and exec_process() after it; all else of a runtime is in other modules.
"""

from __future__ import annotations

import os

import activation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn


class Passed:
    """What minirunc was started with: the descriptors of LISTEN_FDS, then those that --preserve-fds tells of."""

    def __init__(self, preserve_fds: int) -> None:
        """Take them, before anything else is opened.

        Raises:
            ActivationError: the variables of the activation cannot be true.
            OSError: a descriptor to preserve is not open.
        """
        self._files = activation.files(unset_env=False)
        self._exec_process = activation.exec_process  # which is loaded by this: there is no Python in the container
        first = 3 + len(self._files)
        self._extra = range(first, first + preserve_fds)
        for number in self._extra:
            try:
                os.set_inheritable(number, False)
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"--preserve-fds is {preserve_fds}; expected descriptors {first} to {self._extra[-1]} to be open, "
                    f"but {number} is not",
                ) from None

    def become(self, args: Sequence[str], env: Mapping[str, str], *, own_pid_namespace: bool) -> NoReturn:
        """Become the container's process, with all of them at 3, 4, ... and the variables that say so."""
        listen_pid = 1 if own_pid_namespace else None
        self._exec_process(args, self._files, extra=self._extra, env=env, listen_pid=listen_pid)

    def close(self) -> None:
        """Close this process's copies, or a connection that the container closes would stay open."""
        for file in self._files:
            file.close()
        for number in self._extra:
            os.close(number)
