"""Supervises a running container, on trio: forwards signals to it, and to the service manager what it tells."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import trio

from activation_cmd.common.journal import say_log

from .container.guardian import read_status
from .notify_proxy import NotifyProxy
from .reports import remark

if TYPE_CHECKING:
    import _socket

NOT_SENT_ON: Final = frozenset(
    # These are the kernel's to minirunc itself, or cannot be caught.
    signal.Signals[f"SIG{name}"]
    for name in ["KILL", "STOP", "CHLD", "PIPE", "SEGV", "BUS", "ILL", "FPE", "TRAP", "SYS"]
)
_SIGINFO_SIZE: Final = 128  # struct signalfd_siginfo, signalfd(2)


def run(guardian_pid: int, pid: int, ended: int, signals: int, notify: _socket.socket | None) -> int:
    """Supervise the container until it has ended; return its exit status.

    Args:
        guardian_pid: the guardian, which gets the signals for the container.
        pid: the container's first process.
        ended: the pipe to which the guardian writes the exit status.
        signals: the signalfd(2) from which this process's signals are read.
        notify: the socket that receives what the container tells the service manager.
    """
    say_log("minirunc", remark)
    return trio.run(_supervise, guardian_pid, ended, signals, NotifyProxy(notify, pid) if notify else None)


async def _supervise(guardian_pid: int, ended: int, signals: int, proxy: NotifyProxy | None) -> int:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_signals_on, signals, guardian_pid, proxy)
        if proxy:
            nursery.start_soon(proxy.run)
        await trio.lowlevel.wait_readable(ended)
        if proxy:
            await proxy.finish()
        nursery.cancel_scope.cancel()
    return read_status(ended)


async def _send_signals_on(signals: int, guardian_pid: int, proxy: NotifyProxy | None) -> None:
    while True:
        await trio.lowlevel.wait_readable(signals)
        info = os.read(signals, _SIGINFO_SIZE)
        number, sender = (int.from_bytes(info[at : at + 4], sys.byteorder) for at in (0, 12))
        # A service manager that knows the main process sends its signals to that process as well. Forwarded, they would
        # arrive twice. SYSTEMD_EXEC_PID tells that the parent is a service manager.
        managed = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()) and sender == os.getppid()
        if number not in NOT_SENT_ON and not (managed and proxy and proxy.announced):
            os.kill(guardian_pid, number)
