"""anyio's listeners and streams on the sockets that systemd passes, within serve()'s life.

The handler is written for anyio, so it also runs elsewhere. activation.serve() tells the manager, waits for connections
when the daemon is told to stop, and returns when the daemon is idle.

Try it: socket-activate -l 2000 python examples/anyio_echo.py
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import trio

import activation

if TYPE_CHECKING:
    from collections.abc import Sequence


async def echo(stream: anyio.abc.SocketStream) -> None:
    """Send back what comes, until its end."""
    # Each connection counts as work that the daemon waits for.
    with activation.busy():
        async with stream:
            try:
                async for data in stream:
                    await stream.send(data)
            except anyio.BrokenResourceError:
                pass  # the client went away


async def accept(listeners: Sequence[anyio.abc.SocketListener], handlers: anyio.abc.TaskGroup) -> None:
    """Accept on all listeners until the daemon is told to stop; the handlers go on."""
    with activation.until_stopping():
        async with anyio.create_task_group() as loops:
            for listener in listeners:
                loops.start_soon(listener.serve, echo, handlers)
    for listener in listeners:
        await listener.aclose()


async def main() -> None:
    """Serve until a signal, or until there was no connection for five minutes."""
    files = activation.files()
    if not files:
        sys.exit("anyio_echo: no sockets were passed; start it by a socket unit or by socket-activate")
    listeners = [await anyio.abc.SocketListener.from_socket(file.detach()) for file in files]
    async with anyio.create_task_group() as handlers:
        handlers.start_soon(accept, listeners, handlers)
        await activation.serve(None, idle_timeout=300)
        handlers.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
