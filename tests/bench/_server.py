"""A server that is up, under the load of a C program."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Self

from ._launch import PATIENCE, Program, running

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

LIFE = 10
"""Rounds until a server is started anew: a process may be a few percent luckier than the next."""


class Server:
    """A contestant under one load.

    Args:
        command: the server, which finds its socket at 3.
        make_socket: gives a socket for it, and the address to tell the load.
        load: the load's program and what it is told between the address and the server's process number. It prints
            how much it did, in how many seconds, and how many of these the server and itself were on a core.
        manager: what there is around each life of the server; it gives variables for the server's environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        make_socket: Callable[[], tuple[socket.socket, str]],
        load: Sequence[str],
        manager: Callable[[], AbstractContextManager[Mapping[str, str] | None]] = nullcontext,
    ) -> None:
        self.cpu: list[float] = []
        """Seconds on a core for each thing that was done, by slice."""
        self.load_share: list[float] = []
        """Seconds on a core that the load needed for a second of it, by slice."""
        self._command = command
        self._make_socket = make_socket
        self._load = load
        self._manager = manager
        self._slices = 0
        self._life = ExitStack()
        self._address = ""
        self._process: Program

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._life.close()

    def slice(self) -> float:
        """Put it under the load; return the seconds that one of the things took that it did.

        Raises:
            RuntimeError: the load ended with an error.
        """
        if self._slices % LIFE == 0:
            self._restart()
        self._slices += 1
        program, *how = self._load
        command = [program, self._address, *how, str(self._process.pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * PATIENCE, check=False)
        if done.returncode:
            raise self._process.failure(f"under {' '.join(how)}: {done.stderr.strip() or done.returncode}")
        count, seconds, cpu, load_cpu = map(float, done.stdout.split())
        self.cpu.append(cpu / count)
        self.load_share.append(load_cpu / seconds)
        return seconds / count

    def _restart(self) -> None:
        self._life.close()
        sock, self._address = self._make_socket()
        with sock:
            variables = self._life.enter_context(self._manager())
            self._process = self._life.enter_context(running(self._command, [("foobar.socket", sock)], variables))
