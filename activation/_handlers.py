"""Which handler has which descriptor: by FileDescriptorName=, or the one handler all that are streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from ._environment import ActivationError
from ._files import File, files, why_nothing_was_passed
from ._kinds import kind_of
from ._listeners import listeners
from ._streams import streams

if TYPE_CHECKING:
    import trio

Handler: TypeAlias = Callable[[Any], Awaitable[object]]

OTHERS = "*"
"""The name of the handler that takes what no other does."""
OURS = "activation."
"""What the names begin with under which this library itself keeps descriptors in the manager's store."""


class Served:
    """What a serve() has to do, and the handler of each.

    Attributes:
        accepting: what to accept on.
        accepted: connections that are open.
        once: by name, datagram sockets, and Files that are no sockets, whose handlers run once.
    """

    __slots__ = ("accepted", "accepting", "once")

    def __init__(
        self,
        accepting: Iterable[tuple[trio.abc.Listener[Any], Handler]] = (),
        accepted: Iterable[tuple[trio.abc.AsyncResource, Handler]] = (),
    ) -> None:
        self.accepting = list(accepting)
        self.accepted = list(accepted)
        self.once: list[tuple[str, trio.socket.SocketType | File, Handler]] = []

    def __bool__(self) -> bool:
        return bool(self.accepting or self.accepted or self.once)

    def close_once(self) -> None:
        """Close what the handlers that run once had."""
        for _, thing, _ in self.once:
            thing.close()


def what_is_served(
    handler: Handler | Mapping[str, Handler],
    given: Sequence[trio.abc.Listener[Any] | None] | Mapping[str, Sequence[trio.abc.Listener[Any] | None]] | None,
    connections: Sequence[trio.abc.AsyncResource | None],
    *,
    durable: bool,
) -> Served:
    """Return what a serve() has to do: with what was passed, unless listeners are given.

    Raises:
        ActivationError: there is nothing to serve, or something that nothing would serve. What was passed is closed.
        ValueError: an argument does not go with another.
    """
    if isinstance(handler, Mapping):
        if any(connections):
            raise ValueError("connections cannot be given to handlers by name; give serve() one handler")
        if isinstance(given, Mapping):
            return served_listeners(handler, given)
        if given is not None:
            raise ValueError("there are handlers by name, so listeners must be given by name, too")
        return _taken(partial(served_by_name, handler), _passed(), durable=durable)
    if isinstance(given, Mapping):
        raise ValueError("listeners are given by name, so there must be handlers by name; expected a dictionary")
    accepted = [(stream, handler) for stream in connections if stream]
    if given is None:
        served = _taken(partial(served_streams, handler), files() if accepted else _passed(), durable=durable)
        served.accepted[:0] = accepted
    else:
        served = Served([(listener, handler) for listener in given if listener], accepted)
    if not served:
        raise ActivationError(
            "there is nothing to serve: no socket that listens for streams was passed and none was given; start the "
            "program by its socket unit or socket-activate, or give serve() listeners, such as "
            "await trio.open_tcp_listeners(2000)"
        )
    return served


def _taken(take: Callable[[list[File]], Served], passed: list[File], *, durable: bool) -> Served:
    try:
        if durable:
            check_durable(passed)
        return take(passed)
    except (ActivationError, ValueError):
        for file in passed:
            file.close()  # nobody else knows of them
        raise


def _passed() -> list[File]:
    passed = files()
    if not passed:
        raise ActivationError(
            f"there is nothing to serve: {why_nothing_was_passed()}; or give serve() listeners, such as "
            "await trio.open_tcp_listeners(2000)"
        )
    return passed


def check_durable(passed: Sequence[File]) -> None:
    """Raise the ValueError for a passed socket that can have no durable connections."""
    kinds = [(file, kind_of(file)) for file in passed if file.fileno() >= 0 and not file.name.startswith(OURS)]
    if wrong := [f"{file.name!r} ({kind})" for file, kind in kinds if kind and kind.is_socket and not kind.is_stream]:
        raise ValueError(
            f"durable is given, and {', '.join(wrong)} was passed, which cannot have durable connections; only stream "
            "sockets can: take the others by files(), or give serve() the listeners, and serve the others beside it"
        )


