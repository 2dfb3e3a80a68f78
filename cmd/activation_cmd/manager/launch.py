"""Starting services: by fork and exec, in a child that waits for the client itself where it can.

A Python process of this size takes a millisecond to fork, more than everything else between a client and the first
byte of a small server. So that is done before: a child is forked that has all sockets, and all that each service of
theirs needs worked out. It waits for the first client of any of them, says which service it becomes, and becomes it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import signal
import socket
import struct
from typing import TYPE_CHECKING, NoReturn

import attrs
import trio

import activation
from activation_cmd._stdio import reason

from .command_lines import expand
from .environment import read_environment_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .guardian import Guardian
    from .model import Command, EnvironmentFile

_CHOICE = struct.Struct("i")

# systemd.exec(5), "process exit codes": what a service exits with that could not even be started.
CHDIR, EXEC, STDIN, GROUP, USER, RESOURCES = 200, 203, 208, 216, 217, 219


@attrs.frozen
class Account:
    """Whom a program runs as."""

    name: str
    uid: int
    gid: int
    groups: Sequence[int]


@attrs.frozen(kw_only=True, eq=False)
class Start:
    """All that a start needs.

    Attributes:
        triggers: the descriptors that a client shows at.
        files: what is passed.
        standard: descriptors for 0, 1 and 2; None leaves them as they are here, -1 is /dev/null.
        environment: without what only the child knows, which are the variables with its number, and without the files.
        with_pid: the names of variables whose value is to be the child's number.
    """

    command: Command
    files: Sequence[tuple[str, int]] = ()
    triggers: Sequence[int] = ()
    environment: Mapping[str, str]
    environment_files: Sequence[EnvironmentFile] = ()
    with_pid: Sequence[str] = ()
    standard: Sequence[int | None] = (-1, None, None)
    directory: str | None = None
    directory_optional: bool = False
    account: Account | None = None


@attrs.define(eq=False)
class Child:
    """A child from its fork to its end.

    Attributes:
        start: what it has become, or was to become; None as long as it waits, as far as is known.
        failure: why that did not work, in words.
        status: as ``subprocess`` has it, negative for a signal; None as long as it runs.
        core: whether it left a core.
    """

    pid: int
    _channel: trio.socket.SocketType
    _choice: mmap.mmap
    _starts: Sequence[Start]
    start: Start | None
    failure: str = ""
    status: int | None = None
    core: bool = False
    exited: trio.Event = attrs.field(factory=trio.Event)

    async def settled(self) -> None:
        """Wait for the exec, or for what came in between: then there is a failure, or still no start."""
        if self._channel.fileno() < 0:
            return
        try:
            # The exec closes it, and so does the child's end.
            self.failure = (await self._channel.recv(1 << 16)).decode("utf-8", "surrogateescape")
        except ConnectionResetError:
            pass
        if choice := _CHOICE.unpack_from(self._choice)[0]:
            self.start = self._starts[choice - 1]
        self._channel.close()
        self._choice.close()

    def dismiss(self) -> None:
        """Let a child that waits end, unless a client came first."""
        self._channel.shutdown(socket.SHUT_WR)


def fork(starts: Sequence[Start], guardian: Guardian, *, at_once: bool) -> Child:
    """Fork a child for the first of the starts that a client comes for, or, ``at_once``, for the only one there is.

    Raises:
        OSError: there are too many processes, or descriptors.
    """
    # Which start it has become is told in shared memory: a message would wake this process, when there is better to do.
    choice = mmap.mmap(-1, _CHOICE.size)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            pid = os.fork()
        except BaseException:
            ours.close()
            raise
        if not pid:
            _become_child(theirs, choice, starts, guardian, at_once)
    ours.setblocking(False)
    return Child(pid, trio.socket.from_stdlib_socket(ours), choice, starts, starts[0] if at_once else None)


def _become_child(
    theirs: socket.socket, choice: mmap.mmap, starts: Sequence[Start], guardian: Guardian, at_once: bool
) -> NoReturn:
    status = EXEC
    try:
        # The event loop's handlers are not the child's; a session of its own keeps the terminal's signals away.
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        os.setsid()
        guardian.guard(os.getpid())
        _close_all_but({theirs.fileno(), guardian.fileno(), *(number for start in starts for number in _needed(start))})
        channel = socket.socket(fileno=fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, _above(starts)))
        try:
            if at_once:
                _execute(starts[0])
            first_client = _first_client(channel, choice, starts)
            if len(starts) == 1 and not starts[0].environment_files:
                _execute(starts[0], first_client)
            _execute(first_client())
        except _StartError as error:
            status = error.status
            channel.send(os.fsencode(str(error)))
    except BaseException as error:
        theirs.send(os.fsencode(f"cannot start: {reason(error)}"))
    finally:
        os._exit(status)


def _above(starts: Sequence[Start]) -> int:
    """A number that no descriptor will be moved to."""
    return 3 + max(len(start.files) for start in starts)


def _needed(start: Start) -> list[int]:
    passed = [number for _, number in start.files]
    return [*passed, *start.triggers, *(number for number in start.standard if number is not None)]


def _close_all_but(kept: set[int]) -> None:
    # A connection that is closed elsewhere must not stay open here, for as long as no client comes.
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number not in kept:
            try:
                os.close(number)
            except OSError:
                pass  # the listing's own


def _first_client(channel: socket.socket, choice: mmap.mmap, starts: Sequence[Start]) -> Callable[[], Start]:
    """What waits for a client, notes whose it is and returns that start. Descriptors may change places before."""
    # Not poll(): an epoll knows the open files, whatever their numbers become.
    with select.epoll() as made:
        clients = select.epoll.fromfd(fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, _above(starts)))
    clients.register(channel, select.EPOLLIN)
    whose = {}
    for index, start in enumerate(starts):
        for number in start.triggers:
            clients.register(number, select.EPOLLIN)
            whose[number] = index

    def first_client() -> Start:
        ready = {number for number, _ in clients.poll()}
        if channel.fileno() in ready:
            os._exit(0)  # dismissed, or socket-activate is no more
        index = whose[min(ready)]
        _CHOICE.pack_into(choice, 0, index + 1)
        return starts[index]

    return first_client


class _StartError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _execute(start: Start, first_client: Callable[[], object] | None = None) -> NoReturn:
    """Become what a start says; with ``first_client``, wait for that where no more than the exec is left to do."""
    program = start.command.program
    environment = dict(start.environment)
    try:
        environment |= read_environment_files(start.environment_files)
    except OSError as error:
        raise _StartError(RESOURCES, f"cannot read the EnvironmentFile= {reason(error)}") from None
    environment |= dict.fromkeys(start.with_pid, str(os.getpid()))
    arguments = expand(start.command, environment)
    _redirect(start.standard)

    def before() -> None:
        if first_client:
            first_client()
        if start.account and not start.command.privileged:
            _switch(start.account)
        if start.directory is not None:
            _change_to(start.directory, optional=start.directory_optional)

    try:
        activation.exec_process(arguments, start.files, env=environment, executable=program, before=before)
    except (OSError, ValueError) as error:
        raise _StartError(EXEC, f"cannot execute {program}: {getattr(error, 'strerror', '') or error}") from None


def _change_to(directory: str, *, optional: bool) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        if not optional:
            raise _StartError(CHDIR, f"cannot change to WorkingDirectory={directory}: {reason(error)}") from None


def _redirect(standard: Sequence[int | None]) -> None:
    try:
        for target, number in enumerate(standard):
            if number is not None:
                source = os.open(os.devnull, os.O_RDWR) if number < 0 else number
                os.dup2(source, target)
                if number < 0 and source != target:
                    os.close(source)
    except OSError as error:
        raise _StartError(STDIN, f"cannot redirect the standard streams: {reason(error)}") from None


def _switch(account: Account) -> None:
    try:
        os.setgroups(account.groups)
        os.setgid(account.gid)
    except OSError as error:
        raise _StartError(GROUP, f"cannot change to the group of {account.name}: {reason(error)}") from None
    try:
        os.setuid(account.uid)
    except OSError as error:
        raise _StartError(USER, f"cannot change to the user {account.name}: {reason(error)}") from None
