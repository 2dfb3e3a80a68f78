"""Daemons that live on serve(), as units of a manager."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tests.commands import connect, receive

if TYPE_CHECKING:
    import socket

    from .manager import Manager

# It does what its clients say, and echoes.
ECHO = """
import logging, os, sys, time
import trio
import activation

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

async def echo(stream):
    async for data in stream:
        if data == b"block":
            print("stuck", file=sys.stderr, flush=True)
            time.sleep(1000)
        if data == b"fail":
            raise RuntimeError("as I was told")
        await stream.send_all(data)

{code}
trio.run(lambda: activation.serve(echo, {options}))
"""

# Quick restarts are what is tested, not how soon the manager has enough of them.
OFTEN_UNIT = "StartLimitIntervalSec=0\n"
OFTEN_SOCKET = "TriggerLimitIntervalSec=0\nBacklog=4096\n"


def add_echo(
    manager: Manager,
    *,
    options: str = "",
    code: str = "",
    unit: str = OFTEN_UNIT,
    socket: str = OFTEN_SOCKET,
    service: str = "",
) -> Path:
    """Add echo.service and echo.socket, and start the socket; return where to connect.

    Args:
        options: of activation.serve, as Python has them.
        code: what the daemon does before it calls activation.serve.
        unit: more of the service's [Unit].
        socket: more of the socket's [Socket].
        service: more of the service's [Service].
    """
    manager.add_program("echod", ECHO.format(code=code, options=options))
    manager.add(
        {
            "echo.socket": f"[Socket]\nListenStream=/run/echo.sk\n{socket}",
            "echo.service": f"[Unit]\n{unit}\n[Service]\nType=notify\nExecStart=echod\n{service}",
        }
    )
    manager.systemctl("start", "echo.socket")
    return manager.path("/run/echo.sk")


def fifo(manager: Manager, name: str) -> Path:
    """A pipe that a daemon waits on until the test writes to it."""
    path = manager.folder / name
    os.mkfifo(path)
    return path


def processes(manager: Manager, unit: str = "echo.service") -> list[int]:
    """The processes of a service, by their numbers outside: faster than any question to the manager."""
    try:
        text = manager.path(f"/sys/fs/cgroup/system.slice/{unit}/cgroup.procs").read_text()
    except OSError:  # no such service now
        return []
    return [int(number) for number in text.split()]


def cpu_seconds(pid: int) -> float:
    """How long a process has run on a CPU."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(path: object, data: bytes) -> bytes:
    """Connect, send the data, and return what comes back until the daemon closes the connection."""
    import socket

    with connect(path) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return receive(sock, len(data) + 1)


def ended(sock: socket.socket) -> bool:
    """Wait for the connection's end, whether it is closed or reset; False if data comes first."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
