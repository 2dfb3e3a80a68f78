"""One connection after another: its handler, its TLS handshake, what goes wrong with it, and its end."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from ._occasional import OccasionalMessages
from ._peers import Peer
from ._socket_stream import SocketStream

if TYPE_CHECKING:
    from ._activity import Activity
    from ._durable import DurableConnections

MOST_MESSAGES = 20
"""How often a minute the log tells of each thing that may go wrong with a connection, and of each type of exception of
a handler. Any client can cause them."""

BROKE = "the connection of %s broke: %s"
UNFINISHED = "%s did not finish the TLS handshake in %g s"
FAILED = "the handler failed for %s; only that connection ends"

Handler: TypeAlias = Callable[[Any], Awaitable[object]]


class Connections:
    """The open connections of one serve().

    Attributes:
        nursery: where their handlers run.
        open: how many there are.
        handshaking: how many of them are in the TLS handshake.
        departures: where to wait until one ends.
        durable: what keeps them for the next process, where they outlive this one.
    """

    __slots__ = (
        *("_activity", "_handshake_timeout", "_messages", "_warnings"),
        *("departures", "durable", "handshaking", "nursery", "open"),
    )

    nursery: trio.Nursery

    def __init__(self, activity: Activity, handshake_timeout: float) -> None:
        self.open = 0
        self.handshaking = 0
        self.departures = trio.lowlevel.ParkingLot()
        self.durable: DurableConnections | None = None
        self._activity = activity
        self._handshake_timeout = handshake_timeout
        self._messages = OccasionalMessages(MOST_MESSAGES)
        self._warnings = OccasionalMessages()

    def begin(self, stream: trio.abc.AsyncResource, handler: Handler) -> None:
        """Run the handler with the stream, and close that after it."""
        self.open += 1
        self._activity.connect()
        if type(stream) is trio.SocketStream and stream.socket.fileno() >= 0:
            stream = SocketStream(stream)
        elif isinstance(stream, trio.SSLStream):
            self.handshaking += 1
            below = stream.transport_stream
            if type(below) is trio.SocketStream and below.socket.fileno() >= 0:
                stream.transport_stream = SocketStream(below)
        self.nursery.start_soon(self._run, stream, handler)

    async def _run(self, stream: trio.abc.AsyncResource, handler: Handler) -> None:
        who = Peer(stream)  # now: the handler may close the stream before it fails
        try:
            if self.durable is not None:
                await self.durable.run(handler, stream)
            elif type(stream) is SocketStream or not isinstance(stream, trio.SSLStream):
                await handler(stream)
            elif await self._shake_hands(stream, who):
                await handler(stream)
                with trio.move_on_after(self._handshake_timeout):
                    await stream.aclose()  # says goodbye, as TLS wants it
        except* trio.BrokenResourceError as errors:
            broken = one_of(errors)
            self._messages.log(logging.INFO, BROKE, who, broken.__cause__ or broken)
        except* Exception as errors:
            error = one_of(errors)
            self._messages.log(logging.ERROR, FAILED, who, error=error, kind=f"{FAILED} {type(error)}")
        finally:
            if type(stream) is SocketStream:
                stream.socket.close()  # all that its aclose() does, but for the checkpoint
            elif self.durable is None:
                await close(stream)
            self.open -= 1
            if self.departures:
                self.departures.unpark_all()
            self._activity.disconnect()

    async def _shake_hands(self, stream: trio.SSLStream[Any], who: Peer) -> bool:
        """Return whether it succeeded. What fails may be the fault of this end, so a warning tells of it."""
        reason = f"not finished in {self._handshake_timeout:g} s"
        try:
            with trio.move_on_after(self._handshake_timeout):
                await stream.do_handshake()
                return True
            self._messages.log(logging.INFO, UNFINISHED, who, self._handshake_timeout)
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            self._messages.log(logging.INFO, BROKE, who, cause or error)
            if not isinstance(cause, ssl.SSLError) or isinstance(cause, ssl.SSLEOFError):
                return False  # the client went away
            reason = str(cause)
        finally:
            self.handshaking -= 1
            if self.departures:
                self.departures.unpark_all()
        self._warnings.warn("the TLS handshake with %s failed: %s", who, reason)
        return False


async def close(resource: trio.abc.AsyncResource) -> None:
    """Close it without a goodbye, whether the caller is cancelled or not."""
    with trio.CancelScope(shield=True):
        await trio.aclose_forcefully(resource)


def one_of(errors: ExceptionGroup[Exception]) -> Exception:
    """The error itself where a group has only one."""
    return errors.exceptions[0] if len(errors.exceptions) == 1 else errors
