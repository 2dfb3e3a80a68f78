"""What a child of the executor does from its fork to its exec, which makes it a service. Standard library only."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from activation import exec_process
from activation_cmd.common.stdio import reason
from activation_cmd.socket_activate.units.environment import read_environment_files, unset
from activation_cmd.socket_activate.units.expansion import expanded

from . import order
from .start import CHOICE, CHOSEN, Start
from .surroundings import StartError, make_directories, redirect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# systemd.exec(5), "process exit codes": what a service exits with that could not even be started.
CHDIR, EXEC, GROUP, USER, RESOURCES = 200, 203, 216, 217, 219


def become(channel: socket.socket) -> NoReturn:
    """Wait for an order, and become the first of its starts that a client comes for, or, at once, the only one.

    Args:
        channel: for the order, and for the message about a failure. The exec closes it; if the other side closes it,
            the child exits.
    """
    status = EXEC
    try:
        ordered = order.receive(channel)
        if ordered is None:
            os._exit(0)
        starts = ordered.starts
        above = _above(starts)
        channel = _moved(channel, above)
        if ordered.at_once:
            _start(starts[0], channel)
        choice = fcntl.fcntl(ordered.memory, fcntl.F_DUPFD_CLOEXEC, above)
        first_client = _first_client(channel, choice, starts, above)
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


def rehearse() -> None:
    """Go through a start up to its exec, which takes twice as long the first time as the second.

    A forked process shares its memory with the one that it was forked from, and copies each page that it writes to. So
    that is over before a client waits for it.
    """

    def rehearsed() -> NoReturn:
        raise _RehearsedError

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        passed = [("name", theirs.fileno())]
        some = Start("/", ["/"], {}, files=passed, triggers=[theirs.fileno()], with_pid=["PID"], standard=())
        os.close(order.send(ours, [some], at_once=False))
        ordered = order.receive(theirs)
        assert ordered
        try:
            _first_client(ours, ordered.memory, ordered.starts, _above(ordered.starts))
            with suppress(_RehearsedError):
                _execute(ordered.starts[0], rehearsed)
        finally:
            for number in (ordered.memory, *ordered.starts[0].descriptors()):
                os.close(number)


class _RehearsedError(Exception):
    """It has gone well so far."""


def _above(starts: Sequence[Start]) -> int:
    """A number above those that the descriptors of any of the starts will have."""
    return 3 + max(len(start.files) for start in starts)


def _moved(channel: socket.socket, above: int) -> socket.socket:
    """Move the channel to a number above those that the descriptors will have."""
    with channel:
        return socket.socket(fileno=fcntl.fcntl(channel, fcntl.F_DUPFD_CLOEXEC, above))


def _first_client(channel: socket.socket, choice: int, starts: Sequence[Start], above: int) -> Callable[[], Start]:
    """Make a function that waits for a client, notes which start it is for, and returns that start.

    Args:
        choice: the descriptor of the order's memory.
    """
    # Not poll(): epoll watches open files, and their numbers change before the exec.
    with select.epoll() as made:
        clients = select.epoll.fromfd(fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, above))
    clients.register(channel, select.EPOLLIN)
    whose = {channel.fileno(): -1}
    for index, start in enumerate(starts):
        for number in start.triggers:
            clients.register(number, select.EPOLLIN)
            whose[number] = index
    # A rehearsal: it copies the memory pages that are written to, so that the first client need not wait for that.
    os.pwrite(choice, CHOICE.pack(0), 0)
    clients.poll(0)

    def first_client() -> Start:
        index = min([whose[number] for number, _ in clients.poll()])
        if index < 0:
            os._exit(0)  # this child was dismissed, or socket-activate is gone
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
    """Become what a start says; with ``first_client``, call that just before the exec, to wait for a client."""
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
    """The variables that the exec will set, which command lines may use."""
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
