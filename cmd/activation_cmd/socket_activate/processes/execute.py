"""What becomes a service: in a child of the executor, from its fork to its exec. Standard library only."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from activation import exec_process
from activation_cmd.common.stdio import reason
from activation_cmd.socket_activate.units.environment import read_environment_files, unset
from activation_cmd.socket_activate.units.expansion import expanded

from .surroundings import StartError, make_directories, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from activation_cmd.socket_activate.units.directories import Directory

# systemd.exec(5), "process exit codes": what a service exits with that could not even be started.
CHDIR, EXEC, GROUP, USER, RESOURCES = 200, 203, 216, 217, 219

CHOICE = struct.Struct("i")
"""At the begin of an order: 0, and from the child's choice on the number of the start, counted from 1."""


CHOSEN = b"\0"
"""What a child tells whose client has come, if commands come before the exec, which would tell it otherwise."""


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
        standard: what 0, 1 and 2 are to be: a descriptor, -1 for /dev/null, None for what they are; or a text as the
            model has it, of a file or of another of the three.
        groups: to change to; None for no change.
        account: user's name, uid and gid to change to; None for no change.
        ignore_sigpipe: as IgnoreSIGPIPE= has it for services; the default action otherwise.
        umask: to change to; None for no change.
        directories: folders that it is to find.
        owner: the user and the group that these belong to.
        before: commands that have to succeed first, ExecStartPre=.
        optional: of such a command, that it may fail.
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
    standard: Sequence[int | str | None] = (-1, None, None)
    directory: str | None = None
    directory_optional: bool = False
    groups: Sequence[int] | None = None
    account: tuple[str, int, int] | None = None
    ignore_sigpipe: bool = False
    umask: int | None = None
    directories: Sequence[Directory] = ()
    owner: tuple[int, int] | None = None
    before: Sequence[Start] = ()
    optional: bool = False

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """What was sent as a sequence of its values."""
        start = cls(*values)
        return start._replace(before=[cls(*each) for each in start.before])

    @property
    def is_simple(self) -> bool:
        """Whether nothing but its exec has to wait for the client."""
        return not (self.environment_files or self.directories or self.before)

    def descriptors(self) -> set[int]:
        """All that it refers to."""
        standard = {number for number in self.standard if isinstance(number, int) and number >= 0}
        return {number for _, number in self.files} | {*self.triggers} | standard

    def renumbered(self, numbers: Mapping[int, int]) -> Start:
        """The same start with other numbers for its descriptors."""
        return self._replace(
            files=[(name, numbers[number]) for name, number in self.files],
            triggers=[numbers[number] for number in self.triggers],
            standard=[numbers.get(each, each) if isinstance(each, int) else each for each in self.standard],
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
            _start(starts[0], channel)
        first_client = _first_client(channel, fcntl.fcntl(choice, fcntl.F_DUPFD_CLOEXEC, above), starts, above)
        if len(starts) == 1 and starts[0].is_simple:
            _execute(starts[0], first_client)
        start = first_client()
        if start.before:
            channel.send(CHOSEN)
        _start(start, channel)
    except StartError as error:
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


def _start(start: Start, channel: socket.socket) -> NoReturn:
    """Run what has to come before a start, and become it."""
    for command in start.before:
        pid = os.fork()
        if not pid:
            _become_command(command, channel)
        _, ended = os.waitpid(pid, 0)
        if (status := os.waitstatus_to_exitcode(ended)) and not command.optional:
            how = f"exited with status {status}" if status > 0 else f"was ended by signal {-status}"
            channel.send(os.fsencode(f"ExecStartPre= failed: {command.program} {how}"))
            _end_like(status)
    _execute(start)


def _become_command(start: Start, channel: socket.socket) -> NoReturn:
    try:
        _execute(start)
    except StartError as error:
        if not start.optional:
            channel.send(os.fsencode(str(error)))
        os._exit(error.status)
    finally:
        os._exit(EXEC)


def _end_like(status: int) -> NoReturn:
    """End as a command has ended: by an exit status, or by a signal, but without a core."""
    if status < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), -status)
    os._exit(status if status > 0 else EXEC)


def _execute(start: Start, first_client: Callable[[], object] | None = None) -> NoReturn:
    """Become what a start says; with ``first_client``, wait for that where no more than the exec is left to do."""
    if start.umask is not None:
        os.umask(start.umask)
    make_directories(start.directories, start.owner)
    environment = dict(start.environment)
    try:
        environment |= read_environment_files(start.environment_files)
    except OSError as error:
        raise StartError(RESOURCES, f"cannot read the EnvironmentFile= {reason(error)}") from None
    environment = dict.fromkeys(start.with_pid, str(os.getpid())) | environment
    unset(environment, start.unset)
    arguments = start.arguments
    if start.replace_variables:
        arguments = expanded(arguments, environment | _activation_variables(start.files))
    redirect(start.standard)

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
        raise StartError(EXEC, f"cannot execute {start.program}: {why}") from None


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
        raise StartError(GROUP, f"cannot change to the groups {groups}: {reason(error)}") from None


def _switch(name: str, uid: int, gid: int) -> None:
    try:
        os.setgid(gid)
    except OSError as error:
        raise StartError(GROUP, f"cannot change to the group of {name}: {reason(error)}") from None
    try:
        os.setuid(uid)
    except OSError as error:
        raise StartError(USER, f"cannot change to the user {name}: {reason(error)}") from None


def _change_to(directory: str, *, optional: bool) -> None:
    try:
        os.chdir(directory)
    except OSError as error:
        if not optional:
            raise StartError(CHDIR, f"cannot change to WorkingDirectory={directory}: {reason(error)}") from None
