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


def busy() -> AbstractContextManager[None, bool | None]:
    """Count the block as one connection more: work that is none, such as a job of a queue or another server's client.

    As long as it lasts, the idle clock does not run, and a daemon that was told to stop waits for it, up to the
    ``drain_timeout`` of :func:`serve`. STATUS= tells how many there are. The block may be entered in one task and left
    in another, so a job can be counted from the moment at which it is queued.

    Raises:
        RuntimeError: the caller is outside of trio.
    """
    return _Busy(current_life().activity)


late_work: ContextVar[trio.CancelScope | None] = ContextVar("activation_late_work", default=None)
"""In the handler of a datagram socket: the scope that ends it when the daemon leaves. A datagram that it has just
received can be answered by nobody else, so what is busy() then is finished."""


class _Busy(AbstractContextManager[None, bool | None]):
    __slots__ = ("_activity", "_shield")

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._shield: trio.CancelScope | None = None

    def __enter__(self) -> None:
        work = late_work.get()
        if work is not None and work.cancel_called:
            deadline = work.deadline if work.deadline < math.inf else trio.current_time()
            self._shield = trio.CancelScope(deadline=deadline, shield=True)
            self._shield.__enter__()
        self._activity.begin_work()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._activity.end_work()
        return self._shield.__exit__(kind, error, traceback) if self._shield else None
