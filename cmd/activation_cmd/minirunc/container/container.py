"""The steps of the container's first process, from its fork to its exec."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums, socket without its: they take too long
import _socket
import fcntl
import os
import sys

from activation_cmd.common.stdio import reason
from activation_cmd.minirunc.bundle.kernel import CLONE_NEWNS, NAMESPACES
from activation_cmd.minirunc.bundle.values import At, BundleError

from . import filesystem, inside, privileges, program, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import NoReturn

    from activation_cmd.minirunc.bundle.config import Config

    from .descriptors import Passed

_LONGEST_REASON = 4000
"""Bytes. A message of this length can always be sent."""

_SIOCSIFFLAGS, _IFF_UP, _IFREQ_SIZE = 0x8914, 1, 40  # netdevice(7)

# The user and PID namespaces are made before the fork, by guardian.py.
_INSIDE = ("uts", "ipc", "network", "cgroup")


class Start:
    """What the container's process is started with.

    Attributes:
        mask: the signals to block in it.
        permissive: the groups of things that may be missing, from --permissive.
        new_keyring: whether it gets a session keyring of its own.
        notify_socket: the path of the socket for NOTIFY_SOCKET; None without a service manager.
        env: variables that override those of the bundle.
        gate: the listening socket at which it waits before its exec; None if it does not wait.
        asked: the connection to the guardian, where that wants to look at its mount namespace.
    """

    __slots__ = ("asked", "config", "env", "gate", "mask", "new_keyring", "notify_socket", "passed", "permissive")

    def __init__(
        self, config: Config, passed: Passed, mask: Iterable[int], permissive: Collection[str], *, new_keyring: bool
    ) -> None:
        self.config, self.passed, self.mask, self.permissive = config, passed, mask, permissive
        self.new_keyring = new_keyring
        self.notify_socket: str | None = None
        self.env: dict[str, str] = {}
        self.gate: _socket.socket | None = None
        self.asked: _socket.socket | None = None


class _Channel:
    """The connection to minirunc, to report failures: to run or create, and after the gate to start."""

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock


def run(start: Start, sock: _socket.socket, alive: int) -> NoReturn:
    """Become the container's process. If that fails, tell minirunc why, and exit.

    Args:
        sock: the connection to minirunc.
        alive: a pipe that ends when the process that forked this one ends.
    """
    channel = _Channel(sock)
    try:
        _live_as_long_as(alive)
        os.setsid()
        _keep_to_itself()
        if start.gate:
            from . import gate  # it is loaded already, or it could not be after the change of root

            channel.sock, start.gate = (
                gate.out_of_the_way(each, start.passed.above) for each in (channel.sock, start.gate)
            )
        _become(start, channel, alive)
    except BaseException as error:
        tell_failure(channel.sock, error)
    finally:
        os._exit(1)


def tell_failure(channel: _socket.socket, error: BaseException) -> None:
    """Tell minirunc, if it is alive, why the container cannot be started."""
    told = (reason(error) or type(error).__name__).encode(errors="replace")
    try:
        channel.send(b"failed " + told[:_LONGEST_REASON])
    except OSError:
        pass


def _become(start: Start, channel: _Channel, alive: int) -> NoReturn:
    config, process = start.config, start.config.process
    os.umask(0o022)
    _enter_mount_namespace(config)
    if start.asked:
        start.asked.send(b"?")
        start.asked.recv(1)
        start.asked.close()
    if config.namespaces.get("pid"):
        # Others in the container's PID namespace must not look into this process (CVE-2016-9962).
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    outside = filesystem.prepare(config, start.notify_socket)
    if "user" in config.namespaces:
        _become_root()
    _enter_namespaces(config)
    filesystem.enter(config, outside)
    filesystem.write_sysctl(config)
    filesystem.protect(config, outside)
    os.umask(process.umask)

    environment = {**process.env, **start.env}
    environment["HOME"] = environment.get("HOME") or program.home(process.uid)
    if process.no_new_privileges:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if process.rlimits:
        privileges.set_limits(process)
    if start.new_keyring:
        privileges.leave_session_keyring()
    entered = _change_directory(process.cwd, final=False)
    privileges.set_user(config)
    if not entered:
        _change_directory(process.cwd, final=True)
    privileges.use_all_capabilities()
    try:
        path = program.find_program(process.args[0], environment.get("PATH"))
    except OSError as error:
        raise _no_program(process.args[0], error) from error
    if missing := privileges.set_capabilities(process):
        told = f"process.capabilities: minirunc does not have {', '.join(missing)} itself, and cannot give them"
        if "capabilities" not in start.permissive:
            raise BundleError(f"{told}; expected them, or --permissive=capabilities")
        channel.sock.send(b"remark " + told.encode())
    _live_as_long_as(alive)  # again, because a change of user clears it

    for number in _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)  # whatever minirunc's parent has set
    _signal.pthread_sigmask(_signal.SIG_SETMASK, start.mask)
    try:
        start.passed.become(
            path,
            process.args,
            environment,
            own_pid_namespace=config.own_pid_namespace,
            before=lambda: _wait_at_gate(start, channel),
        )
    except OSError as error:
        raise _no_program(process.args[0], error) from error


def _wait_at_gate(start: Start, channel: _Channel) -> None:
    """Do the last things before the exec."""
    if start.gate:
        from . import gate

        gate.leave_minirunc(channel.sock)
        channel.sock = gate.wait(start.gate)
    privileges.set_file_limit(start.config.process)


def _no_program(name: str, error: OSError) -> BundleError:
    return BundleError(f"process.args[0] is {name!r}; expected a program: {error.strerror}")


def _live_as_long_as(alive: int) -> None:
    """Arrange to be killed when the parent ends, and exit if it has ended already."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, _signal.SIGKILL)
    try:
        os.read(alive, 1)
    except BlockingIOError:
        return
    os._exit(1)


def _keep_to_itself() -> None:
    """Keep all descriptors from the container but those that are passed. Later, a low limit may hide some of them."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if int(name) > 2:
                os.set_inheritable(int(name), False)
        except OSError:
            pass  # the listing's own


def _enter_mount_namespace(config: Config) -> None:
    join(config, ("mount",))
    with At("linux.namespaces"):
        # If one was joined, this makes a copy, so that the others in it keep their root.
        syscalls.unshare(CLONE_NEWNS)


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
    if config.domainname:
        with At("domainname"):
            syscalls.setdomainname(config.domainname)


def _become_root() -> None:
    """Become root of the user namespace. Until then this process has the rights of minirunc's user."""
    with At("linux.uidMappings"):
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


def join(config: Config, kinds: Iterable[str]) -> None:
    """Join those of the namespaces that have a path."""
    for kind in kinds:
        if path := config.namespaces.get(kind):
            with At(f"linux.namespaces ({kind}, {path})"):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                syscalls.setns(descriptor, NAMESPACES[kind])
                os.close(descriptor)


def _change_directory(path: str, *, final: bool) -> bool:
    """Change the directory: first as root, and where root may not, as the process's user. Return whether it is done."""
    with At("process.cwd"):
        try:
            folder = inside.open_inside(path)
            try:
                os.fchdir(folder)
            finally:
                os.close(folder)
        except PermissionError:
            if final:
                raise
            return False
        except NotADirectoryError:
            raise BundleError(f"process.cwd is {path!r}; expected a folder") from None
    return True
