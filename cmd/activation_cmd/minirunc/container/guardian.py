"""The guardian: a process between minirunc and the container, which cleans up if minirunc is killed.

minirunc forks the guardian, and the guardian forks the container's process. The guardian forwards the signals that
minirunc sends it, and reaps the orphans of the container. If minirunc is killed, it kills the container and removes the
state. If the guardian is killed, minirunc does that. When the container has ended, minirunc cleans up and ends the
guardian.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os

from activation_cmd.minirunc.bundle.kernel import CLONE_NEWPID, CLONE_NEWTIME, CLONE_NEWUSER
from activation_cmd.minirunc.bundle.values import At, BundleError

from . import container, privileges, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import NoReturn

    from activation_cmd.minirunc.bundle.config import Config


def guard(
    start: container.Start, supervisor: int, channel: _socket.socket, ended: int, remove_state: Callable[[], None]
) -> NoReturn:
    """Fork the container's process and watch over it.

    Args:
        supervisor: minirunc's process number. If the parent is another process, minirunc was killed.
        channel: tells minirunc the number of the container's process; the exec closes it.
        ended: gets the exit status, one byte, when no process of the container is left.
    """
    mounts = -1
    try:
        os.setsid()  # a signal to minirunc's whole process group leaves this process to clean up
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        _enter_namespaces(start.config, channel)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _signal.SIGTERM)  # which only wakes this process up
        alive, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        ask, answer = _socket.socketpair()
        if start.config.namespaces.get("pid"):
            start.asked = answer
        pid = os.fork()
        if not pid:
            os.close(end)
            ask.close()
            container.run(start, channel, alive)
        answer.close()
        if start.asked:
            mounts = _held_mount_namespace(ask, pid)
        ask.close()
        channel.send(b"forked %d" % pid)
        channel.close()
        start.passed.close()
        _watch(supervisor, pid, ended, mounts)
    except BaseException as error:
        container.tell_failure(channel, error)
    finally:
        try:
            end_children()
            _end_joined(mounts)
            remove_state()
        finally:
            os._exit(1)


def _enter_namespaces(config: Config, channel: _socket.socket) -> None:
    """Enter the namespaces that hold for children only, or own the others, and join those that have a path."""
    score = config.process.oom_score_adj
    if score is not None:
        with At("process.oomScoreAdj"), open("/proc/self/oom_score_adj", "w") as file:
            file.write(str(score))
    privileges.give_streams(config)
    container.join(config, ("user", "pid", "uts", "ipc", "network", "cgroup", "time"))
    with At("linux.namespaces: a new user namespace"):
        if config.own_user_namespace:
            syscalls.unshare(CLONE_NEWUSER)
    if config.own_user_namespace:
        channel.send(b"map")
        if channel.recv(16) != b"mapped":
            raise BundleError("minirunc was ended before the numbers of the user namespace were written")
    with At("linux.namespaces"):
        if config.own_pid_namespace:
            syscalls.unshare(CLONE_NEWPID)
        if config.namespaces.get("time") == "":
            syscalls.unshare(CLONE_NEWTIME)
    if config.time_offsets:
        text = "".join(f"{clock} {seconds} {rest}\n" for clock, (seconds, rest) in config.time_offsets.items())
        with At("linux.timeOffsets"), open("/proc/self/timens_offsets", "w") as file:
            file.write(text)


def _watch(supervisor: int, pid: int, ended: int, mounts: int) -> None:
    """Until minirunc ends, forward its signals, and tell it the exit status when the container has ended."""
    signals = _signal.valid_signals()
    running = True
    while os.getppid() == supervisor:
        signal = _signal.sigwaitinfo(signals)
        if signal.si_signo == _signal.SIGCHLD:
            if running and (status := _reap(pid)) is not None:
                running = False
                end_children()
                _end_joined(mounts)
                os.write(ended, bytes([status]))
        elif running and signal.si_pid == supervisor == os.getppid():  # if minirunc is gone, its death sent this
            os.kill(pid, signal.si_signo)


def _reap(pid: int) -> int | None:
    """Reap all that have ended; return the exit status of the process if it is among them, 128 + n for signal n."""
    status = None
    try:
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            if ended[0] == pid:
                code = os.waitstatus_to_exitcode(ended[1])
                status = code if code >= 0 else 128 - code
    except ChildProcessError:
        pass
    return status


def read_status(ended: int) -> int:
    """Return the exit status that the guardian has written. If the guardian was killed, so was its child."""
    status = os.read(ended, 1)
    return status[0] if status else 128 + int(_signal.SIGKILL)


def children() -> set[int]:
    """Return the children of this process."""
    with open("/proc/thread-self/children") as file:
        return {int(pid) for pid in file.read().split()}


def end_children(spared: Collection[int] = ()) -> None:
    """Kill all children, and the orphans that they leave, until there are none.

    Args:
        spared: children to leave alone.
    """
    while ours := children().difference(spared):
        for pid in ours:
            os.kill(pid, _signal.SIGKILL)
        for pid in ours:
            os.waitpid(pid, 0)


def _held_mount_namespace(ask: _socket.socket, pid: int) -> int:
    """Open the mount namespace that the process has made, so that its inode number is not used again."""
    if not ask.recv(1):
        return -1  # it ended before
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    ask.send(b"!")
    return mounts


def _end_joined(mounts: int) -> None:
    """Kill the processes in the mount namespace. In a joined PID namespace, orphans are not inherited here."""
    if mounts < 0:
        return
    inode = os.fstat(mounts).st_ino
    while left := [pid for pid in filter(str.isdecimal, os.listdir("/proc")) if _mounts(pid) == inode]:
        for pid in left:
            try:
                os.kill(int(pid), _signal.SIGKILL)
            except ProcessLookupError:
                pass


def _mounts(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return -1
