"""Test a daemon the way a service manager runs it: activate, reload, restart, kill and stop it.

:func:`activated` runs a daemon during a block and yields a :class:`Daemon`. Through that, the test acts as the service
manager and as the clients, and sees what the daemon tells. The daemon is an async function, which runs in the test's
own trio, or a command, which runs as a child process. The same test works for both::

    from activation.testing import activated

    async def test_chat() -> None:
        async with activated(main, {"chat": "unix"}) as daemon:
            await daemon.ready()
            client = await daemon.connect("chat")
            await client.send_all(b"hello\\n")
            await daemon.wait_status("1 connection open")
            assert await daemon.stop() == 0

It needs trio only. With pytest-trio, the test above is complete.
"""

from ._activated import activated
from ._daemon import Daemon

__all__ = ["Daemon", "activated"]

for _public in (Daemon, activated):
    _public.__module__ = __name__  # where users find it, and what a traceback is to say
