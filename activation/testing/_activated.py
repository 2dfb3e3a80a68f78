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


# Apart, for mypy finds no type for {"chat": "unix"} where it may be either.
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
    """Run a daemon during the block, as a service manager runs it that was asked for these sockets.

    At the end of the block, what :meth:`Daemon.connect` made is closed, and a daemon that still runs is stopped, once
    it is ready. If the block fails, the daemon is killed, and the failure gets a note of what the daemon told.

    Args:
        daemon: an async function without arguments, or a command, a sequence of the program and its arguments.

            The function runs in the test's own trio. In it, :func:`activation.files`, :func:`activation.notify`,
            :func:`activation.watchdog_enabled`, :func:`activation.serve` and all that use them see the test's sockets,
            and not what the test's own process was passed, also in the tasks and worker threads that it starts. Several
            daemons can run side by side, and ``trio.testing.MockClock`` works.

            The command runs as a child, by :func:`activation.open_process`.
        sockets: what to pass, in order: a name and ``"unix"``, ``"tcp"``, ``"udp"``, ``"unix-datagram"`` or
            ``"seqpacket"`` for a new socket, or a name and a socket, or anything else with a ``fileno()``, of the
            test's own. As a mapping, or as pairs, in which a name may come repeatedly.
        watchdog: within how many seconds each ``WATCHDOG=1`` is expected once the daemon is ready: WatchdogSec= of
            systemd.service(5).
        store: how many descriptors the daemon may store: FileDescriptorStoreMax=.
        env: variables for the daemon. A function finds them in this process's ``os.environ`` during the block.
        timeout: how many seconds the daemon may take for anything that the test waits for.

    Raises:
        AssertionError: at the end: the daemon has ended before READY=1 or was not ready in time; it has ended otherwise
            than with 0, and the test has not asked how it ended; it missed its watchdog; or it has left something
            behind: a descriptor or a task (of a function), a process (of a command), the path of a socket. The message
            says what the daemon had told, and its last lines of output.
        ExceptionGroup: several of these.
        ValueError: a name or a kind of socket is none, or a variable is the service manager's to set.
        OSError: a socket cannot be made, or the command cannot be started.
    """
    env = dict(env or {})
    if taken := sorted(env.keys() & MANAGERS_VARIABLES):
        raise ValueError(f"{', '.join(taken)} cannot be set by env: they tell the daemon what the test passes to it")
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
            # Out of the nursery's sight: it would put what the test raises into a group.
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
        raise ExceptionGroup("the daemon did not do as it should", complaints)


_lent: dict[str, tuple[str | None, int]] = {}
"""The variables that are in os.environ for a daemon: what was there before, and for how many daemons."""


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
