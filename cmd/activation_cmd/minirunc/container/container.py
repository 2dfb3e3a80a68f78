"""The steps of the container's first process, from its fork to its exec."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums, socket without its: they take too long
import _socket
import fcntl
import os
import sys

from activation_cmd.common.stdio import reason, say
from activation_cmd.minirunc.bundle.config import NAMESPACES
from activation_cmd.minirunc.bundle.values import At, BundleError

from . import filesystem, privileges, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    from activation_cmd.minirunc.bundle.config import Config

    from .descriptors import Passed

_LONGEST_REASON = 4000
"""Bytes: what a message of a socket can always have."""

_SIOCSIFFLAGS, _IFF_UP, _IFREQ_SIZE = 0x8914, 1, 40  # netdevice(7)

# The user and PID namespaces are made before the fork, by guardian.py.
_INSIDE = ("uts", "ipc", "network", "cgroup")


class Start:
    """What the container's process is started with.

    Attributes:
        notify_socket: what it finds at NOTIFY_SOCKET, if there is a manager to tell.
        env: what it finds in its environment, whatever the bundle says.
        mask: the signals that are blocked in it.
        asked: who wants to look at its mount namespace as soon as there is one.
    """

    __slots__ = ("asked", "config", "env", "mask", "notify_socket", "passed", "strict")

    def __init__(
        self,
        config: Config,
        passed: Passed,
        notify_socket: str | None,
        env: dict[str, str],
        mask: Iterable[int],
        *,
        strict: bool,
    ) -> None:
        self.config, self.passed, self.strict = config, passed, strict
        self.notify_socket, self.env, self.mask = notify_socket, env, mask
        self.asked: _socket.socket | None = None


def run(start: Start, channel: _socket.socket, alive: int) -> NoReturn:
    """Go through all the steps, and become the container's process; or tell ``channel`` why not, and exit.

    Args:
        alive: a pipe that ends with the process that forked this one.
    """
    try:
        _live_as_long_as(alive)
        os.setsid()
        _keep_to_itself()
        _become(start, alive)
    except BaseException as error:
        tell_failure(channel, error)
    finally:
        os._exit(1)


def tell_failure(channel: _socket.socket, error: BaseException) -> None:
    """Tell minirunc, if it is still there, why the container cannot be started."""
    told = (reason(error) or type(error).__name__).encode(errors="replace")
    try:
        channel.send(b"failed " + told[:_LONGEST_REASON])
    except OSError:
        pass


def _become(start: Start, alive: int) -> NoReturn:
    config = start.config
    os.umask(0o022)
    _enter_mount_namespace(config)
    if start.asked:
        start.asked.send(b"?")
        start.asked.recv(1)
        start.asked.close()
    outside = filesystem.attach(config, start.notify_socket)
    if "user" in config.namespaces:
        _become_root()
    _enter_namespaces(config)
    filesystem.enter(config, start.notify_socket, outside)
    _write_sysctl(config)
    filesystem.protect(config)
    os.umask(config.umask)

    environment = {**config.env, **start.env}
    environment["HOME"] = environment.get("HOME") or _home(config.uid)
    if config.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if config.rlimits:
        privileges.set_limits(config)
    entered = _change_directory(config, final=False)
    privileges.set_user(config)
    if not entered:
        _change_directory(config, final=True)
    if missing := privileges.set_capabilities(config):
        told = f"process.capabilities that minirunc does not have itself and cannot give: {', '.join(missing)}"
        if start.strict:
            raise BundleError(told)
        say("minirunc", told)
    _live_as_long_as(alive)  # once more: a change of user takes it back

    for number in _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)  # whatever minirunc was started with
    _signal.pthread_sigmask(_signal.SIG_SETMASK, start.mask)
    try:
        start.passed.become(config.args, environment, own_pid_namespace=config.own_pid_namespace)
    except OSError as error:
        raise BundleError(f"process.args[0] is {config.args[0]!r}; expected a program: {error.strerror}") from error


def _live_as_long_as(alive: int) -> None:
    """Be killed when the parent ends; and see whether it has ended already."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _signal.SIGKILL)
    try:
        os.read(alive, 1)
    except BlockingIOError:
        return
    os._exit(1)


def _keep_to_itself() -> None:
    """Let no descriptor reach the container but what is passed: later, a small limit may hide those above it."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:
            pass  # the listing's own


def _enter_mount_namespace(config: Config) -> None:
    join(config, ("mount",))
    with At("linux.namespaces"):
        # A copy, if one was joined: whoever else is in there keeps their root.
        syscalls.unshare(syscalls.CLONE_NEWNS)


def _enter_namespaces(config: Config) -> None:
    with At("linux.namespaces"):
        syscalls.unshare(sum(NAMESPACES[kind] for kind in _INSIDE if config.namespaces.get(kind) == ""))
    if config.namespaces.get("network") == "":
        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        request = b"lo".ljust(16, b"\0") + _IFF_UP.to_bytes(2, sys.byteorder)
        fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, request.ljust(_IFREQ_SIZE, b"\0"))
        sock.close()
    if config.hostname:
        with At("hostname"):
            _socket.sethostname(config.hostname)


def _become_root() -> None:
    """The user namespace's own root: until then this process could still go where minirunc's user can."""
    with At("linux.uidMappings"):
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # or its /proc/self would be somebody else's


def join(config: Config, kinds: Iterable[str]) -> None:
    """Join those of the namespaces that have a path."""
    for kind in kinds:
        if path := config.namespaces.get(kind):
            with At(f"linux.namespaces ({kind}, {path})"):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                syscalls.setns(descriptor, NAMESPACES[kind])
                os.close(descriptor)


def _write_sysctl(config: Config) -> None:
    for file, value in config.sysctl.items():
        with At(f"linux.sysctl ({file})"), open(f"/proc/sys/{file}", "w") as parameter:
            parameter.write(value)


def _change_directory(config: Config, *, final: bool) -> bool:
    """Go there as root, who may, or else as the user that the process is to have."""
    with At("process.cwd"):
        try:
            os.chdir(config.cwd)
        except PermissionError:
            if final:
                raise
            return False
    return True


def _home(uid: int) -> str:
    """The user's home, as the container's own /etc/passwd has it."""
    try:
        descriptor = os.open("/etc/passwd", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, errors="surrogateescape") as users:
            for line in users:
                fields = line.rstrip("\n").split(":")
                if len(fields) == 7 and fields[2] == str(uid):
                    return fields[5] or "/"
    except (OSError, ValueError):
        pass
    return "/"
