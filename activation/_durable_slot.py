"""A slot: one connection's input that was received and not dealt with, output that is due, state, and counters.

Two records in it take turns, and one byte says which of them counts. Whatever changes is written to the other record
first, and takes effect when that byte turns: a process that is killed at any instruction leaves the one or the other.
The kernel adds to the record that counts how many bytes it received and sent. What the record points to is never
written while it counts: the output only once all of it is sent, a state always to the other place, input behind its end
or in front of its beginning.

What is short lies in the slot's first page, so that most connections touch no other.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from _ctypes import byref, get_errno
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from ._durable_calls import HEADER_SIZE, MOVED, RECEIVE, SEND, VECTOR, recvmmsg, sendmmsg, write_header

if TYPE_CHECKING:
    from ._durable_calls import Mapped
    from ._durable_options import Durable

CLOSING: Final = 1
"""The handler has ended: what is due is sent, and then the connection ends."""
END_OF_OUTPUT: Final = 2
"""send_eof(): what is due is sent, and then that half ends."""

_ACTIVE: Final = 0  # the byte that turns
_COOKIE_AT: Final = 8
_COOKIE_SIZE: Final = 8

# A record: the header to receive with, the header to send with, and what begins with the count at the latter's end.
_FIELDS: Final = struct.Struct(f"@I0PQIIIIIIII{VECTOR}{VECTOR}")
_FIELDS_AT: Final = HEADER_SIZE + MOVED
_write_fields: Final = _FIELDS.pack_into
_VECTORS: Final = struct.Struct(f"@{VECTOR}{VECTOR}")
_VECTORS_AT: Final = _FIELDS_AT + _FIELDS.size - _VECTORS.size
_SENDING_VECTOR_AT: Final = _FIELDS_AT + _FIELDS.size - _VECTORS.size // 2
_RECORDS: Final = (64, 320)
_RECEIVED: Final = MOVED
_SENT: Final = HEADER_SIZE + MOVED
"""Where in a record the kernel writes how many bytes it received, and sent."""

_SHORT_STATE: Final = 256
_SHORT_STATES: Final = (576, 832)
_SHORT_OUTPUT: Final = 1024
_SHORT_OUTPUT_AT: Final = 1088
_NAME_AT: Final = 2112  # a byte with its length, and the name
_LONGEST_NAME: Final = 255
_INPUT_AT: Final = 2368
_PAGE: Final = 4096

_WOULD_BLOCK: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK})


class Memory(Protocol):
    """What a slot has to know of the memory that it is in."""

    map: mmap.mmap
    words: memoryview[int]
    mapped: Mapped
    number: int
    owned: bool


@attrs.frozen
class Places:
    """Where things are in a slot, from the sizes of its rooms."""

    input: int
    output: int
    state: int
    states_at: tuple[int, int]
    output_at: int
    stride: int

    @classmethod
    def of(cls, options: Durable) -> Places:
        return cls.of_sizes(options.input, options.output, options.state)

    @classmethod
    def of_sizes(cls, input: int, output: int, state: int) -> Places:  # noqa: A002
        # Twice the input: what is left of the first half always fits in front of where it lies.
        states_at = _whole_pages(_INPUT_AT + 2 * input)
        output_at = _whole_pages(states_at + 2 * state)
        return cls(input, output, state, (states_at, states_at + state), output_at, _whole_pages(output_at + output))


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


class Slot:
    """A connection's slot, as this process knows it.

    Attributes:
        taken: where the byte is that says that it is taken.
        places: how large its rooms are.
        fd: the connection.
        cookie: the SO_COOKIE of the connection, which tells a socket from every other one until the machine restarts.
        name: of whoever handles it.
        alive: whether the connection has not ended.
        due: whether output that was committed has not all been sent.
        commits: how many commits there were.
        flags: CLOSING, END_OF_OUTPUT.
    """

    # Few, and plain numbers: with a thousand connections, each is a look into slow memory for each message.
    __slots__ = (
        "_active",
        "_address",
        "_base",
        "_first",
        "_input_base",
        "_input_start",
        "_map",
        "_memory",
        "_output_at",
        "_output_base",
        "_output_length",
        "_received",
        "_record",
        "_sent",
        "_state_at",
        "_state_length",
        "_touched_more",
        "_words",
        "alive",
        "commits",
        "cookie",
        "due",
        "fd",
        "flags",
        "name",
        "places",
        "taken",
    )

    def __init__(self, memory: Memory, taken: int, base: int, places: Places) -> None:
        self._memory, self.taken, self._base, self.places = memory, taken, base, places
        self._map, self._words = memory.map, memory.words
        self._first, self._address = memory.mapped.first, memory.mapped.address
        self.fd, self.name, self.alive, self.due, self._touched_more = -1, "", True, False, False
        self.cookie = memory.map[base + _COOKIE_AT : base + _COOKIE_AT + _COOKIE_SIZE]
        self._activate(0)
        self._input_start = self._input_base = self._output_at = self._output_base = self._output_length = 0
        self._state_at = self._state_length = self.commits = self.flags = 0
        # What the kernel has counted in the record that counts.
        self._received = self._sent = 0

    def _activate(self, active: int) -> None:
        """Take note of which record counts."""
        self._active, self._record = active, self._base + _RECORDS[active]

    # Its beginning, in the first life and in a later one, and its end

    def prepare(self, name: str) -> None:
        """Make it ready for a new connection.

        Args:
            name: of whoever will handle it; at most 255 bytes count.
        """
        memory, self.name = self._memory, name
        encoded = name.encode()[:_LONGEST_NAME]
        start = self._base + _NAME_AT
        memory.map[start] = len(encoded)
        memory.map[start + 1 : start + 1 + len(encoded)] = encoded
        memory.map[self._base + _ACTIVE] = 0
        self._write_headers()
        self._turn()

    def begin(self, fd: int, cookie: bytes) -> None:
        """Take it, prepared as it is, for a connection with this SO_COOKIE.

        Until the queue holds the connection, a kill costs it: this is as short as can be.
        """
        self.fd, self.cookie = fd, cookie
        # The one after the other: a cookie without a byte means nothing.
        self._map[self._base + _COOKIE_AT : self._base + _COOKIE_AT + _COOKIE_SIZE] = cookie
        self._map[self.taken] = 1

    @property
    def number(self) -> int:
        """The number of the memory that it is in."""
        return self._memory.number

    def resume(self) -> None:
        """Read what an earlier process has left."""
        memory = self._memory
        start = self._base + _NAME_AT
        self.name = memory.map[start + 1 : start + 1 + memory.map[start]].decode(errors="replace")
        self._activate(memory.map[self._base + _ACTIVE])
        fields = _FIELDS.unpack_from(memory.map, self._record + _FIELDS_AT)
        _, self.commits, self._input_start, self._input_base = fields[:4]
        self._output_at, self._output_base, self._output_length, self._state_at, self._state_length = fields[4:9]
        self.flags, self._touched_more = fields[9], True
        # The addresses are those of the process that wrote them.
        self._write_headers()
        self._received = self._words[(self._record + _RECEIVED) >> 2]
        self._sent = self._words[(self._record + _SENT) >> 2]
        self._turn()
        self.due = self._output_base < self._output_length

    def _write_headers(self) -> None:
        memory = self._memory
        for record in _RECORDS:
            place = self._base + record
            write_header(memory.map, place, memory.mapped.address + place + _VECTORS_AT)
            write_header(memory.map, place + HEADER_SIZE, memory.mapped.address + place + _SENDING_VECTOR_AT)

    def abandon(self) -> None:
        """Undo :meth:`begin`: the connection could not be held."""
        self._map[self.taken] = 0

    def free(self) -> None:
        """Give the slot back: the connection has ended."""
        self.alive = False
        if not self._memory.owned:
            return
        self._memory.map[self.taken] = 0
        if self._touched_more:
            self._memory.map.madvise(mmap.MADV_REMOVE, self._base + _PAGE, self.places.stride - _PAGE)

    # What is in it

    def input(self) -> bytes:
        """What was received and not dealt with."""
        start = self._base + _INPUT_AT
        end = self._input_base + self._received
        return self._map[start + self._input_start : start + end]

    def state(self) -> bytes:
        """The state of the last commit."""
        start = self._base + self._state_at
        return self._map[start : start + self._state_length]

    # What happens to it

    def commit(self, consumed: int = 0, output: bytes = b"", state: bytes | None = None, flags: int = 0) -> None:
        """Let all of it take effect, at once. Nothing may be due.

        Args:
            consumed: how many bytes of the input were dealt with.
            output: is due from now on, if there is any.
            state: the new state; None if it is as before.
            flags: added to those that there are.

        Raises:
            RuntimeError: in a forked child.
        """
        if not self._memory.owned:
            raise RuntimeError("a durable connection is served by one process, and this is a child forked by that one")
        base = self._base
        if output:
            size, at = len(output), _SHORT_OUTPUT_AT
            if size > _SHORT_OUTPUT:
                at, self._touched_more = self.places.output_at, True
            start = base + at
            self._map[start : start + size] = output
            self._output_at, self._output_length, self.due = at, size, True
            self._output_base = self._sent = 0
        if state is not None:
            # Not where the state is that counts.
            size = len(state)
            other = self._state_at in (_SHORT_STATES[0], self.places.states_at[0])
            at = _SHORT_STATES[other]
            if size > _SHORT_STATE:
                at, self._touched_more = self.places.states_at[other], True
            start = base + at
            self._map[start : start + size] = state
            self._state_at, self._state_length = at, size
        start = self._input_start + consumed
        if start == self._input_base + self._received:
            start = self._input_base = self._received = 0
        self._input_start = start
        self.commits += 1
        self.flags |= flags
        self._turn()

    def receive(self) -> bytes | None:
        """Receive what is there, behind the input; b"" at the end, None if nothing is there yet.

        Raises:
            OSError: the connection is broken.
        """
        if self._received or self._input_base > self.places.input:
            self._make_room()
            self._turn()
        record = self._record
        if recvmmsg(self.fd, byref(self._first, record), 1, RECEIVE, None) < 0:
            error = get_errno()
            if error in _WOULD_BLOCK:
                return None
            # recvmmsg(2) tells of a reset before it gives what came before that.
            again = recvmmsg(self.fd, byref(self._first, record), 1, RECEIVE, None)
            if again < 0 or not self._words[(record + _RECEIVED) >> 2]:
                raise OSError(error, os.strerror(error))
        self._received = size = self._words[(record + _RECEIVED) >> 2]
        start = self._input_base + _INPUT_AT
        if start + size > _PAGE:
            self._touched_more = True
        start += self._base
        return self._map[start : start + size]

    def send(self) -> bool:
        """Send what is due, as far as that goes without waiting; return whether all of it is sent.

        Raises:
            OSError: the connection is broken.
        """
        if self._sent:
            self._turn()
        record = self._record
        if sendmmsg(self.fd, byref(self._first, record + HEADER_SIZE), 1, SEND) < 0:
            error = get_errno()
            if error in _WOULD_BLOCK:
                return False
            raise OSError(error, os.strerror(error))
        self._sent = sent = self._words[(record + _SENT) >> 2]
        self.due = due = self._output_base + sent < self._output_length
        return not due

    def drop_output(self) -> None:
        """Let nothing be due: there is nobody to send it to."""
        self._output_base, self._sent = self._output_length, 0
        self._turn()
        self.due = False

    def _make_room(self) -> None:
        """Have room for the rest of the input that anybody may wait for."""
        room, base, start = self.places.input, self._input_base + self._received, self._input_start
        length = base - start
        if 2 * room - base < room - length:
            # Then it lies behind the first half, and is shorter than what was dealt with in front of it.
            memory, to = self._map, self._base + _INPUT_AT
            memory[to : to + length] = memory[to + start : to + base]
            self._input_start, self._input_base, self._received = 0, length, 0

    def _turn(self) -> None:
        """Write the other record, with what the kernel has counted in this one, and let it count."""
        memory, base, room, length = self._map, self._base, self.places.input, self._output_length
        other = 1 - self._active
        record, address = base + _RECORDS[other], self._address + base
        self._input_base = received = self._input_base + self._received
        self._output_base = sent = self._output_base + self._sent
        at = self._output_at
        _write_fields(
            memory,
            record + _FIELDS_AT,
            0,
            self.commits,
            self._input_start,
            received,
            at,
            sent,
            length,
            self._state_at,
            self._state_length,
            self.flags,
            address + _INPUT_AT + received,
            room if received <= room else 2 * room - received,
            address + at + sent,
            length - sent,
        )
        self._words[(record + _RECEIVED) >> 2] = 0
        memory[base + _ACTIVE] = other
        self._active, self._record = other, record
        self._received = self._sent = 0
