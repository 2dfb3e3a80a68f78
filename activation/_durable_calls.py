"""recvmmsg(2) and sendmmsg(2) with a message header that lies in mapped memory. Linux only.

The kernel itself writes into the header how many bytes it moved, before the call returns. Where the memory outlives the
process, so does the count: a kill between the system call and the next instruction loses nothing.
"""

from __future__ import annotations

import socket
import struct

# ctypes without its Python half, which a client that waits for this start would wait for, too.
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    dlopen,
    dlsym,
)
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import mmap

# struct msghdr of recvmsg(2), with the padding that its size has, and what struct mmsghdr adds.
_MESSAGE: Final = struct.Struct("@PIPNPNi0P")
_COUNTED: Final = struct.Struct("@PIPNPNi0PI0P")
HEADER_SIZE: Final = _COUNTED.size
"""Bytes of a struct mmsghdr."""
MOVED: Final = _MESSAGE.size
"""Where in it the kernel writes how many bytes it moved: an unsigned int."""
VECTOR: Final = "PN"
"""What a struct iovec is to the struct module: an address and a length."""


class _Int(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "i"


class _Byte(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "b"


class _Function(CFuncPtr):
    # The calls never wait, so the interpreter's lock is not given away for them: that would take longer than they do.
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI | FUNCFLAG_USE_ERRNO
    _restype_ = _Int


_LIBC: Final = dlopen(None, 0)  # type: ignore[arg-type]  # this process, and in it the C library
# Without argtypes, numbers go as int and None as a null pointer, and both sooner.
recvmmsg: Final = _Function(dlsym(_LIBC, "recvmmsg"))
"""``recvmmsg(fd, header, 1, RECEIVE, None)`` receives into the header's buffer; 1, or -1 and get_errno() tells why."""
sendmmsg: Final = _Function(dlsym(_LIBC, "sendmmsg"))
"""``sendmmsg(fd, header, 1, SEND)`` sends the header's buffer; 1, or -1 and get_errno() tells why."""

RECEIVE: Final = int(socket.MSG_DONTWAIT)
SEND: Final = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
"""Flags of the calls, which never wait."""


class Mapped:
    """A mapping, for the calls.

    Attributes:
        address: where it begins. It must stay open as long as that is used.
        first: its first byte. ``byref(first, offset)`` is a header in it, as the calls take it.
    """

    __slots__ = ("address", "first")

    def __init__(self, memory: mmap.mmap) -> None:
        self.address = addressof(_Byte.from_buffer(memory))
        self.first = _Byte.from_address(self.address)  # which does not keep the mapping from being closed


def write_header(memory: mmap.mmap, place: int, vector: int) -> None:
    """Write a header for one buffer, but for the count.

    Args:
        place: the header's offset in the mapping.
        vector: the address of its struct iovec.
    """
    _MESSAGE.pack_into(memory, place, 0, 0, vector, 1, 0, 0, 0)
