"""From File to listeners of message channels: sockets that keep connections and the boundaries of messages, unix(7)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from ._files import File, files
from ._sockets import is_seqpacket_channel, is_seqpacket_listener, take

LARGEST_MESSAGE = 1 << 18
"""Bytes: above what Linux lets an unprivileged process send by default (net.core.wmem_default)."""


_local = threading.local()
"""For each thread, the buffer that its messages are received in."""


class SeqpacketChannel(trio.abc.Channel[bytes]):
    """A connection that carries messages: one ``send`` is one ``receive`` at the other end.

    Attributes:
        socket: the connected trio socket.
        max_message_size: how many bytes a received message may have.
    """

    def __init__(self, socket: trio.socket.SocketType, max_message_size: int = LARGEST_MESSAGE) -> None:
        self.socket = socket
        self.max_message_size = max_message_size

    async def send(self, value: bytes) -> None:
        """Send one message.

        Raises:
            ValueError: the message is empty, which the other end would take for the end of the connection.
            OSError: EMSGSIZE, the message is longer than the socket's send buffer.
            trio.BrokenResourceError: the other end is gone.
            trio.ClosedResourceError: this end was closed.
        """
        if not value:
            raise ValueError("an empty message cannot be sent: the other end would take it for the end")
        with _channel_errors(self.socket):
            await self.socket.send(value)

    async def receive(self) -> bytes:
        """Receive one message.

        Raises:
            OSError: EMSGSIZE, the message is longer than ``max_message_size``. It is lost; the connection goes on.
            trio.EndOfChannel: the other end was closed, and everything that it sent has been received.
            trio.BrokenResourceError: the connection was reset.
            trio.ClosedResourceError: this end was closed.
        """
        with _channel_errors(self.socket):
            await trio.lowlevel.checkpoint()
            message = self._read()
            while message is None:
                await trio.lowlevel.wait_readable(self.socket)
                message = self._read()
        if not message:
            raise trio.EndOfChannel
        return message

    def _read(self) -> bytes | None:
        """Return a message that has come, or None."""
        limit = self.max_message_size
        try:
            # One byte more tells a message that is too long.
            size = os.readv(self.socket.fileno(), [(buffer := _buffer(limit + 1))])
        except BlockingIOError:
            return None
        if size > limit:
            raise OSError(errno.EMSGSIZE, f"{os.strerror(errno.EMSGSIZE)}: more than {limit} bytes")
        return bytes(buffer[:size])

    async def aclose(self) -> None:
        """Close this end."""
        self.socket.close()
        await trio.lowlevel.checkpoint()


class SeqpacketListener(trio.abc.Listener[SeqpacketChannel]):
    """A listener on a SOCK_SEQPACKET socket. ListenSequentialPacket= of systemd.socket(5).

    Attributes:
        socket: the listening trio socket.
    """

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self.socket = socket

    async def accept(self) -> SeqpacketChannel:
        """Accept one connection.

        Raises:
            OSError: the process or the system is out of descriptors or memory.
            trio.ClosedResourceError: the listener was closed.
        """
        while True:
            try:
                with _channel_errors(self.socket):
                    connected, _ = await self.socket.accept()
            except ConnectionAbortedError:
                continue  # its client was gone before
            return SeqpacketChannel(connected)

    async def aclose(self) -> None:
        """Close this process's descriptor; the socket and its path belong to the service manager."""
        self.socket.close()
        await trio.lowlevel.checkpoint()


def seqpacket_listeners(passed: Sequence[File] | None = None) -> list[SeqpacketListener | None]:
    """Return a listener of message channels for each passed SOCK_SEQPACKET socket that listens.

    ``ListenSequentialPacket=`` of systemd.socket(5); Unix and vsock. Their Files are given away. A descriptor of
    another kind, or one that was given away before, is None at its position and stays in ``passed``, untouched.

    Args:
        passed: what :func:`files` returned; left out, ``files()`` is called here.

    Raises:
        ActivationError: as :func:`files`.
        OSError: a descriptor in ``passed`` is not open; nothing was given away.
    """
    passed = files() if passed is None else passed
    socks = take(passed, is_seqpacket_listener)
    return [SeqpacketListener(trio.socket.from_stdlib_socket(sock)) if sock else None for sock in socks]


def seqpacket_channels(passed: Sequence[File]) -> list[SeqpacketChannel | None]:
    """Return a channel for each passed SOCK_SEQPACKET socket that is connected. Otherwise as seqpacket_listeners()."""
    socks = take(passed, is_seqpacket_channel)
    return [SeqpacketChannel(trio.socket.from_stdlib_socket(sock)) if sock else None for sock in socks]


def _buffer(size: int) -> memoryview:
    """Room for a message that is copied out of it at once."""
    # New room for each would be 256 KiB of fresh memory, of which even the shortest message keeps a page.
    if size > LARGEST_MESSAGE + 1:
        return memoryview(bytearray(size))
    buffer: memoryview | None = getattr(_local, "buffer", None)
    if buffer is None:
        buffer = _local.buffer = memoryview(bytearray(LARGEST_MESSAGE + 1))
    return buffer[:size]


@contextmanager
def _channel_errors(sock: trio.socket.SocketType) -> Iterator[None]:
    try:
        yield
    except (BrokenPipeError, ConnectionResetError) as error:
        raise trio.BrokenResourceError(f"socket connection broken: {error}") from error
    except OSError as error:
        if sock.fileno() >= 0:
            raise
        raise trio.ClosedResourceError("socket was closed") from error
