"""Child processes that are activated without this project's help, and what the tests look at in processes."""

from __future__ import annotations

import ctypes
import fcntl
import gc
import os
import select
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from activation import _notify_socket

from .commands import LIMIT, command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PR_SET_CHILD_SUBREAPER = 36

# LISTEN_PID=self stands for the child's own number, LISTEN_PIDFDID=self for its pidfd's inode number.
PRELUDE = """
import os, sys
for number, source in enumerate({sources}, 3):
    os.dup2(source, number)
for source in {sources}:
    os.close(source)
if os.environ.get("LISTEN_PID") == "self":
    os.environ["LISTEN_PID"] = str(os.getpid())
if os.environ.get("LISTEN_PIDFDID") == "self":
    pidfd = os.pidfd_open(os.getpid())
    os.environ["LISTEN_PIDFDID"] = str(os.fstat(pidfd).st_ino)
    os.close(pidfd)
import activation
"""


def run_activated(
    code: str, passed: Sequence[socket.socket | int] = (), env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code that finds ``passed`` at 3, 4, ... and ``activation`` imported."""
    copies = [fcntl.fcntl(item, fcntl.F_DUPFD_CLOEXEC, 200) for item in passed]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
    if env is None:
        env = {"LISTEN_PID": "self", "LISTEN_FDS": str(len(passed))}
    try:
        return subprocess.run(
            [sys.executable, "-c", PRELUDE.format(sources=copies) + code],
            pass_fds=copies,
            env={**variables, **env},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    finally:
        for copy in copies:
            os.close(copy)


def output(code: str, passed: Sequence[socket.socket | int] = (), env: Mapping[str, str] | None = None) -> str:
    """What the code prints; it must end well, and warn at most of what was meant for another process."""
    done = run_activated(code, passed, env)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if not line.startswith("no descriptors were passed: ")]
    return done.stdout.strip()


def open_descriptors(pid: int | str = "self") -> dict[int, str]:
    """The descriptors of a process and what each of them is."""
    folder = f"/proc/{pid}/fd"
    found = {}
    for number in os.listdir(folder):
        try:
            found[int(number)] = os.readlink(f"{folder}/{number}")
        except FileNotFoundError:
            pass  # the one that listed the folder
    return found


@contextmanager
def no_leak() -> Iterator[None]:
    """See to it that the block leaves as many descriptors open as it found, but for the socket that notify() keeps."""
    gc.collect()  # what an earlier test left behind is not this block's
    before = _without_notify_sockets(open_descriptors())
    yield
    after = _without_notify_sockets(open_descriptors())
    assert after == before, f"{before.items() ^ after.items()}"


@contextmanager
def inheriting_orphans() -> Iterator[None]:
    """Be the parent of every process that the block starts, however indirectly, and that loses its own parent.

    At its end the block waits for all of them: no event of theirs is left to come then.
    """
    before = _own_children()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        try:
            yield
        finally:
            # What ends may leave orphans of its own.
            while left := _own_children() - before:
                for pid in left:
                    _wait_for(pid)
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _wait_for(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([pidfd], [], [], LIMIT)[0], f"process {pid} does not end: {command_line(pid)!r}"
        os.waitpid(pid, 0)
    finally:
        os.close(pidfd)


def _own_children() -> set[int]:
    return {int(pid) for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}


def _without_notify_sockets(descriptors: dict[int, str]) -> dict[int, str]:
    kept = _notify_socket.kept()
    return {number: what for number, what in descriptors.items() if number not in kept}


def tcp_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def inode(item: socket.socket | int) -> int:
    return os.fstat(item if isinstance(item, int) else item.fileno()).st_ino
