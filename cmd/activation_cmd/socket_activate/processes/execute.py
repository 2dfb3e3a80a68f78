"""What becomes a service: in a child of the executor, from its fork to its exec. Standard library only."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from activation import exec_process
from activation_cmd.common.stdio import reason
from activation_cmd.socket_activate.units.environment import read_environment_files, unset
from activation_cmd.socket_activate.units.expansion import expanded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# systemd.exec(5), "process exit codes": what a service exits with that could not even be started.
CHDIR, EXEC, STDIN, GROUP, USER, RESOURCES = 200, 203, 208, 216, 217, 219

CHOICE = struct.Struct("i")
"""At the begin of an order: 0, and from the child's choice on the number of the start, counted from 1."""


class Start(NamedTuple):
    """All that a start needs, in types that can be sent.

    Attributes:
        program: a path, or a name to be looked up in the PATH of the environment.
        arguments: argument 0 first, ``$NAME`` not yet replaced.
        files: what is passed: names and descriptors.
        triggers: the descriptors that a client shows at.
        environment: without what only the child knows, which are the variables with its number, and without the files.
        environment_files: each with whether it may be missing.
        unset: names, and ``NAME=value`` with the value that it must have, to be removed at last.
        with_pid: the names of variables whose value is to be the child's number.
        standard: descriptors for 0, 1 and 2; None leaves them as they are, -1 is /dev/null.
        groups: to change to; None for no change.
        account: user's name, uid and gid to change to; None for no change.
        ignore_sigpipe: as IgnoreSIGPIPE= has it for services; the default action otherwise.
    """

    program: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    replace_variables: bool = True
    files: Sequence[tuple[str, int]] = ()
    triggers: Sequence[int] = ()
    environment_files: Sequence[tuple[str, bool]] = ()
    unset: Sequence[str] = ()
    with_pid: Sequence[str] = ()
    standard: Sequence[int | None] = (-1, None, None)
    directory: str | None = None
    directory_optional: bool = False
    groups: Sequence[int] | None = None
    account: tuple[str, int, int] | None = None
    ignore_sigpipe: bool = False

    def descriptors(self) -> set[int]:
        """All that it refers to."""
        standard = {number for number in self.standard if number is not None and number >= 0}
        return {number for _, number in self.files} | {*self.triggers} | standard

    def renumbered(self, numbers: Mapping[int, int]) -> Start:
        """The same start with other numbers for its descriptors."""
        return self._replace(
            files=[(name, numbers[number]) for name, number in self.files],
            triggers=[numbers[number] for number in self.triggers],
            standard=[number if number is None else numbers.get(number, number) for number in self.standard],
        )


def become(channel: socket.socket, choice: int, starts: Sequence[Start], *, at_once: bool) -> NoReturn:
    """Become the first of the starts that a client comes for, or, ``at_once``, the only one.

    Args:
        channel: where a failure is told; it is closed by the exec. If its other side is, there is nothing to do.
        choice: the descriptor of the order, to note which start it is.
    """
    status = EXEC
    above = 3 + max(len(start.files) for start in starts)
    channel = _moved(channel, above)
    try:
        if at_once:
            _execute(starts[0])
        first_client = _first_client(channel, fcntl.fcntl(choice, fcntl.F_DUPFD_CLOEXEC, above), starts, above)
        if len(starts) == 1 and not starts[0].environment_files:
            _execute(starts[0], first_client)
        _execute(first_client())
    except _StartError as error:
        status = error.status
        channel.send(os.fsencode(str(error)))
    except BaseException as error:
        channel.send(os.fsencode(f"cannot start: {reason(error)}"))
    finally:
        os._exit(status)


def _moved(channel: socket.socket, above: int) -> socket.socket:
    """The same channel at a number that no descriptor will be moved to."""
    with channel:
        return socket.socket(fileno=fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, above))


def _first_client(channel: socket.socket, choice: int, starts: Sequence[Start], above: int) -> Callable[[], Start]:
    """What waits for a client, notes whose it is and returns that start. Descriptors may change places before."""
    # Not poll(): an epoll knows the open files, whatever their numbers become.
    with select.epoll() as made:
        clients = select.epoll.fromfd(fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, above))
    clients.register(channel, select.EPOLLIN)
    whose = {channel.fileno(): -1}
    for index, start in enumerate(starts):
        for number in start.triggers:
            clients.register(number, select.EPOLLIN)
            whose[number] = index
    # Once for nothing: what the first client waits for is then in this process's own memory already.
    os.pwrite(choice, CHOICE.pack(0), 0)
    clients.poll(0)

    def first_client() -> Start:
        index = min([whose[number] for number, _ in clients.poll()])
        if index < 0:
            os._exit(0)  # dismissed, or socket-activate is no more
        os.pwrite(choice, CHOICE.pack(index + 1), 0)
        return starts[index]

    return first_client


class _StartError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _execute(start: Start, first_client: Callable[[], object] | None = None) -> NoReturn:
    """Become what a start says; with ``first_client``, wait for that where no more than the exec is left to do."""
    environment = dict(start.environment)
    try:
        environment |= read_environment_files(start.environment_files)
    except OSError as error:
        raise _StartError(RESOURCES, f"cannot read the EnvironmentFile= {reason(error)}") from None
    environment = dict.fromkeys(start.with_pid, str(os.getpid())) | environment
    unset(environment, start.unset)
    arguments = start.arguments
    if start.replace_variables:
        arguments = expanded(arguments, environment | _activation_variables(start.files))
    _redirect(start.standard)

    def before() -> None:
        if first_client:
            first_client()
        if start.ignore_sigpipe:
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        if start.groups is not None:
            _set_groups(start.groups)
        if start.account:
            _switch(*start.account)
        if start.directory is not None:
            _change_to(start.directory, optional=start.directory_optional)

    try:
        exec_process(arguments, start.files, env=environment, executable=start.program, before=before)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or error
        raise _StartError(EXEC, f"cannot execute {start.program}: {why}") from None


def _redirect(standard: Sequence[int | None]) -> None:
    try:
        for target, number in enumerate(standard):
            if number is not None:
                source = os.open(os.devnull, os.O_WRONLY if target else os.O_RDONLY) if number < 0 else number
                os.dup2(source, target)
                if number < 0 and source != target:
                    os.close(source)
    except OSError as error:
        raise _StartError(STDIN, f"cannot redirect the standard streams: {reason(error)}") from None


def _activation_variables(files: Sequence[tuple[str, int]]) -> dict[str, str]:
    """What the exec will set: command lines may have it, too."""
    if not files:
        return {}
    names = ":".join(name for name, _ in files)
    variables = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(files))}
    return variables | ({"LISTEN_FDNAMES": names} if names.strip(":") else {})


def _set_groups(groups: Sequence[int]) -> None:
    try:
        os.setgroups(groups)
    except OSError as error:
        raise _StartError(GROUP, f"cannot change to the groups {groups}: {reason(error)}") from None


def _switch(name: str, uid: int, gid: int) -> None:
    try:
        os.setgid(gid)
    except OSError as error:
        raise _StartError(GROUP, f"cannot change to the group of {name}: {reason(error)}") from None
    try:
        os.setuid(uid)
    except OSError as error:
        raise _StartError(USER, f"cannot change to the user {name}: {reason(error)}") from None


def _change_to(directory: str, *, optional: bool) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        if not optional:
            raise _StartError(CHDIR, f"cannot change to WorkingDirectory={directory}: {reason(error)}") from None
