"""The sockets at which services notify socket-activate, sd_notify(3), out of the reach of everybody else.

systemd has one socket for all services and looks at each sender's cgroup. Without cgroups, a stranger who can send can
keep the receiver busy and the queue full. So each service has a socket of its own, in a folder of its own:

- A service that runs as an ordinary user gets a folder that only this user, and root, can enter.
- A service that starts as root may change to another user later and still notify, as rpcbind does. Its folder lets
  everybody through, but its name is random, the folder above cannot be listed, and /proc/net/unix does not show it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import attrs

import activation
from activation_cmd.common.leftovers import NOTIFY_FOLDER, remove_notify_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAME: Final = "notify"

_LONGEST_BASE: Final = 107 - len("/socket-activate-12345678/1234567890123456/notify")
"""Bytes: a Unix socket's path has 107 at most, unix(7)."""


@attrs.frozen
class NotifySocket:
    """A service's notify socket.

    Attributes:
        receiver: receives what the service sends.
        address: the value of NOTIFY_SOCKET.
    """

    receiver: activation.NotifyReceiver
    address: str

    def close(self) -> None:
        """Close the socket and remove its folder."""
        self.receiver.close()
        with suppress(OSError):
            os.unlink(self.address)
        with suppress(OSError):
            os.rmdir(os.path.dirname(self.address))


class NotifySockets:
    """Makes notify sockets, in a folder for all of them. Leaving the block removes the folder.

    Args:
        announce: tells the executor of the folder, which removes it if this process is killed.
    """

    def __init__(self, announce: Callable[[str, str, str], object]) -> None:
        self._announce = announce
        self._folder = ""
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            remove_notify_folder(self._folder)
            os.close(self._descriptor)

    def make(self, uid: int) -> NotifySocket:
        """Make the socket of a service that starts as the user ``uid``.

        Raises:
            OSError: there is no folder where it can be made, or there are no descriptors left.
        """
        if not self._folder:
            self._make_folder()
        name = secrets.token_hex(8)
        address = f"{self._folder}/{name}/{_NAME}"
        os.mkdir(name, 0o700, dir_fd=self._descriptor)
        inside = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                # /proc/net/unix shows to everybody the path as it is given here.
                sock.bind(f"/proc/self/fd/{inside}/{_NAME}")
                os.chmod(_NAME, 0o666, dir_fd=inside)  # noqa: S103  # the folder keeps others out
                if uid == 0:
                    os.fchmod(inside, 0o711)
                elif uid != os.geteuid():
                    os.fchown(inside, uid, -1)
                receiver = activation.NotifyReceiver(fileno=sock.fileno())
                sock.detach()
        finally:
            os.close(inside)
        return NotifySocket(receiver, address)

    def _make_folder(self) -> None:
        error: OSError | None = None
        for base in _bases():
            folder = f"{base.rstrip('/')}/socket-activate-{secrets.token_hex(4)}"
            self._announce(NOTIFY_FOLDER, folder, "")
            try:
                os.mkdir(folder, 0o700)
            except OSError as failed:
                error = error or failed
                continue
            os.chmod(folder, 0o711)  # noqa: S103  # whatever the umask is: services of other users pass through
            self._folder = folder
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # systemd-tmpfiles leaves it alone, however old it is
            return
        raise error or FileNotFoundError("there is no folder for notify sockets; expected one such as /run or /tmp")


def _bases() -> Iterator[str]:
    """Where the folder may be made, the best place first."""
    # Root's services may run as other users, who cannot enter root's own XDG_RUNTIME_DIR.
    own = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
    for base in (own, "/tmp", "/var/tmp", "/dev/shm", os.environ.get("TMPDIR", "")):  # noqa: S108
        if base.startswith("/") and len(os.fsencode(base)) <= _LONGEST_BASE:
            yield base
