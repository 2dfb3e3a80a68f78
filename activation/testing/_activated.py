"""The context manager by which a test runs a daemon."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from typing import overload

import trio

from activation import DescriptorStore
from activation._types import StrOrBytesPath

from ._daemon import Daemon
from ._manager import MANAGERS_VARIABLES, Manager
from ._sockets import What, make


# Two overloads, since mypy infers no type for {"chat": "unix"} where a union is expected.
@overload
def activated(
    daemon: Callable[[], Awaitable[object]] | Sequence[StrOrBytesPath],
    sockets: Mapping[str, What],
    *,
    watchdog: float | None = None,
    store: int = 0,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> AbstractAsyncContextManager[Daemon]: ...


@overload
def activated(
    daemon: Callable[[], Awaitable[object]] | Sequence[StrOrBytesPath],
    sockets: Iterable[tuple[str, What]],
    *,
    watchdog: float | None = None,
    store: int = 0,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> AbstractAsyncContextManager[Daemon]: ...


@asynccontextmanager
async def activated(
    daemon: Callable[[], Awaitable[object]] | Sequence[StrOrBytesPath],
    sockets: Mapping[str, What] | Iterable[tuple[str, What]],
    *,
    watchdog: float | None = None,
    store: int = 0,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
) -> AsyncIterator[Daemon]:
    """Run a daemon during the block, the way a service manager runs it behind these sockets.

    At the end of the block, the clients that :meth:`Daemon.connect` made are closed, and the daemon is stopped if it
    still runs. If the block raises an exception, the daemon is killed, and the exception gets a note that says what
    the daemon told.

    Args:
        daemon: an async function without arguments, or a command, a sequence of the program and its arguments.

            A function runs in the test's own trio. There, :func:`activation.files`, :func:`activation.notify`,
            :func:`activation.watchdog_enabled`, :func:`activation.serve` and everything built on them see what the
            test passes, instead of what the test's own process was passed. So do the tasks and the ``trio.to_thread``
            workers that the daemon starts. Several daemons can run side by side, and ``trio.testing.MockClock`` works.

            A command runs as a child process, started by :func:`activation.open_process`.
        sockets: what to pass, in order, as a mapping or as pairs. For each name, either the kind of a new socket:
            ``"unix"``, ``"tcp"``, ``"udp"``, ``"unix-datagram"`` or ``"seqpacket"``; or a socket of the test's own, or
            anything else that has a ``fileno()``. In pairs, a name may come more than once.
        watchdog: how many seconds may pass between two ``WATCHDOG=1``, once the daemon is ready. WatchdogSec= of
            systemd.service(5).
        store: how many descriptors the daemon may store. FileDescriptorStoreMax=.
        env: variables for the daemon. A function finds them in this process's ``os.environ`` during the block.
        timeout: how many seconds the daemon has for each thing that the test waits for.

    Raises:
        AssertionError: at the end of the block. The daemon ended before READY=1, or was not ready in time; it ended
            with another status than 0, which the test did not ask for; it missed its watchdog; or it left something
            behind: a function a descriptor or a task, a command a process, either the path of a socket. The message
            says what the daemon told, and shows the last lines of its output.
        ExceptionGroup: several of these.
        ValueError: a name or the kind of a socket is not valid, or ``env`` sets a variable of the service manager.
        OSError: a socket cannot be made, or the command cannot be started.
    """
    env = dict(env or {})
    if taken := sorted(env.keys() & MANAGERS_VARIABLES):
        raise ValueError(
            f"{', '.join(taken)} cannot be set by env; the kit sets them, to tell the daemon what the test passes"
        )
    if watchdog is not None and not watchdog > 0:
        raise ValueError(f"watchdog is {watchdog}; expected seconds, more than 0, or None for no watchdog")
    failure: BaseException | None = None
    complaints: list[AssertionError] = []
    with ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="activation-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        passed = make(sockets, folder)
        for item in passed:
            stack.callback(item.close)
        descriptor_store = stack.enter_context(DescriptorStore(store))
        if callable(daemon):
            stack.enter_context(_environment(env))
        async with trio.open_nursery() as nursery:
            manager = Manager(nursery, daemon, passed, descriptor_store, watchdog, env, folder, timeout)
            nursery.start_soon(descriptor_store.watch)
            # The nursery would wrap the test's exception in a group, so it does not get to see it.
            try:
                await manager.begin()
                yield Daemon(manager)
                complaints = await manager.finish()
            except BaseException as error:
                failure = error
                await manager.abandon(error)
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if len(complaints) == 1:
        raise complaints[0]
    if complaints:
        raise ExceptionGroup("the daemon did several things wrong", complaints)


_lent: dict[str, tuple[str | None, int]] = {}
"""The variables in os.environ that are there for daemons: each with its value before, and the number of daemons."""


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    for name, value in variables.items():
        if name in _lent and os.environ.get(name) != value:
            raise ValueError(
                f"{name} cannot be {value!r} for this daemon: another daemon inside the same process has "
                f"{os.environ.get(name)!r}; give one of them as a command"
            )
    for name, value in variables.items():
        before, users = _lent.get(name, (os.environ.get(name), 0))
        _lent[name] = before, users + 1
        os.environ[name] = value
    try:
        yield
    finally:
        for name in variables:
            before, users = _lent.pop(name)
            if users > 1:
                _lent[name] = before, users - 1
            elif before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
