"""Whatever else a socket unit can pass: FIFOs, special files, netlink sockets, message queues; one call for each.

Which is which, this daemon tells by the names: FileDescriptorName= of the socket units. It prints what comes. Try it
with a service that has this as ExecStart= and Sockets=fifo.socket events.socket, where fifo.socket says ListenFIFO=
and FileDescriptorName=fifo, events.socket ListenNetlink=kobject-uevent 1 and FileDescriptorName=netlink.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket

import trio

import activation


async def fifo(file: activation.File) -> None:
    """Read a FIFO, which has no end: the manager opened it for writing, too."""
    async with trio.lowlevel.FdStream(file.detach()) as stream:
        async for data in stream:
            show("fifo", data)


async def device(file: activation.File) -> None:
    """Read a character device that can be waited for, as terminals and /dev/kmsg can."""
    async with trio.lowlevel.FdStream(file.detach()) as stream:
        async for data in stream:
            show("device", data)


async def regular_file(file: activation.File) -> None:
    """Read a file as in /proc, which is always ready: in a thread."""
    async with await trio.open_file(file.detach(), "rb") as opened:
        show("regular-file", await opened.read())


async def netlink(file: activation.File) -> None:
    """Receive from a netlink socket."""
    with trio.socket.from_stdlib_socket(socket.socket(fileno=file.detach())) as sock:
        while True:
            show("netlink", await sock.recv(65536))


async def message_queue(file: activation.File) -> None:
    """Receive from a POSIX message queue, which Python's library cannot and Linux can wait for."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = file.detach()
    attributes = (ctypes.c_long * 8)()  # struct mq_attr of mq_getattr(3); the third is the longest message's size
    libc.mq_getattr(queue, attributes)
    buffer = ctypes.create_string_buffer(attributes[2])
    os.set_blocking(queue, False)  # another process may be faster
    while True:
        await trio.lowlevel.wait_readable(queue)
        length = libc.mq_receive(queue, buffer, ctypes.c_size_t(len(buffer)), None)
        if length >= 0:
            show("message-queue", buffer.raw[:length])
        elif ctypes.get_errno() != errno.EAGAIN:
            raise OSError(ctypes.get_errno(), "mq_receive")


def show(name: str, data: bytes | bytearray) -> None:
    """Print what came."""
    print(name, bytes(data), flush=True)


READERS = {
    "fifo": fifo,
    "device": device,
    "regular-file": regular_file,
    "netlink": netlink,
    "message-queue": message_queue,
}


async def main() -> None:
    """Live until a signal."""
    async with trio.open_nursery() as nursery:
        for file in activation.files():
            nursery.start_soon(READERS[file.name], file)
        await activation.serve(None)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
