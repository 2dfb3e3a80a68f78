"""What serve() has to do with durable connections. It loads the rest of them only where they are asked for."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from ._files import passed_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._durable import DurableConnections
    from ._durable_options import Durable

log = logging.getLogger("activation")

PATIENCE: Final = 60.0
"""Seconds within which another serve() of the process can go on with the connections of an earlier start."""


@asynccontextmanager
async def durable_connections(wanted: bool | Durable, *, alone: bool) -> AsyncIterator[DurableConnections | None]:
    """What keeps the connections for the next process, within the block; None where that is not wanted or not had.

    Args:
        wanted: the ``durable`` of serve().
        alone: whether it takes all that was passed, so that no other serve() of the process can want what an earlier
            start has left.

    Raises:
        ValueError: another serve() of this process has durable connections.
        ActivationError, OSError: they cannot be had.
    """
    if wanted:
        from ._durable import DurableConnections
        from ._durable_options import Durable

        durable = await DurableConnections.open(wanted if isinstance(wanted, Durable) else Durable())
        try:
            yield durable
        finally:
            if durable:
                durable.close()
        return
    if not any(file.fileno() >= 0 for file in passed_before()):
        yield None
        return
    from ._durable_options import STORED

    if alone and _are_left(STORED):
        _end()
    if not _are_left(STORED):
        yield None
        return
    failure = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_later, STORED)
        try:
            yield None
        except Exception as error:
            failure = error  # not in a group
        nursery.cancel_scope.cancel()
    if failure:
        raise failure


async def _end_later(name: str) -> None:
    """End the connections of an earlier start once no other serve() of the process goes on with them."""
    await trio.sleep(PATIENCE)
    if _are_left(name):
        _end()


def _are_left(name: str) -> bool:
    return any(file.name == name and file.fileno() >= 0 for file in passed_before())


def _end() -> None:
    # Their clients would wait for ever.
    from ._durable_recovery import discard

    log.warning("durable connections of the earlier start are closed: this one serves without durable=True")
    discard()
