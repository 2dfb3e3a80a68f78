"""The memfd in which durable connections have their slots: what it looks like, and which slots are taken.

It begins with a page that says what the rest is: a magic number, the number of this layout, a number of its own, and
segments. A segment has slots of one size, and a table with a byte for each of them: 0 is free. A start whose slots are
to be of another size appends a segment; the slots of the old ones are used until their connections end. Nothing is ever
moved, and pages that were never written take no memory.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
import struct
import weakref
from typing import TYPE_CHECKING, Final

import attrs

from ._durable_calls import Mapped
from ._durable_slot import Places, Slot
from ._environment import ActivationError
from ._store import memory_file

if TYPE_CHECKING:
    from ._durable_options import Durable

_MAGIC: Final = b"ACTDURBL"
LAYOUT: Final = 1
"""To be raised with every change of this module's or the slots' structures."""

_HEAD: Final = struct.Struct("=8sIB3xQ")  # magic, layout, count of segments, number of its own
_SEGMENT_COUNT: Final = 12
_WATCHED: Final = 13
_SEGMENT: Final = struct.Struct("=QQIIII")  # table, slots, count, input, output, state
_FIRST_SEGMENT: Final = 64
_PAGE: Final = 4096
_MOST_SEGMENTS: Final = (_PAGE - _FIRST_SEGMENT) // _SEGMENT.size


class UnknownLayoutError(ActivationError):
    """The memfd is not one that this version can read."""


@attrs.frozen
class _Segment:
    """Slots of one size, and the table that says which are taken."""

    table: int
    slots: int
    count: int
    places: Places

    @property
    def end(self) -> int:
        return self.slots + self.count * self.places.stride


class Memory:
    """The slots of all durable connections.

    Attributes:
        fd: the memfd.
        number: tells it from every other one.
        owned: whether this process may write: a forked child must not.
    """

    map: mmap.mmap

    def __init__(self, fd: int, options: Durable) -> None:
        """Map the memfd, with room for what the options say. Without segments, it is made for them.

        Raises:
            UnknownLayoutError: it is not one that this version can read; nothing was changed.
            OSError: there is no memory for it.
        """
        self.fd, self.owned = fd, True
        count, self.number = _read_head(fd)
        self._segments: list[_Segment] = []
        for index in range(count):
            self._segments.append(_read_segment(fd, index, self._end()))
        self._usable = self._with_room(options)
        self.map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.map.madvise(mmap.MADV_DONTDUMP)
        try:
            self.map.madvise(mmap.MADV_NOHUGEPAGE)
        except OSError:
            pass  # a kernel without them
        self.mapped = Mapped(self.map)
        self.words = memoryview(self.map).cast("I")
        _open.add(self)

    @classmethod
    def create(cls, options: Durable) -> Memory:
        """Make a new one."""
        fd = memory_file("activation-durable")
        try:
            os.ftruncate(fd, _PAGE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            os.pwrite(fd, _HEAD.pack(_MAGIC, LAYOUT, 0, secrets.randbits(64)), 0)
            return cls(fd, options)
        except BaseException:
            os.close(fd)
            raise

    def _with_room(self, options: Durable) -> list[_Segment]:
        """The segments whose slots are as wanted; the one that is missing for so many connections is appended."""
        places = Places.of(options)
        usable = [segment for segment in self._segments if segment.places == places]
        missing = options.connections - sum(segment.count for segment in usable)
        if missing > 0:
            segment = self._append(missing, places)
            self._segments.append(segment)
            usable.append(segment)
        return usable

    def _append(self, count: int, places: Places) -> _Segment:
        index = len(self._segments)
        if index == _MOST_SEGMENTS:
            raise ActivationError(
                f"the sizes of durable connections were changed {index} times while the service manager kept them; "
                "stop the service once (systemctl stop) to begin anew"
            )
        table = self._end()
        segment = _Segment(table, table + -(-count // _PAGE) * _PAGE, count, places)
        os.ftruncate(self.fd, max(segment.end, os.fstat(self.fd).st_size))
        fields = (segment.table, segment.slots, count, places.input, places.output, places.state)
        os.pwrite(self.fd, _SEGMENT.pack(*fields), _FIRST_SEGMENT + index * _SEGMENT.size)
        os.pwrite(self.fd, bytes([index + 1]), _SEGMENT_COUNT)
        return segment

    def _end(self) -> int:
        """Where the next segment begins."""
        return self._segments[-1].end if self._segments else _PAGE

    @property
    def watched(self) -> bool:
        """Whether the manager's store has room for what tells when it gives the connections up."""
        return self.map[_WATCHED] == 1

    @watched.setter
    def watched(self, value: bool) -> None:
        self.map[_WATCHED] = int(value)

    @property
    def capacity(self) -> int:
        """How many connections can be there at once, besides those in slots of other sizes."""
        return sum(segment.count for segment in self._usable)

    def prepare(self, name: str = "") -> Slot:
        """Make a free slot ready for a connection whose handler has this name. It stays free until it is taken.

        Raises:
            OSError: ENOBUFS, there is none.
        """
        for segment in self._usable:
            taken = self.map.find(b"\0", segment.table, segment.table + segment.count)
            if taken >= 0:
                slot = self._slot(segment, taken)
                slot.prepare(name)
                return slot
        raise OSError(errno.ENOBUFS, f"all {self.capacity} slots are taken")

    def taken(self) -> list[Slot]:
        """The slots that connections have, as an earlier process left them."""
        slots = []
        for segment in self._segments:
            table = self.map[segment.table : segment.table + segment.count]
            slots += [self._slot(segment, segment.table + index) for index, byte in enumerate(table) if byte]
        return slots

    def _slot(self, segment: _Segment, taken: int) -> Slot:
        return Slot(self, taken, segment.slots + (taken - segment.table) * segment.places.stride, segment.places)

    def give_back(self) -> None:
        """Give the memory behind the last slot that is taken back to the system, as after a day of many clients."""
        for segment in self._segments:
            used = self.map.rfind(b"\1", segment.table, segment.table + segment.count) + 1 - segment.table
            begin = segment.slots + max(0, used) * segment.places.stride
            if begin < segment.end:
                self.map.madvise(mmap.MADV_REMOVE, begin, segment.end - begin)

    def close(self) -> None:
        """Unmap it; no slot can be used any more."""
        os.close(self.detach())

    def detach(self) -> int:
        """Unmap it, and give the memfd away."""
        _open.discard(self)
        self.words.release()
        self.map.close()
        return self.fd


