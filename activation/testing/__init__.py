"""Test a daemon as a service manager runs it: activated, reloaded, restarted, killed, stopped.

:func:`activated` runs a daemon for the length of a block, and gives a :class:`Daemon`, by which the test does what
a service manager and clients do, and sees what the daemon tells. The daemon is an async function, which then runs in
the test's own trio, or a command, which then runs as a child process; the test is the same for both::

    from activation.testing import activated

    async def test_chat() -> None:
        async with activated(main, {"chat": "unix"}) as daemon:
            await daemon.ready()
            client = await daemon.connect("chat")
            await client.send_all(b"hello\\n")
            await daemon.wait_status("1 connection open")
            assert await daemon.stop() == 0

It needs trio only. With pytest-trio the test above is complete.
"""

from ._activated import activated
from ._daemon import Daemon

__all__ = ["Daemon", "activated"]

for _public in (Daemon, activated):
    _public.__module__ = __name__  # where users find it, and what a traceback is to say
