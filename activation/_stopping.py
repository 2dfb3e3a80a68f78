"""What a program does about the end of its daemon: it asks for it, sees it, and holds it up until its work is done."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

from ._life import current_life

if TYPE_CHECKING:
    from types import TracebackType

    from ._activity import Activity
    from ._life import Life


def stop() -> None:
    """Tell the daemon to stop, as its first SIGTERM does. If it was told before, nothing happens.

    Every :func:`serve` of the process accepts no more, lets its connections finish and returns. Where none has begun
    yet, the next one returns at once. Call it from any task, and from a thread by
    ``trio.from_thread.run_sync(activation.stop)``.

    Raises:
        RuntimeError: the caller is outside of trio.
    """
    current_life().stop()


def until_stopping() -> AbstractContextManager[trio.CancelScope, bool]:
    """Cancel what is in the block as soon as the daemon is told to stop, and go on after the block::

        with activation.until_stopping():
            async for message in channel:
                await broadcast(message)
        await stream.send_all(b"goodbye")

    The daemon is told by a signal, by :func:`stop`, or by the idle clock. If it was told before, the block is cancelled
    at its first checkpoint. Where nothing serves, the block is never cancelled. What follows the block has the
    ``drain_timeout`` of :func:`serve`.

    Returns:
        A context manager, which gives the ``trio.CancelScope`` of the block. Its ``cancelled_caught`` tells afterwards
        whether the block was cut short.

    Raises:
        RuntimeError: the caller is outside of trio.
    """
    return _UntilStopping(current_life())


class _UntilStopping(AbstractContextManager[trio.CancelScope, bool]):
    """A class, so that type checkers know that the code after the block is reached."""

    __slots__ = ("_life", "_scope")

    def __init__(self, life: Life) -> None:
        self._life = life
        self._scope = trio.CancelScope()

    def __enter__(self) -> trio.CancelScope:
        self._scope.__enter__()
        if self._life.is_stopping:
            self._scope.cancel()
        self._life.until.add(self._scope)
        return self._scope

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._life.until.remove(self._scope)
        return self._scope.__exit__(kind, error, traceback)


def busy() -> AbstractContextManager[None, None]:
    """Count the block as one connection more: work that is none, such as a job of a queue or another server's client.

    As long as it lasts, the idle clock does not run, and a daemon that was told to stop waits for it, up to the
    ``drain_timeout`` of :func:`serve`. STATUS= tells how many there are. The block may be entered in one task and left
    in another, so a job can be counted from the moment at which it is queued.

    Raises:
        RuntimeError: the caller is outside of trio.
    """
    return _Busy(current_life().activity)


class LateWork:
    """What keeps the handler of a datagram socket running when the daemon leaves, while it is :func:`busy`.

    A datagram that the handler has just received can be answered by nobody else. So what it begins then is finished.

    Attributes:
        scope: to be around the handler, in the scope that ends it.
    """

    __slots__ = ("_end", "_pieces", "scope")

    def __init__(self, end: trio.CancelScope) -> None:
        self.scope = trio.CancelScope()
        self._end = end
        self._pieces = 0

    def begin(self) -> bool:
        """Keep the handler running, and return True, if it is late. Then :meth:`finish` has to follow, in any task."""
        if not self._end.cancel_called:
            return False
        self._pieces += 1
        self.scope.deadline = self._end.deadline if self._end.deadline < math.inf else trio.current_time()
        self.scope.shield = True
        return True

    def finish(self) -> None:
        self._pieces -= 1
        if not self._pieces:
            self.scope.shield = False


late_work: ContextVar[LateWork | None] = ContextVar("activation_late_work", default=None)
"""In the handler of a datagram socket."""


class _Busy(AbstractContextManager[None, None]):
    __slots__ = ("_activity", "_late")

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._late: LateWork | None = None

    def __enter__(self) -> None:
        handler = late_work.get()
        if handler is not None and handler.begin():
            self._late = handler
        self._activity.begin_work()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._activity.end_work()
        if self._late:
            self._late.finish()