def served_streams(handler: Handler, passed: Sequence[File]) -> Served:
    """Give the handler every passed stream, listening or connected.

    Raises:
        ActivationError: something else was passed, which nothing would serve. Nothing was given away.
    """
    kinds = [(file, kind_of(file)) for file in passed if file.fileno() >= 0 and not file.name.startswith(OURS)]
    left = {f"{file.name!r} ({kind})": file.name for file, kind in kinds if kind and not kind.is_stream}
    if left:
        raise ActivationError(
            f"nothing would serve {', '.join(left)}, which was passed; give serve() handlers by name, such as "
            f"{{{next(iter(left.values()))!r}: handler}}, or take what was passed by files(), and give serve() the "
            "listeners among it"
        )
    return Served(
        accepting=[(listener, handler) for listener in listeners(passed) if listener],
        accepted=[(stream, handler) for stream in streams(passed) if stream],
    )


def served_by_name(handlers: Mapping[str, Handler], passed: Sequence[File]) -> Served:
    """Give each of the passed descriptors to the handler of its name.

    Raises:
        ActivationError: there is a handler without a descriptor, or a descriptor without a handler. Nothing was given
            away.
    """
    # Only here: most daemons have one handler, for streams.
    from ._packet_conns import packet_conns
    from ._seqpacket import seqpacket_channels, seqpacket_listeners

    passed = [file for file in passed if file.fileno() >= 0 and not file.name.startswith(OURS)]
    needed = [file for file in passed if kind_of(file)]
    check_names(handlers, [file.name for file in passed], [file.name for file in needed])
    # What the program stored under a name of its own is not for the handler of the others.
    wanted = [file for file in passed if file.name in handlers or (OTHERS in handlers and file in needed)]
    found = [(file.name, handlers.get(file.name) or handlers[OTHERS]) for file in wanted]
    served = Served()
    for convert in (listeners, seqpacket_listeners):
        for (_, handler), listener in zip(found, convert(wanted), strict=True):
            if listener:
                served.accepting.append((listener, handler))
    for connect in (streams, seqpacket_channels):
        for (_, handler), connection in zip(found, connect(wanted), strict=True):
            if connection:
                served.accepted.append((connection, handler))
    for file, (name, handler), conn in zip(wanted, found, packet_conns(wanted), strict=True):
        if conn:
            served.once.append((name, conn, handler))
        elif file.fileno() >= 0:
            served.once.append((name, file, handler))
    return served


def served_listeners(
    handlers: Mapping[str, Handler], named: Mapping[str, Sequence[trio.abc.Listener[Any] | None]]
) -> Served:
    """Give each of the listeners to the handler of its name.

    Raises:
        ActivationError: there is a handler without a listener, or a listener without a handler.
    """
    names = [name for name, found in named.items() if any(found)]
    check_names(handlers, names, names)
    return Served(
        accepting=[
            (listener, handlers.get(name) or handlers[OTHERS])
            for name, found in named.items()
            for listener in found
            if listener
        ]
    )


def check_names(handlers: Mapping[str, Handler], passed: Sequence[str], needed: Sequence[str]) -> None:
    """Raise the ActivationError for a handler whose name was not passed, and for a name that needs one and has none."""
    missing = [name for name in handlers if name != OTHERS and name not in passed]
    unserved = [] if OTHERS in handlers else [name for name in needed if name not in handlers]
    if not missing and not unserved:
        return
    faults = []
    if missing:
        faults.append(f"nothing was passed by the name {_listed(missing)}")
    if unserved:
        faults.append(f"no handler serves {_listed(unserved)}")
    raise ActivationError(
        f"{' and '.join(faults)}: serve() has handlers for {_listed(handlers)}, and what was passed is named "
        f"{_listed(passed)}; the names are FileDescriptorName= of the socket units, by default the units' own, and "
        f"{OTHERS!r} is the handler of all other names"
    )


def _listed(names: Sequence[str] | Mapping[str, object]) -> str:
    return ", ".join(repr(name) for name in dict.fromkeys(names)) or "nothing"
