"""A service manager's end of sd_notify(3). Only waiting for a message imports trio."""

from __future__ import annotations

import array
import os
import socket
import struct

from ._notify import MOST_DESCRIPTORS
from ._occasional import OccasionalMessages
from ._types import Self

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LONGEST_MESSAGE: Final = 4096
"""Bytes: systemd takes no longer message, and a daemon should find that out before it runs there."""

MOST_DROPPED: Final = 513
"""Bad messages that one call drops, at most: what a socket's queue holds under systemd, which sets
net.unix.max_dgram_qlen to 512. Senders who add more than that meanwhile do not hold up the caller."""

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred, unix(7)


class Notification:
    """One message of a service, and who sent it.

    Attributes:
        assignments: each ``NAME=value``, in order, as sent.
        fds: the descriptors that came with it. The receiver keeps or closes them; :meth:`close` closes them.
        pid: the sender's process number, as the kernel tells it; 0 for a sender outside of this PID namespace.
        uid: the sender's user.
        gid: the sender's group.
    """

    __slots__ = ("assignments", "fds", "gid", "pid", "uid")

    def __init__(self, assignments: tuple[str, ...], fds: list[int], pid: int, uid: int, gid: int) -> None:
        self.assignments, self.fds, self.pid, self.uid, self.gid = assignments, fds, pid, uid, gid

    def __repr__(self) -> str:
        return f"<Notification {self.assignments} fds={self.fds} of pid {self.pid}>"

    def get(self, name: str) -> str | None:
        """Return the value of the first assignment to ``name``, None where there is none."""
        for assignment in self.assignments:
            if assignment.startswith(f"{name}="):
                return assignment[len(name) + 1 :]
        return None

    @property
    def is_barrier(self) -> bool:
        """Whether the sender waits, as with sd_notify_barrier(3), until :meth:`close` is called.

        Call it when every message before this one has been dealt with.
        """
        return self.assignments == ("BARRIER=1",)

    def close(self) -> None:
        """Close the descriptors that are still in ``fds``."""
        while self.fds:
            os.close(self.fds.pop())


class NotifyReceiver:
    """The socket that services find in NOTIFY_SOCKET.

    Anybody who can reach the address may send. The kernel tells who did, and the caller decides whom to believe. As in
    systemd, a message of more than 4,096 bytes, or with a null character inside, is dropped; a warning on the logger
    ``activation`` says so, once a minute at most.

    Attributes:
        address: the value for NOTIFY_SOCKET.
    """

    def __init__(self, path: str | None = None, *, fileno: int | None = None) -> None:
        """Bind ``path``, or without one an abstract address of the kernel's choice.

        Args:
            path: where to receive. Every user may send there; to admit fewer, bind a socket yourself and give its
                ``fileno``. :meth:`close` removes the path.
            fileno: instead of a path, the descriptor of a bound Unix datagram socket, which the receiver takes over.
                Its path stays.

        Raises:
            OSError: the path cannot be bound.
            ValueError: the descriptor is not of such a socket, and stays the caller's; or both are given.
        """
        if path is not None and fileno is not None:
            raise ValueError("there are a path and a descriptor to receive at; expected one of them")
        self._path = path
        self._warnings = OccasionalMessages()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if fileno is None else _bound(fileno)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            if fileno is None:
                # Bound to an empty address, the kernel chooses: unix(7), autobind.
                self._socket.bind("" if path is None else path)
            if path is not None:
                os.chmod(path, 0o666)  # noqa: S103  # who may be believed is told from the credentials
            name = self._socket.getsockname()
            self.address: str = name if isinstance(name, str) else "@" + os.fsdecode(name[1:])
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The socket's descriptor, readable when there is something to receive."""
        return self._socket.fileno()

    async def receive(self) -> Notification:
        """Wait for the next message. Each call is at least one turn of the event loop, however many messages come."""
        import trio

        # No checkpoint comes after the message was taken: cancelled there, it would be lost.
        await trio.lowlevel.checkpoint()
        while (notification := self.receive_nowait()) is None:
            await trio.lowlevel.wait_readable(self._socket)
        return notification

    def receive_nowait(self) -> Notification | None:
        """Return the next message, None if there is none.

        What a service sent before it exited is there when its exit is known. To catch up then, call this no more often
        than the queue is long (net.unix.max_dgram_qlen), because others may send all the while.
        """
        for _ in range(MOST_DROPPED):
            try:
                # Without MSG_TRUNC: in Python 3.15, recvmsg() with that flag fails where a message is too long. The
                # flags that it returns tell of that in any case.
                message, ancillary, flags, _ = self._socket.recvmsg(
                    LONGEST_MESSAGE, _ANCILLARY_SIZE, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            notification = _notification(message, ancillary)
            if (fault := _fault(message, flags)) is None:
                return notification
            self._warnings.warn("a notification of pid %d was dropped: %s", notification.pid, fault)
            notification.close()
        return None

    def close(self) -> None:
        """Close the socket, and remove the path that was bound here."""
        if self._socket.fileno() < 0:
            return
        self._socket.close()
        if self._path is not None:
            try:
                os.unlink(self._path)
            except OSError:
                pass


def _bound(fileno: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=fileno)
    except OSError:  # it is no socket at all, or not open
        pass
    else:
        if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_DGRAM and sock.getsockname():
            return sock
        sock.detach()
    raise ValueError(f"descriptor {fileno} cannot be received at; expected a bound Unix socket for datagrams")


_ANCILLARY_SIZE: Final = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)


def _notification(message: bytes, ancillary: list[tuple[int, int, bytes]]) -> Notification:
    fds = array.array("i")
    sender = (0, -1, -1)
    for _, kind, data in ancillary:
        if kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        elif kind == socket.SCM_CREDENTIALS:
            sender = _CREDENTIALS.unpack_from(data)
    lines = message.rstrip(b"\0").decode("utf-8", "surrogateescape").split("\n")
    return Notification(tuple(line for line in lines if line), list(fds), *sender)


def _fault(message: bytes, flags: int) -> str | None:
    if flags & socket.MSG_TRUNC:
        return f"it is longer than {LONGEST_MESSAGE} bytes"
    if flags & socket.MSG_CTRUNC:
        return "not all of its descriptors could be taken in; is LimitNOFILE= or ulimit -n too low?"
    if b"\0" in message.rstrip(b"\0"):
        return "it has a null character inside"
    return None
