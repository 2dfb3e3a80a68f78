"""What a forked child is to become: sent to it over its channel, with the descriptors. Standard library only."""

from __future__ import annotations

import array
import errno
import marshal
import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from .start import CHOICE, Start

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_DESCRIPTORS = 253
"""In one message: the kernel's SCM_MAX_FD."""

_LONGEST_COUNT = 32


class Order(NamedTuple):
    """An order that was received.

    Attributes:
        memory: the descriptor of a file in memory, which both sides have and which begins with the CHOICE.
        starts: what may be started.
        at_once: there is one start, which waits for no client.
    """

    memory: int
    starts: list[Start]
    at_once: bool


def send(channel: socket.socket, starts: Sequence[Start], *, at_once: bool) -> int:
    """Send an order; return the descriptor of its memory, which the caller closes.

    Raises:
        OSError: there are too many descriptors, or nobody receives.
    """
    descriptors = sorted(set[int]().union(*(start.descriptors() for start in starts)))
    numbers = {descriptor: index for index, descriptor in enumerate(descriptors)}
    memory = os.memfd_create("order")
    try:
        plain = [tuple(start.renumbered(numbers)) for start in starts]
        os.write(memory, CHOICE.pack(0) + marshal.dumps([at_once, _plain(plain)]))
        sent = [memory, *descriptors]
        for begin in range(0, len(sent), _MOST_DESCRIPTORS):
            socket.send_fds(channel, [str(len(sent)).encode()], sent[begin : begin + _MOST_DESCRIPTORS])
    except BaseException:
        os.close(memory)
        raise
    return memory


def _plain(value: Any) -> Any:
    """The same in types that marshal knows."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


def receive(channel: socket.socket) -> Order | None:
    """Wait for an order; return None if none comes any more.

    Raises:
        OSError: this process may not have so many descriptors.
    """
    received: list[int] = []
    while True:
        count, ancillary, flags, _ = channel.recvmsg(
            _LONGEST_COUNT, socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
        )
        if not count:
            return None
        for _, _, data in ancillary:
            received += array.array("i", data)
        if flags & socket.MSG_CTRUNC:
            for number in received:
                os.close(number)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if len(received) == int(count):
            return read(*received)


def read(memory: int, *descriptors: int) -> Order:
    """Read an order from its memory, with the numbers that the descriptors have here."""
    at_once, starts = marshal.loads(os.pread(memory, os.fstat(memory).st_size, CHOICE.size))  # noqa: S302
    numbers = dict(enumerate(descriptors))
    return Order(memory, [Start.of(start).renumbered(numbers) for start in starts], at_once)