_open: weakref.WeakSet[Memory] = weakref.WeakSet()


def _disown() -> None:
    for memory in _open:
        memory.owned = False


os.register_at_fork(after_in_child=_disown)


def _read_head(fd: int) -> tuple[int, int]:
    """The count of segments and the number of its own."""
    try:
        magic, layout, count, number = _HEAD.unpack(os.pread(fd, _HEAD.size, 0))
    except (OSError, struct.error):
        magic, layout, count, number = b"", 0, 0, 0
    if magic != _MAGIC:
        raise UnknownLayoutError("the stored memory of durable connections is not one that this library wrote")
    if layout != LAYOUT:
        raise UnknownLayoutError(
            f"the stored memory of durable connections has layout {layout}, and this version reads layout {LAYOUT} only"
        )
    return count, number


def _read_segment(fd: int, index: int, begin: int) -> _Segment:
    """The segment, which must lie behind ``begin`` and in the file."""
    data = os.pread(fd, _SEGMENT.size, _FIRST_SEGMENT + index * _SEGMENT.size)
    size = os.fstat(fd).st_size
    if index < _MOST_SEGMENTS and len(data) == _SEGMENT.size:
        table, slots, count, *rooms = _SEGMENT.unpack(data)
        segment = _Segment(table, slots, count, Places.of_sizes(*rooms))
        aligned = table % _PAGE == slots % _PAGE == 0
        if aligned and count and begin <= table and table + count <= slots and segment.end <= size:
            return segment
    raise UnknownLayoutError(
        f"the stored memory of durable connections, of {size} bytes, has no segment {index + 1} that this library wrote"
    )
