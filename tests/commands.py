"""Running the commands as a user does, and talking to what they run."""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SCRIPTS = Path(sys.executable).parent
FOOBARD, CLIENT, SOCKET_ACTIVATE = (str(SCRIPTS / name) for name in ("foobard", "client", "socket-activate"))
EXEC = """
import os, sys
numbers = sys.argv[1].split()
for target, number in enumerate(numbers, 3):
    os.dup2(int(number), target)
    os.close(int(number))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(numbers)))
os.execv(sys.argv[2], sys.argv[2:])
"""

LIMIT = 80.0
"""Seconds after which a test gives up waiting: before a manager kills what does not stop, after 90."""

_reservations: list[int] = []


def run(*command: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(command, input=stdin, capture_output=True, timeout=LIMIT, check=False, env=env)


@contextmanager
def running(
    *command: str,
    until: bytes = b"",
    status: int | None = None,
    passed: Sequence[socket.socket] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command meanwhile, and end it by SIGTERM; its standard error is a pipe that ``until`` is awaited on.

    Args:
        status: what it must exit with.
        passed: what it finds at 3, 4, ..., put there without this project's help.
    """
    copies = [fcntl.fcntl(sock, fcntl.F_DUPFD_CLOEXEC, 200) for sock in passed]
    if passed:
        command = (sys.executable, "-S", "-c", EXEC, " ".join(map(str, copies)), *command)
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, bufsize=0, pass_fds=copies, env=env
    )
    for copy in copies:
        os.close(copy)
    try:
        said(process, until)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(LIMIT)
        finally:
            process.kill()
            process.wait()
            assert process.stderr
            process.stderr.close()
    assert status is None or process.returncode == status


def said(process: subprocess.Popen[bytes], word: bytes) -> bytes:
    """Read standard error until the word has come; return all that was read."""
    assert process.stderr
    assert not hasattr(process.stderr, "peek"), "it needs bufsize=0: what a buffer holds no poll tells of"
    text, deadline, poll = b"", time.monotonic() + LIMIT, select.poll()
    poll.register(process.stderr, select.POLLIN)
    while word not in text:
        assert poll.poll(max(0.0, deadline - time.monotonic()) * 1000), f"it says no {word!r}: {text.decode()}"
        line = process.stderr.readline()
        assert line, f"it ended without {word!r}: {text.decode()}"
        text += line
    return text


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.01)


def connect(address: object) -> socket.socket:
    """A connection to a path, or to a (host, port)."""
    family = socket.AF_UNIX if isinstance(address, (str, Path)) else socket.AF_INET
    sock = socket.socket(family)
    try:
        sock.settimeout(LIMIT)
        sock.connect(str(address) if isinstance(address, Path) else address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def listens(address: object) -> bool:
    """Whether somebody does."""
    try:
        connect(address).close()
    except OSError:
        return False
    return True


def echoed(sock: socket.socket, data: bytes) -> bytes:
    """Send the data and return as many bytes of what comes back."""
    sock.sendall(data)
    return receive(sock, len(data))


def fill(sock: socket.socket) -> int:
    """Send until it would block; return how many bytes that were."""
    sock.setblocking(False)
    sent = 0
    try:
        while True:
            sent += sock.send(bytes(100_000))
    except BlockingIOError:
        sock.settimeout(LIMIT)
        return sent


def receive(sock: socket.socket, size: int) -> bytes:
    """Return that many bytes, or what comes before the end."""
    received = b""
    while len(received) < size and (more := sock.recv(min(1 << 20, size - len(received)))):
        received += more
    return received


def children(pid: int) -> list[int]:
    """The programs that a process has started, in whichever thread; what it only forked for its own use is none."""
    lists = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    own = command_line(pid)
    return [int(number) for text in lists for number in text.split() if command_line(int(number)) != own]


def command_line(pid: int) -> bytes:
    """What a process was started with, ended by nulls; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def free_port() -> int:
    """A port of this machine, free for TCP and UDP, that nobody else takes before it is used.

    It is none of those that the kernel gives to who asks for no particular one, and this run's until it ends.
    """
    given_away = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = given_away - 1 - secrets.randbelow(given_away // 2)
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0port {port} of the tests")
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(type=kind) as sock:
                    sock.bind(("", port))
        except OSError:
            reservation.close()
            continue
        # Far above the low numbers, which some tests want for themselves.
        _reservations.append(fcntl.fcntl(reservation, fcntl.F_DUPFD_CLOEXEC, 300))
        reservation.close()
        return port


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def resident(pid: int) -> int:
    """A process's memory in bytes."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
