"""From what the service manager's store gave back to connections that go on; and whether there is such a store at all.

The store has three descriptors under one name: the two ends of the queue and the memory. They are stored in one message
before the first connection is accepted, so that there are all of them or none.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import socket
import stat
from typing import TYPE_CHECKING, Final

import attrs

from ._durable_memory import Memory, UnknownLayoutError
from ._durable_options import STORED, Durable
from ._durable_queue import HoldingQueue
from ._environment import ActivationError, environ
from ._files import passed_before
from ._notify import notify_barrier
from ._store import store, unstore

if TYPE_CHECKING:
    from ._durable_slot import Slot

log = logging.getLogger("activation")

_PROBE: Final = "activation-durable-probe"
_COUNT: Final = 3

_PATIENCE: Final = 5.0
"""Seconds that a manager has to answer whether it has a store."""

_OTHER_DESCRIPTORS: Final = 64
"""That a process has open besides its connections, about."""

SO_COOKIE: Final = 57
"""The option that tells a socket from every other one until the machine restarts. socket(7) leaves it out."""

_HOW_TO = (
    "durable: connections will not outlive this process: %s; the unit needs FileDescriptorStoreMax=%d or more in its "
    "[Service] section, besides what it stores itself (socket-activate has a store by default)"
)


@attrs.frozen
class Kept:
    """What durable connections are kept in.

    Attributes:
        memory: their slots.
        queue: what holds them; None where no manager keeps anything.
        resumed: the slots of those that an earlier process had, with their descriptors.
    """

    memory: Memory
    queue: HoldingQueue | None
    resumed: list[Slot]

    @property
    def capacity(self) -> int:
        """How many connections there can be at once."""
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_DESCRIPTORS
        return max(1, min(room, self.memory.capacity, self.queue.capacity if self.queue else room))

    def close(self) -> None:
        """Close this process's copies; the manager's go on."""
        self.memory.close()
        if self.queue:
            self.queue.close()


async def open_kept(options: Durable) -> Kept | None:
    """Go on with what the manager's store gave back; where there is none, begin with nothing.

    None where no manager keeps anything and that is all right.

    Raises:
        ActivationError: this system has not what it takes, or its limits do not let the connections in.
        OSError: the kernel has no memory or descriptors for it.
    """
    if not hasattr(os, "memfd_create") or not hasattr(socket, "recv_fds"):
        raise ActivationError("durable connections need memfd_create(2), which only Linux has")
    _raise_open_file_limit()
    if kept := _resume(options):
        return kept
    missing = await _missing()
    if missing and options.optional:
        return None
    if missing:
        log.warning(_HOW_TO, missing, _COUNT)
        return Kept(Memory.create(options), None, [])
    kept = Kept(Memory.create(options), HoldingQueue(), [])
    assert kept.queue
    unstore(STORED)  # what an earlier serve() of this process has left
    store(STORED, kept.memory.fd, *kept.queue.ends, poll=False)
    return kept


def discard() -> None:
    """Close what an earlier start has left, with all its connections."""
    left = [file for file in passed_before() if file.name == STORED]
    unstore(STORED)
    for file in left:
        file.close()


def _raise_open_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            log.debug("durable: RLIMIT_NOFILE stays at %d; LimitNOFILE= of the unit can raise it", soft)


def _resume(options: Durable) -> Kept | None:
    left = [file for file in passed_before() if file.name == STORED and file.fileno() >= 0]
    if not left:
        return None
    memfds = [file for file in left if stat.S_ISREG(os.fstat(file.fileno()).st_mode)]
    ends = [file for file in left if stat.S_ISSOCK(os.fstat(file.fileno()).st_mode)]
    try:
        if (len(memfds), len(ends), len(left)) != (1, 2, _COUNT):
            raise UnknownLayoutError(f"the service manager's store gave back {len(left)} of {_COUNT} descriptors")
        memory = Memory(memfds[0].fileno(), options)
    except UnknownLayoutError as error:
        log.error("durable: %s; the connections of the earlier start are closed", error)
        discard()
        return None
    memfds[0].detach()
    queue = HoldingQueue((socket.socket(fileno=ends[0].detach()), socket.socket(fileno=ends[1].detach())))
    return Kept(memory, queue, _resumed(memory, queue))


def _resumed(memory: Memory, queue: HoldingQueue) -> list[Slot]:
    """Bring together the slots and the connections, which know each other by their SO_COOKIE."""
    slots = {slot.cookie: slot for slot in memory.taken()}
    try:
        contents = queue.contents()
    except OSError as error:
        raise ActivationError(
            f"the {len(slots)} durable connections of the earlier start cannot be opened: {error.strerror}; the unit "
            f"needs LimitNOFILE={2 * len(slots) + 2 * _OTHER_DESCRIPTORS} or more"
        ) from error
    messages: list[list[Slot | None]] = []
    for fds in contents:
        messages.append([])
        for fd in fds:
            slot = slots.get(_cookie_of(fd))
            if slot is None or slot.fd >= 0:
                os.close(fd)  # it has ended, or lies in two messages
                messages[-1].append(None)
            else:
                slot.fd = fd
                messages[-1].append(slot)
    queue.resume(messages)
    living = []
    for slot in slots.values():
        if slot.fd < 0:
            slot.free()  # its process was killed before it was held
        else:
            slot.resume()
            living.append(slot)
    return living


def _cookie_of(fd: int) -> bytes:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
    finally:
        sock.detach()


async def _missing() -> str | None:
    """Why no manager keeps descriptors for this process; None if one does.

    systemd tells since version 254 only. So pipes are stored: where their other ends are closed, nobody has kept them.
    """
    if not environ().get("NOTIFY_SOCKET"):
        return "no service manager has started it (NOTIFY_SOCKET is not set)"
    reading: list[int] = []
    writing: list[int] = []
    try:
        for _ in range(_COUNT):
            for end, ends in zip(os.pipe(), (reading, writing), strict=True):
                ends.append(end)
        store(_PROBE, *writing, poll=False)
        while writing:
            os.close(writing.pop())
        if not await notify_barrier(_PATIENCE):
            return f"the service manager did not answer in {_PATIENCE:g} s"
        poll = select.poll()
        for end in reading:
            poll.register(end, 0)
        if dropped := len(poll.poll(0)):
            return f"the service manager kept {_COUNT - dropped} of {_COUNT} descriptors"
        return None
    except (OSError, ValueError) as error:
        return str(error)
    finally:
        for end in reading + writing:
            os.close(end)
        try:
            unstore(_PROBE)
        except OSError:
            pass
