"""The guardian: the process between minirunc and the container, which outlives neither and leaves nothing of them.

minirunc forks it, and it forks the container's process. It sends on the signals that minirunc sends it, and reaps what
the container leaves. When minirunc is killed, it kills the container and removes the state; when it is killed itself,
minirunc does that. So it stays until minirunc, which cleans up, then ends it.
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
        supervisor: minirunc's number; once the parent is another one, it was killed.
        channel: tells minirunc of the process, and then that it was started, by its end: exec closes it.
        ended: gets the exit status, one byte, when all of the container is gone.
    """
    mounts = -1
    try:
        os.setsid()  # what kills minirunc's whole group leaves this process to clean up
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        _enter_namespaces(start.config, channel)
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _signal.SIGTERM)  # which wakes it up, no more
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
    """What only a child is born into, or must own the rest; and what is joined, as long as there is the right to."""
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
    """Until the supervisor is gone: pass on its signals, and tell it when the process has ended and with what."""
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
        elif running and signal.si_pid == supervisor == os.getppid():  # else it is its death that woke this one
            os.kill(pid, signal.si_signo)


def _reap(pid: int) -> int | None:
    """Reap whoever has ended; return the exit status if the process was among them: 128 + n for a signal n."""
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
    """The exit status that the guardian has written; if it was killed, its child was killed with it."""
    status = os.read(ended, 1)
    return status[0] if status else 128 + int(_signal.SIGKILL)


def children() -> set[int]:
    """The processes whose parent this one is."""
    with open("/proc/thread-self/children") as file:
        return {int(pid) for pid in file.read().split()}


def end_children(spared: Collection[int] = ()) -> None:
    """Kill what is left below this process, generation after generation: it inherits what its children leave.

    Args:
        spared: children that it had before.
    """
    while ours := children().difference(spared):
        for pid in ours:
            os.kill(pid, _signal.SIGKILL)
        for pid in ours:
            os.waitpid(pid, 0)


def _held_mount_namespace(ask: _socket.socket, pid: int) -> int:
    """A descriptor of the namespace that the process has made; it holds its inode number, which is used again else."""
    if not ask.recv(1):
        return -1  # it has ended before
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    ask.send(b"!")
    return mounts


def _end_joined(mounts: int) -> None:
    """Kill what is left in the mount namespace: where a PID namespace was joined, nobody here inherits it."""
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
