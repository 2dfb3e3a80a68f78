"""How a container runtime takes the descriptors of an activation and hands them to the program inside.

It takes two calls: files() before the fork, and exec_process() after it.
"""

from __future__ import annotations

import os

import activation
from activation_cmd.minirunc.bundle.values import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn


class Passed:
    """The descriptors that minirunc was passed: first those of LISTEN_FDS, then as many as --preserve-fds says."""

    def __init__(self, preserve_fds: int) -> None:
        """Take the descriptors, before anything else is opened.

        Raises:
            ActivationError: the variables of the activation are wrong.
            OSError: a descriptor to preserve is not open.
        """
        self._files = activation.files(unset_env=False)
        self._exec_process = activation.exec_process  # this loads it, which cannot be done in the container
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

    @property
    def above(self) -> int:
        """Return the first number above those that the descriptors will have in the container."""
        return 3 + len(self._files) + len(self._extra)

    def become(
        self,
        program: str,
        args: Sequence[str],
        env: Mapping[str, str],
        *,
        own_pid_namespace: bool,
        before: Callable[[], object],
    ) -> NoReturn:
        """Execute the program, with the descriptors at 3, 4, ... and the variables that say so.

        Podman passes the descriptors of an activation by --preserve-fds alone, and writes the variables into
        config.json: there, LISTEN_FDS and LISTEN_FDNAMES tell of the first ones.

        Args:
            before: called when nothing but the exec is left to do.

        Raises:
            BundleError: LISTEN_FDS of process.env tells of more descriptors than were passed.
            OSError: there is no such program.
        """
        files: Sequence[activation.File | tuple[str, int]] = self._files
        extra = self._extra
        if not files and extra:
            files = [*zip(_names(env, len(extra)), extra, strict=False)]
            extra = extra[len(files) :]
        listen_pid = 1 if own_pid_namespace else None
        self._exec_process(args, files, extra=extra, env=env, listen_pid=listen_pid, executable=program, before=before)

    def close(self) -> None:
        """Close this process's copies. Else a connection that the container closes would stay open."""
        for file in self._files:
            file.close()
        for number in self._extra:
            os.close(number)


def _names(env: Mapping[str, str], most: int) -> list[str]:
    """Return the names of the descriptors that the variables of config.json announce, "" for one without a name."""
    count = env.get("LISTEN_FDS", "0")
    if not (count.isascii() and count.isdigit() and len(count) < 10 and int(count) <= most):
        raise BundleError(f"process.env has LISTEN_FDS={count}; expected at most {most}, as many as --preserve-fds")
    names = env.get("LISTEN_FDNAMES", "").split(":")
    return [*names, *[""] * int(count)][: int(count)]
