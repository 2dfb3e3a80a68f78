"""What serve() has to do with durable connections. It loads the rest of them only where they are asked for."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ._files import passed_before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._durable import DurableConnections
    from ._durable_options import Durable

log = logging.getLogger("activation")


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
    left = [file.name for file in passed_before() if file.fileno() >= 0] if alone else []
    if left:
        from ._durable_options import STORED

        if STORED in left:
            # Their clients would wait for ever.
            from ._durable_recovery import discard

            log.warning("durable connections of the earlier start are closed: this one serves without durable=True")
            discard()
    yield None
