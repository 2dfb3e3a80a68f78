"""The passing half of the protocol, on the standard library alone: descriptors in place, variables set, exec.

exec_process() does all of it in the calling process, and takes it back if the exec fails. open_process() does it in a
forked child.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: those take longer than an exec
import errno
import fcntl
import os
import warnings  # noqa: F401  # os.execvpe() imports it, which is too late in a container's root without Python
from _collections_abc import Callable, Iterable, Sequence  # collections.abc, without the package around it

from ._environment import ActivationError, surroundings
from ._files import FIRST, VARIABLES, File, default_name, own_pidfd_id
from ._moves import Table
from ._types import Environment, HasFileno, NoReturn, Passable, StrOrBytesPath


def exec_process(
    command: Sequence[StrOrBytesPath],
    files: Iterable[Passable],
    *,
    extra: Iterable[int | HasFileno] = (),
    env: Environment | None = None,
    listen_pid: int | None = None,
    executable: StrOrBytesPath | None = None,
    before: Callable[[], object] | None = None,
) -> NoReturn:
    """Become ``command``, which finds ``files`` at its descriptors 3, 4, ... and the variables that say so. execve(2).

    For a tool that has forked and entered its namespaces, and for a daemon that restarts itself in place. The exec
    closes every other descriptor above standard error. Signals that had a handler get their default action, and so do
    SIGPIPE and SIGXFSZ, which Python ignores. Call it in the main thread, because no other can change signals. It
    imports neither trio nor attrs.

    Args:
        command: the program and its arguments; a name without a slash is looked up in the PATH of ``env``.
        files: what to pass, in order: ``(name, descriptor)`` pairs, where the descriptor is a number or has a
            ``fileno()``, or what :func:`activation.files` returned. The same descriptor may be passed repeatedly. An
            empty name is none; without any name LISTEN_FDNAMES is not set, and without any descriptor no variable is.
        extra: descriptors that follow those of ``files`` and that no variable mentions, like ``--preserve-fds`` of
            runc(8).
        env: the whole environment of ``command``; by default this process's. The variables of
            :func:`activation.files` in it are replaced.
        listen_pid: the value of LISTEN_PID, where ``command`` will see another number as its own than this process's.
            LISTEN_PIDFDID is then not set.
        executable: the program, where it is not the first item of ``command``, which stays the program's argument 0.
        before: called when every descriptor is in place and only the exec is left, to wait for the first client, say.
            The numbers then mean what ``command`` will find there. If it raises, everything is as before.

    Raises:
        OSError: ``command`` does not exist or may not run, or a descriptor is not open. Nothing has changed.
        ActivationError: a File was given away before, or this is a daemon that activation.testing runs inside its test.
            Nothing has changed.
        ValueError: a name or the environment has a character that cannot be passed. Nothing has changed.
        TypeError: ``command`` is no sequence, or empty. Nothing has changed.
    """
    if isinstance(command, (str, bytes)) or not command:
        raise TypeError(f"command is {command!r}; expected a sequence: the program and its arguments")
    if surroundings():
        raise ActivationError(
            f"exec_process({command!r}) would replace the process of the test that this daemon runs in; give "
            "activated() the daemon as a command, which has a process of its own"
        )
    arguments = [os.fspath(argument) for argument in command]
    program = arguments[0] if executable is None else os.fspath(executable)
    names, descriptors = named_descriptors(files)
    descriptors += named_descriptors(("", item) for item in extra)[1]
    environment = base_environment(env)
    # The inode number tells of this process; whoever names the process knows better who will read the variables.
    pid, pidfd_id = (os.getpid(), own_pidfd_id()) if listen_pid is None else (listen_pid, None)
    environment |= activation_variables(names, pid, pidfd_id)

    signals = DefaultSignals(not_ignored=True)
    table = Table(FIRST + len(descriptors))
    try:
        signals.set()
        table.place(descriptors)
        if before:
            before()
        # execvpe() alone would do; this way a client that waits for it waits less.
        (os.execve if os.path.dirname(program) else os.execvpe)(program, arguments, environment)
    finally:
        # Only reached if the exec failed.
        table.restore()
        signals.restore()


def named_descriptors(files: Iterable[Passable]) -> tuple[list[str], list[int]]:
    """Return the names and the numbers of what is to be passed, after checking both."""
    names, descriptors = [], []
    for item in files:
        if isinstance(item, File):
            name, descriptor = item.name, item.fileno()
            if name == default_name(descriptor):
                name = ""  # it came without one
            if descriptor < 0:
                raise ActivationError(f"the descriptor {name!r} was given away or closed; it cannot be passed any more")
        else:
            name, holder = item
            descriptor = holder if isinstance(holder, int) else holder.fileno()
        if ":" in name or "\0" in name:
            raise ValueError(
                f"{name!r} cannot be a descriptor's name: LISTEN_FDNAMES separates names by colons and cannot hold a "
                "null character"
            )
        try:
            fcntl.fcntl(descriptor, fcntl.F_GETFD)
        except (OSError, ValueError, OverflowError):
            raise OSError(errno.EBADF, f"descriptor {descriptor}, to be passed as {name!r}, is not open") from None
        names.append(name)
        descriptors.append(descriptor)
    return names, descriptors


def base_environment(env: Environment | None) -> dict[bytes, bytes]:
    """Return ``env``, or this process's own environment, without the variables of an activation."""
    source = os.environb if env is None else env
    environment = {os.fsencode(name): os.fsencode(value) for name, value in source.items()}
    for name, value in environment.items():
        if not name or b"=" in name or b"\0" in name + value:
            raise ValueError(f"{name!r} cannot be in an environment: its name is empty or has '=', or it has a null")
    for variable in VARIABLES:
        environment.pop(variable.encode(), None)
    return environment


def activation_variables(names: Sequence[str], pid: int, pidfd_id: int | None) -> dict[bytes, bytes]:
    """Return the variables that tell the process ``pid`` of the descriptors that it was passed."""
    if not names:
        return {}
    variables = {"LISTEN_PID": str(pid), "LISTEN_FDS": str(len(names))}
    if pidfd_id is not None:
        variables["LISTEN_PIDFDID"] = str(pidfd_id)
    if any(names):
        variables["LISTEN_FDNAMES"] = ":".join(names)
    return {name.encode(): os.fsencode(value) for name, value in variables.items()}


class DefaultSignals:
    """Keeps Python handlers from running, and wakeup descriptors from being written to, while descriptors move.

    A signal that arrives meanwhile acts as it does on a program that has just been started.
    """

    def __init__(self, *, not_ignored: bool = False) -> None:
        """Find the signals that have a handler; with ``not_ignored`` also those that Python ignores from its start."""
        self._mask: set[int] | None = None
        self._before = {number: _signal.getsignal(number) for number in _signal.valid_signals()}
        kept: list[object] = [_signal.SIG_DFL, None]  # None: a handler that is not Python's, and ends with an exec
        for number, handler in list(self._before.items()):
            ignored_by_python = not_ignored and number in (_signal.SIGPIPE, _signal.SIGXFSZ)
            if handler in kept or (handler == _signal.SIG_IGN and not ignored_by_python):
                del self._before[number]

    def set(self) -> None:
        """Let these signals act by default. Only the main thread can; elsewhere nothing changes."""
        self._mask = set(_signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals()))
        try:
            for number in self._before:
                _signal.signal(number, _signal.SIG_DFL)
        except ValueError:
            self._before.clear()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)

    def restore(self) -> None:
        """Give the signals back what they had."""
        if self._mask is not None:
            for number, handler in self._before.items():
                _signal.signal(number, handler)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)
