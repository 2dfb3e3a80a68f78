"""The activator's side on trio: a child that finds its descriptors as a service manager would have passed them.

LISTEN_PID is the child's number, which is known only after the fork. So the last steps happen in the child before its
exec, in the hook that subprocess has for that. There, subprocess keeps a pipe of its own open for the error of a failed
exec, and does not tell its number. That pipe must not lie where a descriptor is to go. So every free number among the
targets is held while the child is started, and the child checks that all of them are still what they were. If another
thread has changed one in between, the start is tried again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio

from ._exec import DefaultSignals, activation_variables, base_environment, named_descriptors
from ._files import FIRST, is_open, own_pidfd_id
from ._moves import make_moves, plan_moves
from ._types import Environment, Passable, StrOrBytesPath

MANAGER_VARIABLES = (b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID", b"FDSTORE")

_MOST_TRIES = 300

_one_start: trio.lowlevel.RunVar[trio.Lock] = trio.lowlevel.RunVar("activation_one_start")


async def open_process(
    command: StrOrBytesPath | Sequence[StrOrBytesPath],
    files: Iterable[Passable],
    *,
    env: Environment | None = None,
    **options: Any,
) -> trio.Process:
    """Start ``command`` as a child that finds ``files`` at its descriptors 3, 4, ... and the variables that say so.

    The child gets no other descriptor above standard error. The caller's descriptors stay as they are, and have to stay
    open until this returns.

    Args:
        command: the program and its arguments; a name without a slash is looked up in the PATH of ``env``.
        files: what to pass, in order: ``(name, descriptor)`` pairs, where the descriptor is a number or has a
            ``fileno()``, or what :func:`activation.files` returned. The same descriptor may be passed repeatedly. An
            empty name is none; without any name LISTEN_FDNAMES is not set, and without any descriptor no variable is.
        env: the whole environment of the child. Left out, it is this process's environment without NOTIFY_SOCKET,
            WATCHDOG_USEC, WATCHDOG_PID and FDSTORE, so that the child does not speak to the service manager for this
            process's service; ``env=os.environ`` passes them on. The variables of :func:`activation.files` are
            replaced in any case.
        options: as of :func:`trio.lowlevel.open_process` (``stdin``, ``cwd``, ``start_new_session``, ...), except
            ``pass_fds``, ``close_fds`` and ``preexec_fn``.

    Raises:
        OSError: ``command`` does not exist or may not run, or a descriptor is not open. Nothing was started or closed.
        ActivationError: a File was given away before.
        ValueError: a name or the environment has a character that cannot be passed.
        TypeError: there is an option that cannot be given, or the command is empty.
        subprocess.SubprocessError: other threads kept changing the descriptors.
    """
    for option in ("pass_fds", "close_fds", "preexec_fn"):
        if option in options:
            raise TypeError(f"open_process() decides itself what is passed and cannot take {option}; use files")
    if not command:
        raise TypeError(f"command is {command!r}; expected a program, or a sequence of it and its arguments")
    names, descriptors = named_descriptors(files)
    _check_redirections(options)
    environment = base_environment(env)
    if env is None:
        for name in MANAGER_VARIABLES:
            environment.pop(name, None)
    if env is not None and not options.get("shell") and "executable" not in options:
        options["executable"] = _executable(command, environment)
    # What can be known before is worked out before: in the child every step is dearer, and later.
    dropped = os.environb.keys() - environment.keys()
    changed = {name: value for name, value in environment.items() if os.environb.get(name) != value}
    signals = DefaultSignals()
    above = FIRST + len(descriptors)

    try:
        lock = _one_start.get()
    except LookupError:
        lock = trio.Lock()
        _one_start.set(lock)
    # One start at a time: the numbers that one holds would be given back under another.
    async with lock:
        for tries_left in reversed(range(_MOST_TRIES)):
            with _held(range(FIRST, above)) as held, _clear_of_stdio(descriptors, above) as sources:
                moves = plan_moves(sources)

                def in_child(held: dict[int, tuple[int, int]] = held, moves: list[tuple[int, int]] = moves) -> None:
                    signals.set()
                    for number, identity in held.items():
                        if _identity(number) != identity:
                            raise BlockingIOError(errno.EAGAIN, f"descriptor {number} changed during the start")
                    make_moves(moves, above)
                    variables = activation_variables(names, os.getpid(), own_pidfd_id() if names else None)
                    for name in dropped:
                        os.environb.pop(name, None)
                    os.environb.update(changed | variables)

                try:
                    return await trio.lowlevel.open_process(
                        command, pass_fds=tuple(held), preexec_fn=in_child, **options
                    )
                except (subprocess.SubprocessError, OSError) as error:
                    # A number that was closed meanwhile is told as EBADF, one that changed by in_child().
                    moved = not isinstance(error, OSError) or error.errno == errno.EBADF
                    if not (moved and tries_left):
                        raise
    raise AssertionError("unreachable")


@contextmanager
def _held(numbers: range) -> Iterator[dict[int, tuple[int, int]]]:
    """Keep every one of the numbers open meanwhile, and tell what each of them is."""
    ours = [os.open(os.devnull, os.O_RDWR)]
    try:
        while True:
            while (number := fcntl.fcntl(ours[0], fcntl.F_DUPFD_CLOEXEC, FIRST)) in numbers:
                ours.append(number)
            os.close(number)
            try:
                held = {number: _identity(number) for number in numbers}
            except OSError:
                continue  # another thread has just closed its own
            break
        yield held
    finally:
        for number in ours:
            os.close(number)


@contextmanager
def _clear_of_stdio(descriptors: Sequence[int], above: int) -> Iterator[list[int]]:
    """Replace descriptors 0 to 2 by copies, because the child redirects those before they could move."""
    copies: dict[int, int] = {}
    try:
        for number in descriptors:
            if number < FIRST and number not in copies:
                copies[number] = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, above)
        yield [copies.get(number, number) for number in descriptors]
    finally:
        for copy in copies.values():
            os.close(copy)


def _check_redirections(options: dict[str, Any]) -> None:
    # In the child a number that is not open would look like one that another thread has just closed.
    for option in ("stdin", "stdout", "stderr"):
        number = options.get(option)
        if isinstance(number, int) and number >= 0 and not is_open(number):
            raise OSError(errno.EBADF, f"descriptor {number}, to be {option}, is not open")


def _identity(number: int) -> tuple[int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino


def _executable(command: StrOrBytesPath | Sequence[StrOrBytesPath], environment: dict[bytes, bytes]) -> StrOrBytesPath:
    """Find the program by the child's PATH, as subprocess does when it is given the child's environment."""
    program = command if isinstance(command, (str, bytes, os.PathLike)) else command[0]
    name = os.fsdecode(program)
    if "/" in name:
        return program
    error = errno.ENOENT
    for folder in os.get_exec_path({os.fsdecode(key): os.fsdecode(value) for key, value in environment.items()}):
        candidate = os.path.join(folder, name)
        if os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            error = errno.EACCES
    raise OSError(error, os.strerror(error), name)
