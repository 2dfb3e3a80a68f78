"""serve(), the life of a daemon in one call: what it takes, and what it checks before it takes anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import trio

import activation

from ._accepting import Accepting
from ._connections import Connections, close
from ._durable_serving import durable_connections
from ._handlers import Served, what_is_served
from ._life import life_to_join
from ._notify import check_address, watchdog_enabled
from ._server import Server

if TYPE_CHECKING:
    from typing import Literal, TypedDict, TypeVar, Unpack

    from ._durable_stream import DurableStream

    T = TypeVar("T", bound=trio.abc.AsyncResource)

    class _Options(TypedDict, total=False):
        idle_timeout: float | None
        drain_timeout: float
        reload: Callable[[], object] | None
        max_connections: int | None
        handshake_timeout: float
        status: Callable[[int], str] | None
        notify: bool
        task_status: trio.TaskStatus[list[trio.abc.Listener[Any]]]


@overload
async def serve(
    handler: Callable[[trio.SocketStream], Awaitable[object]],
    listeners: None = None,
    *,
    connections: Sequence[trio.SocketStream | None] = (),
    durable: Literal[False] = False,
    **options: Unpack[_Options],
) -> None: ...
@overload
async def serve(
    handler: Callable[[T], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[T] | None],
    *,
    connections: Sequence[T | None] = (),
    durable: Literal[False] = False,
    **options: Unpack[_Options],
) -> None: ...
@overload
async def serve(
    handler: Callable[[DurableStream], Awaitable[object]],
    listeners: Sequence[trio.abc.Listener[trio.SocketStream] | None] | None = None,
    *,
    connections: Sequence[trio.SocketStream | None] = (),
    durable: Literal[True] | activation.Durable,
    **options: Unpack[_Options],
) -> None: ...
@overload
async def serve(
    handler: Mapping[str, Callable[[Any], Awaitable[object]]],
    listeners: Mapping[str, Sequence[trio.abc.Listener[Any] | None]] | None = None,
    *,
    durable: bool | activation.Durable = False,
    **options: Unpack[_Options],
) -> None: ...
@overload
async def serve(handler: None, listeners: Sequence[None] | None = None, **options: Unpack[_Options]) -> None: ...
async def serve(
    handler: Callable[[Any], Awaitable[object]] | Mapping[str, Callable[[Any], Awaitable[object]]] | None,
    listeners: Sequence[trio.abc.Listener[Any] | None]
    | Mapping[str, Sequence[trio.abc.Listener[Any] | None]]
    | None = None,
    *,
    connections: Sequence[trio.abc.AsyncResource | None] = (),
    idle_timeout: float | None = None,
    drain_timeout: float = 30.0,
    reload: Callable[[], object] | None = None,
    max_connections: int | None = None,
    handshake_timeout: float = 30.0,
    durable: bool | activation.Durable = False,
    status: Callable[[int], str] | None = None,
    notify: bool = True,
    task_status: trio.TaskStatus[list[trio.abc.Listener[Any]]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a daemon: accept, run ``handler`` with the stream of each connection, and return when it is time to leave.

    It takes what the service manager passed: the listening sockets, and the connection that ``Accept=yes`` of
    systemd.socket(5) accepted, after which it returns. It tells the manager, sd_notify(3), when it accepts (READY=1),
    how many connections are open (STATUS=), that its event loop is not stuck (WATCHDOG=1, as WatchdogSec= wants), that
    it reloads (RELOADING=1) and that it leaves (STOPPING=1). Without a manager all of it works and nobody is told.

    SIGTERM, SIGINT and :func:`stop` end it: it accepts no more, gives the open connections and what is :func:`busy`
    ``drain_timeout`` seconds, cancels the connections that are left and returns. A second signal ends it at once,
    unless it comes within a quarter of a second, as it does when a manager signals all processes of a service and a
    wrapper forwards its own. Handlers learn of the end by :func:`until_stopping`. The listening sockets are closed at
    the end, but never shut down, and no path is removed: whoever connects meanwhile waits for the next start.

    At SIGHUP it calls ``reload``. Without one, a daemon that a manager started tells it that it has reloaded, and any
    other daemon dies of SIGHUP, as usual. Signals come to it in the main thread only. A ``trio.open_signal_receiver()``
    of the program hears them, too. A forked child hears none and has the signal handlers of before.

    A handler's exception is logged, with the peer, and costs its own connection only. So that clients cannot fill the
    log, each type of exception is logged 20 times a minute at most. The stream is closed after the handler, in any
    case. Out of descriptors or memory, accepting waits and goes on.

    The logger is ``activation``, and it logs in the event loop. A log handler that waits, as ``logging.StreamHandler``
    does while standard error is a pipe that nobody reads, holds up every client: put a
    :class:`logging.handlers.QueueHandler` before it.

    Where the listener makes a ``trio.SocketStream``, the handler gets a stream on the same socket that has all that
    trio's has, is an instance of it for isinstance(), and takes less time: receiving lets the other tasks run before it
    tries, and a send that follows a receive does not let them run again. A task that moves bulk lets them run once in
    192 KiB. Every call checks for cancellation, as in trio. TLS is on such a stream, too.

    Handlers may be given by FileDescriptorName= of systemd.socket(5), for several protocols in one daemon, with one
    READY, one idle clock and one drain for all::

        await activation.serve({"chat": chat, "admin": admin})

    The handler of a listener runs for each connection: with a stream, or with a :class:`SeqpacketChannel` where the
    socket is one of sequential packets. The handler of a datagram socket runs once, with the trio socket, and that of
    any other descriptor once, with its :class:`File`; both are cancelled when the daemon leaves. Datagrams are no
    connections: put :func:`busy` around the work for each one, so that the idle clock and the drain know of it. If a
    handler of datagrams raises, that is logged, and it is run again; if another one of these raises, the daemon stops,
    and serve() raises that at its end. Where only such descriptors were passed, serve() returns once their handlers
    have returned.

    Every handler must have something that was passed, and everything that was passed must have a handler. Not meant is
    what the program may have left in the manager's store: connected sockets, memfds, pipes, and what is named
    ``activation.*``.

    Several serve() in one process are one daemon: they are told to stop together, and have one status and one idle
    clock.

    Args:
        handler: called with what was accepted, a ``trio.SocketStream`` or a ``trio.SSLStream`` whose handshake is done
            or whatever the listener makes, for each connection in a task of its own. Or handlers by name; ``"*"`` is
            the name of the one that takes what is left. None for a daemon whose work is all in other tasks, such as
            another server: it lives until it is told to stop, and what is :func:`busy` counts as its connections.
        listeners: what to accept on; None stands for a gap. With handlers by name: listeners by name, as
            :func:`tls_listeners_with_names` returns them. Left out: what was passed, the connections too.
        connections: what was accepted before, as :func:`streams` returns it; goes with ``listeners``.
        idle_timeout: return after so many seconds without any connection and without anything :func:`busy` in the
            process; of several serve(), the longest counts. Only for a service that something brings back, as a socket
            unit does: whoever connects while it leaves is served by the next start, and if nothing starts it, by
            nobody.
        drain_timeout: how many seconds there are to finish after it is told to stop. The manager is asked for the time,
            however short its own patience (TimeoutStopSec=).
        reload: called at SIGHUP, and awaited if it is a coroutine function: Type=notify-reload of systemd.service(5).
            What it raises is logged and the daemon goes on. The manager is asked for the time that it takes, however
            short TimeoutStartSec= is; put a ``trio.fail_after`` into it if it may hang.
        max_connections: above that many, clients wait in the kernel's queue. Clients in the TLS handshake have no more
            than half of the places.
        handshake_timeout: how many seconds a client has for the TLS handshake.
        durable: give the handler a :class:`DurableStream`, whose connection outlives this process: its client notices
            no restart, no crash and no ``kill -9``. The service needs ``FileDescriptorStoreMax=`` of
            systemd.service(5); where no manager keeps descriptors, the log says so, and connections end with the
            process, as always. At SIGTERM a handler ends where it waits for input, and ``drain_timeout`` is for the
            others. :class:`Durable` instead of True says how much room there is. For plain stream sockets only.
        status: called with the number of connections, and of what is :func:`busy`; what it returns is the text of
            STATUS=. Left out, the numbers are told, unless the program tells a STATUS= of its own by :func:`notify`.
        notify: False to tell the manager nothing: for one of several processes of a service with NotifyAccess=all, each
            of which would speak for all. A process that is not the one that the manager started (SYSTEMD_EXEC_PID)
            leaves out STOPPING= and STATUS= by itself.
        task_status: for ``nursery.start``: it returns once connections are accepted, with the listeners.

    Raises:
        ActivationError: nothing was passed and nothing given; something was passed that nothing would serve; nothing
            was passed by a handler's name; or the manager's variables cannot be true.
        ValueError: an argument is out of its range, or does not go with another.
    """
    _check(idle_timeout, drain_timeout, max_connections, handshake_timeout)
    check_address()
    watchdog_enabled()  # raises what is wrong with it before anything is taken
    if handler is None and (listeners or any(connections) or max_connections is not None or durable):
        raise ValueError("handler is None, so there can be no connections and no limits to them; expected a handler")
    if durable and isinstance(handler, Mapping):
        # The next process finds a connection's handler by its name, which is to be known of one that has several.
        handler = {name: partial(one) for name, one in handler.items()}
    served = Served() if handler is None else what_is_served(handler, listeners, connections, durable=bool(durable))
    life = life_to_join()
    open_connections = Connections(life.activity, handshake_timeout)
    server = Server(
        life,
        Accepting(served.accepting, open_connections, max_connections),
        open_connections,
        served,
        lives_alone=handler is None,
        drain_timeout=drain_timeout,
        idle_timeout=idle_timeout,
        reload=reload,
        status=status,
        notify=notify,
    )
    taken = [resource for resource, _ in (*served.accepting, *served.accepted)]
    try:
        if durable:
            from ._durable_options import check_kinds

            check_kinds([listener for listener, _ in served.accepting], [stream for stream, _ in served.accepted])
        async with durable_connections(durable, alone=listeners is None) as open_connections.durable:
            if open_connections.durable and handler:
                by_name = handler if isinstance(handler, Mapping) else {"": handler}
                served.accepting, served.accepted = open_connections.durable.begin(
                    served.accepting, served.accepted, by_name
                )
                server.accepting.listeners = served.accepting
            await server.run(task_status)
    finally:
        for resource in taken:
            await close(resource)
        served.close_once()


def _check(
    idle_timeout: float | None, drain_timeout: float, max_connections: int | None, handshake_timeout: float
) -> None:
    times = {"idle_timeout": idle_timeout, "drain_timeout": drain_timeout, "handshake_timeout": handshake_timeout}
    for name, seconds in times.items():
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"{name} is {seconds}; expected seconds, 0 or more")
    if max_connections is not None and max_connections < 1:
        raise ValueError(f"max_connections is {max_connections}; expected 1 or more, or None for no limit")
