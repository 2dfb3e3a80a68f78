"""From what the service manager's store gave back to connections that go on.

The store has three descriptors under one name: the two ends of the queue and the memory. They are stored in one
message before the first connection is accepted, so that there are all of them or none.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import stat
from typing import TYPE_CHECKING, Final

import attrs

from ._durable_memory import Memory, UnknownLayoutError
from ._durable_options import STORED, WATCH, Durable
from ._durable_queue import HoldingQueue
from ._durable_store import COUNT, hung_up, missing_store, watch
from ._environment import ActivationError
from ._files import File, files, passed_before
from ._sockets import borrowed
from ._store import store, unstore

if TYPE_CHECKING:
    from ._durable_slot import Slot

log = logging.getLogger("activation")

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
        watch: the other end of the pipe that the manager holds; None where it has no room for one.
    """

    memory: Memory
    queue: HoldingQueue | None
    resumed: list[Slot]
    watch: int | None = None

    @property
    def outlive(self) -> bool:
        """Whether the connections outlive this process, as far as can be told."""
        return self.queue is not None and (self.watch is None or not hung_up([self.watch]))

    @property
    def capacity(self) -> int:
        """How many connections there can be at once."""
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_DESCRIPTORS
        return max(1, min(room, self.memory.capacity, self.queue.capacity if self.queue else room))

    def close(self) -> None:
        """Leave what the manager has to the next process, and to the next serve() of this one."""
        if self.queue and self.outlive and self.memory.owned:
            fds = [self.memory.detach(), *self.queue.detach()]
            passed_before().extend(File(fd, STORED) for fd in fds)
        else:
            self.memory.close()
            if self.queue:
                self.queue.close()
        if self.watch is not None:
            os.close(self.watch)


async def open_kept(options: Durable) -> Kept | None:
    """Go on with what the manager's store gave back; where there is none, begin with nothing.

    None where no manager keeps anything and that is all right.

    Raises:
        ActivationError: this system has not what it takes, or its limits do not let the connections in.
        OSError: the kernel has no descriptors for it.
    """
    if not hasattr(os, "memfd_create") or not hasattr(socket, "recv_fds"):
        raise ActivationError("durable connections need memfd_create(2), which only Linux has")
    _raise_open_file_limit()
    if kept := _resume(options):
        return kept
    missing, watched = await missing_store()
    if missing and options.optional:
        return None
    if missing:
        log.warning(_HOW_TO, missing, COUNT + 1)
        return Kept(_memory(options), None, [])
    memory, queue = _memory(options), None
    try:
        queue = HoldingQueue()
        memory.watched = watched
        store(STORED, memory.fd, *queue.ends, poll=False)
        return Kept(memory, queue, [], watch() if watched else None)
    except BaseException:
        memory.close()
        if queue:
            queue.close()
        raise


def discard() -> None:
    """Close what an earlier start has left, with all its connections."""
    left = [file for file in passed_before() if file.name in (STORED, WATCH)]
    unstore(STORED)
    unstore(WATCH)
    for file in left:
        file.close()


def _memory(options: Durable, fd: int | None = None) -> Memory:
    """The memory in this memfd, or a new one.

    Raises:
        UnknownLayoutError, ActivationError: it is not one that this version can read; there is no room for it.
    """
    try:
        return Memory.create(options) if fd is None else Memory(fd, options)
    except OSError as error:
        raise ActivationError(
            f"there is no room for the memory of {options.connections} durable connections: {error.strerror}; "
            "LimitAS=, LimitFSIZE= and LimitNOFILE= of the unit must allow it; "
            "serve(durable=activation.Durable(connections=..., input=..., output=..., state=...)) makes it smaller"
        ) from error


def _raise_open_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            log.debug("durable: RLIMIT_NOFILE stays at %d; LimitNOFILE= of the unit can raise it", soft)


def _resume(options: Durable) -> Kept | None:
    # A daemon with listeners of its own has not asked yet.
    passed = passed_before() or files()
    left = [file for file in passed if file.name == STORED and file.fileno() >= 0]
    if not left:
        return None
    memfds = [file for file in left if stat.S_ISREG(os.fstat(file.fileno()).st_mode)]
    ends = [file for file in left if _is_end(file)]
    try:
        if (len(memfds), len(ends), len(left)) != (1, 2, COUNT):
            raise UnknownLayoutError(
                f"the service manager gave back {len(left)} descriptors, of which {len(memfds)} are memfds and "
                f"{len(ends)} sockets of sequential packets; expected {COUNT}, 1 and 2"
            )
        memory = _memory(options, memfds[0].fileno())
    except UnknownLayoutError as error:
        log.error("durable: %s; the connections of the earlier start are closed", error)
        discard()
        return None
    memfds[0].detach()
    queue = HoldingQueue((socket.socket(fileno=ends[0].detach()), socket.socket(fileno=ends[1].detach())))
    watching = None
    try:
        watching = watch() if memory.watched else None
        return Kept(memory, queue, _resumed(memory, queue), watching)
    except BaseException:
        Kept(memory, queue, [], watching).close()
        raise


def _is_end(file: File) -> bool:
    """Whether it may be an end of the queue."""
    if not stat.S_ISSOCK(os.fstat(file.fileno()).st_mode):
        return False
    with borrowed(file.fileno()) as sock:
        return sock is not None and (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _resumed(memory: Memory, queue: HoldingQueue) -> list[Slot]:
    """Bring together the slots and the connections, which know each other by their SO_COOKIE."""
    slots = {slot.cookie: slot for slot in memory.taken()}
    messages: list[list[Slot | None]] = []
    try:
        messages.extend([_held(fd, slots) for fd in fds] for fds in queue.contents())
    except OSError as error:
        for slot in slots.values():
            if slot.fd >= 0:
                os.close(slot.fd)
        raise ActivationError(
            f"the {len(slots)} durable connections of the earlier start cannot be opened: {error.strerror}; the unit "
            f"needs LimitNOFILE={2 * len(slots) + 2 * _OTHER_DESCRIPTORS} or more"
        ) from error
    queue.resume(messages)
    living = []
    for slot in slots.values():
        if slot.fd < 0:
            slot.free()  # its process was killed before it was held
        else:
            slot.resume()
            living.append(slot)
    memory.give_back()
    return living


def _held(fd: int, slots: dict[bytes, Slot]) -> Slot | None:
    """The slot of the connection, which has this descriptor from now on; None if the descriptor is of no use."""
    slot = slots.get(_cookie_of(fd))
    if slot is None or slot.fd >= 0:
        os.close(fd)  # it has ended, or lies in two messages
        return None
    slot.fd = fd
    return slot


def _cookie_of(fd: int) -> bytes:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
    finally:
        sock.detach()
