"""How much room a durable connection has, and how many there can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

STORED = "activation.connections"
"""What the descriptors of durable connections are called in the service manager's store."""
WATCH = f"{STORED}.watch"
"""What the one is called that tells when the manager gives them up."""

LARGEST_ROOM = 1 << 28


def _check(_: Durable, attribute: attrs.Attribute[int], value: int) -> None:
    if not 1 <= value <= LARGEST_ROOM:
        raise ValueError(f"Durable: {attribute.name} is {value}; expected 1 to {LARGEST_ROOM}")


@attrs.frozen(kw_only=True)
class Durable:
    """How much room each durable connection has: ``activation.serve(handler, durable=activation.Durable(...))``.

    Memory is taken only for what is used: 4 KiB for a connection whose messages are short, whatever is allowed here. A
    service that restarts with other numbers keeps its connections; theirs are those that they began with.

    Attributes:
        connections: how many there can be at once; more clients wait in the kernel's queue.
        input: how many bytes :meth:`DurableStream.receive_until` and :meth:`DurableStream.receive_exactly` can return.
        output: how many bytes a handler can send between two receives, in one commit.
        state: how many bytes the state can have.
        optional: where no manager keeps connections, say nothing and give the handler the stream that it would get
            without ``durable``.
    """

    connections: int = attrs.field(default=16384, validator=_check)
    input: int = attrs.field(default=1 << 16, validator=_check)
    output: int = attrs.field(default=1 << 18, validator=_check)
    state: int = attrs.field(default=1 << 16, validator=_check)
    optional: bool = False


def check_kinds(listeners: Iterable[trio.abc.Listener[Any]], connections: Iterable[trio.abc.AsyncResource]) -> None:
    """Raise the ValueError of what cannot be durable."""
    for listener in listeners:
        if isinstance(listener, trio.SSLListener):
            raise ValueError(f"{listener} cannot have durable connections: the keys of TLS are this process's alone")
        if type(listener) is not trio.SocketListener:
            raise ValueError(f"{listener} cannot have durable connections; expected a trio.SocketListener")
    for connection in connections:
        if type(connection) is not trio.SocketStream:
            raise ValueError(f"{connection} cannot be a durable connection; expected a trio.SocketStream")
