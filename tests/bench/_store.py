"""A service manager's descriptor store for one daemon, in a process of its own."""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import activation

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = 4


@contextmanager
def descriptor_store() -> Iterator[dict[str, str]]:
    """Have a store that is empty at first, for the length of the block.

    Yields:
        The variables that tell a daemon of it.
    """
    with activation.NotifyReceiver() as receiver:
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            try:
                _keep(receiver)
            finally:
                os._exit(1)
        try:
            yield {"NOTIFY_SOCKET": receiver.address}
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _keep(receiver: activation.NotifyReceiver) -> None:
    poll = select.poll()
    poll.register(receiver, select.POLLIN)
    with activation.DescriptorStore(ROOM) as store:
        while True:
            poll.poll()
            while notification := receiver.receive_nowait():
                if not store.take(notification):
                    notification.close()
