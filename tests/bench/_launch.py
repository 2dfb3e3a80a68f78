"""The one launcher of all benchmarks: fork, descriptors at 3, 4, ... and exec; the same for every contestant."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import activation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PATIENCE = 30
"""Seconds until a program that does not answer is given up."""

FORKED_BEFORE = 3
"""Children of a socket-activate that waits: its executor, one that waits for a client, one for the next service."""


_numbers = itertools.count()


def clean_environment() -> None:
    """Let no child take over what is about this process, or start without writing its byte code."""
    for variable in list(os.environ):
        if variable.startswith(("PYTHON", "LISTEN_", "WATCHDOG_")) or variable == "NOTIFY_SOCKET":
            del os.environ[variable]
    sys.dont_write_bytecode = False


def raise_open_file_limit() -> int:
    """Let this process and its children have as many descriptors as they may; return how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Program:
    """A program that runs, and what it says on standard output and error."""

    def __init__(self, pid: int, output: IO[bytes], command: Sequence[str]) -> None:
        self.pid = pid
        self._output = output
        self._command = command
        self._status: int | None = None

    def wait(self) -> None:
        """Wait for its end.

        Raises:
            RuntimeError: it failed, or goes on.
        """
        before = signal.signal(signal.SIGALRM, self._give_up)
        signal.alarm(PATIENCE)
        try:
            _, status = os.waitpid(self.pid, 0)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        self._status = os.waitstatus_to_exitcode(status)
        if self._status:
            raise self.failure(f"ended with status {self._status}")

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            self._status = os.waitstatus_to_exitcode(status)

    def said(self) -> str:
        # Not by seeking: the program writes where the shared offset is.
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace")

    def wait_until_said(self, words: str) -> None:
        """Wait until these words are in its output.

        Raises:
            RuntimeError: they are not, after a while.
        """
        deadline = time.monotonic() + PATIENCE
        while words not in self.said():
            if time.monotonic() > deadline:
                raise self.failure(f"did not say {words!r}")
            time.sleep(0.005)

    def wait_for_children(self, count: int) -> None:
        """Wait until it has as many children.

        Raises:
            RuntimeError: it has fewer, after a while.
        """
        deadline = time.monotonic() + PATIENCE
        while len(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()) < count:
            if time.monotonic() > deadline:
                raise self.failure(f"has not {count} children")
            time.sleep(0.005)

    def _give_up(self, *_: object) -> None:
        raise self.failure(f"did not end in {PATIENCE} s")

    def failure(self, what: str) -> RuntimeError:
        return RuntimeError(f"{' '.join(self._command)} {what}; its output was: {self.said() or 'nothing'}")


@contextmanager
def running(
    command: Sequence[str],
    files: Sequence[tuple[str, socket.socket]] = (),
    variables: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Start a program with these files, and more variables; it has ended when the block is left."""
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            _become(command, files, {**os.environ, **(variables or {})}, output)
        program = Program(pid, output, command)
        try:
            yield program
        finally:
            program.kill()


def _become(
    command: Sequence[str], files: Sequence[tuple[str, socket.socket]], env: Mapping[str, str], output: IO[bytes]
) -> None:
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        activation.exec_process(command, files, env=env)
    except BaseException as error:
        os.write(2, f"cannot start it: {error}".encode())
    finally:
        os._exit(127)


def listening_socket(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen()
    return sock


def unix_listener(folder: str) -> tuple[socket.socket, str]:
    """Return a listening socket with a name of its own in the folder, and its path."""
    path = os.path.join(folder, f"{next(_numbers)}.sk")
    return listening_socket(path), path


def first_byte(client: socket.socket, program: Program) -> None:
    """Send a byte and wait until it comes back.

    Raises:
        RuntimeError: something else happens.
    """
    client.settimeout(PATIENCE)
    try:
        client.sendall(b"x")
        answer = client.recv(1)
    except OSError as error:
        raise program.failure(f"did not echo: {error}") from None
    if answer != b"x":
        raise program.failure(f"answered {answer!r}")
