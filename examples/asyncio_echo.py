"""An asyncio daemon on the sockets that systemd passes.

Of activation it uses files(), notify() and watchdog_enabled(), which need neither trio nor attrs. What serve() does for
a trio daemon is written out here: readiness, the watchdog, and a stop that lets open connections finish.

Try it: socket-activate -l 2000 python examples/asyncio_echo.py
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import activation

DRAIN_TIMEOUT = 30.0
"""Seconds that open connections have to finish once the daemon is told to stop."""


class Connections:
    """The open connections, each a task."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one more."""
        task = asyncio.create_task(echo(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Wait for their end, and cancel what takes longer than DRAIN_TIMEOUT."""
        await asyncio.sleep(0.01)  # a client accepted in this very moment is a task a few turns of the loop later
        if not self._tasks:
            return
        _, late = await asyncio.wait(self._tasks, timeout=DRAIN_TIMEOUT)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, until its end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the client went away
    finally:
        writer.close()


async def pet_watchdog(seconds: float) -> None:
    """Tell the manager that the event loop is not stuck."""
    while True:
        activation.notify(activation.WATCHDOG)
        await asyncio.sleep(seconds / 2)


async def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    connections = Connections()
    servers = []
    for file in activation.files():
        sock = socket.socket(fileno=file.detach())
        # Not start_unix_server(): from Python 3.13 on it removes the path at the end, and that belongs to the manager.
        # asyncio calls listen() once more; the backlog is to stay as large as the manager made it.
        servers.append(await asyncio.start_server(connections.begin, sock=sock, backlog=socket.SOMAXCONN))
    if not servers:
        sys.exit("asyncio_echo: no sockets were passed; start it by a socket unit or by socket-activate")
    watchdog = activation.watchdog_enabled()
    petting = asyncio.create_task(pet_watchdog(watchdog)) if watchdog else None
    activation.notify(activation.READY)

    await stop.wait()
    activation.notify(activation.STOPPING)
    for server in servers:
        server.close()
    await connections.finish()
    if petting:
        petting.cancel()


if __name__ == "__main__":
    asyncio.run(main())
