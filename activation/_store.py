"""A daemon's side of the file descriptor store: what it leaves with the manager and finds again, on the stdlib alone.

A state lives in a memfd that the manager holds. It has two areas; one byte says which of them counts. A new state is
written to the other area first, and then that byte turns: a process that is killed at any instruction leaves either the
old state or the new one.
"""

from __future__ import annotations

import fcntl
import os
import struct
from threading import Lock

from ._environment import ActivationError, environ, surroundings
from ._files import File, files, passed_before
from ._notify import MOST_DESCRIPTORS, notify
from ._types import HasFileno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LARGEST_STATE: Final = 16 << 20
"""Bytes that one state may have."""

_LONGEST_NAME: Final = 255

_MAGIC: Final = b"ACTSTATE"
_LAYOUT: Final = 1
_HEAD: Final = struct.Struct("=8sIB")  # magic, layout, which area counts
_WHICH: Final = _HEAD.size - 1
_LENGTH: Final = struct.Struct("=Q")
_LENGTHS: Final = 16
_AREAS: Final = 4096
_SIZE: Final = _AREAS + 2 * LARGEST_STATE

_MFD_NOEXEC_SEAL: Final = 8
"""Linux 6.3: the file can never be made executable; without it the kernel complains in its log."""

_states: dict[str, int] = {}
_lock: Final = Lock()


def store(name: str, *fds: int | HasFileno, poll: bool = True) -> bool:
    """Leave copies of the descriptors with the service manager; the next start finds them among :func:`files`.

    FDSTORE=1 of sd_notify(3), sd_pid_notify_with_fds(3); go-systemd has no such function. The service needs
    ``FileDescriptorStoreMax=`` of systemd.service(5) with room for all of them: a manager that has none, or whose store
    is full, drops them without a word. A restart, a crash and ``kill -9`` keep what is stored; a stop does not.

    Args:
        name: what each of them is called in the next start, FDNAME=; several may have the same name.
        fds: the descriptors; more than 253 go in several messages.
        poll: let the manager drop one whose other end hangs up. Without it the next start finds it all the same, and
            can read what the other end said last. FDPOLL=0.

    Returns:
        Whether there is a manager to leave them with: False without NOTIFY_SOCKET.

    Raises:
        ValueError: the manager would change the name, or there are no descriptors; nothing was sent.
        ActivationError, OSError: as :func:`notify`.
    """
    check_name(name)
    if not fds:
        raise ValueError(f"there are no descriptors to store as {name!r}; expected at least one")
    words = ["FDSTORE=1", f"FDNAME={name}", *([] if poll else ["FDPOLL=0"])]
    told = True
    for first in range(0, len(fds), MOST_DESCRIPTORS):
        told = notify(*words, fds=fds[first : first + MOST_DESCRIPTORS]) and told
    return told


def unstore(name: str) -> bool:
    """Have the service manager close everything that is stored under the name. FDSTOREREMOVE=1 of sd_notify(3).

    The copies in this process stay open. A connection whose every copy is closed ends for its client.

    Returns:
        Whether there is a manager to tell: False without NOTIFY_SOCKET.

    Raises:
        ValueError: it is no name that can be stored.
        ActivationError, OSError: as :func:`notify`.
    """
    check_name(name)
    with _lock:
        told = notify("FDSTOREREMOVE=1", f"FDNAME={name}")
        states, passed = _own_memfds(), passed_before()
        if told:
            passed[:] = [file for file in passed if file.name != name]
            if name in states:
                os.close(states.pop(name))
    return told


def store_state(name: str, data: bytes) -> bool:
    """Leave bytes with the service manager; the next start reads them with :func:`stored_state`.

    They lie in a memfd, memfd_create(2), that is stored once and written anew each time. Replacing them is atomic: a
    process that is killed in the middle of it leaves the old ones or the new ones, whole. The memory counts as the
    service's, for up to two such states.

    Args:
        name: what the memfd is called among :func:`files`; no socket's name.
        data: at most 16 MiB (16,777,216 bytes).

    Returns:
        Whether there is a manager to leave them with: False without NOTIFY_SOCKET.

    Raises:
        ValueError: there are too many bytes, or the manager would change the name; what was stored before still counts.
        ActivationError: another descriptor came under that name. Else as :func:`notify`.
        OSError: there is no memory for it; what was stored before still counts. Else as :func:`notify`.
    """
    check_name(name)
    if len(data) > LARGEST_STATE:
        raise ValueError(f"the state {name!r} has {len(data)} bytes; at most {LARGEST_STATE} (16 MiB) can be stored")
    with _lock:
        memfd = _memfd(name)
        if memfd is not None:
            _write(memfd, data)
            return True
        if not environ().get("NOTIFY_SOCKET"):
            return False
        memfd = _new_memfd(name)
        try:
            _write(memfd, data)
            told = store(name, memfd, poll=False)
        except BaseException:
            os.close(memfd)
            raise
        _own_memfds()[name] = memfd
        return told


def stored_state(name: str) -> bytes | None:
    """Return what :func:`store_state` last stored under the name, in this process or in an earlier start.

    Returns:
        The bytes, or None if nothing was stored.

    Raises:
        ValueError: it is no name that can be stored.
        ActivationError: another descriptor came under that name, or a state in a layout that this version does not
            know. Else as :func:`files`.
    """
    check_name(name)
    with _lock:
        memfd = _memfd(name)
        return None if memfd is None else _read(memfd)


def check_name(name: str) -> None:
    """Raise the ValueError of a name that the manager would change."""
    if 0 < len(name) <= _LONGEST_NAME and name.isascii() and name.isprintable() and ":" not in name:
        return
    raise ValueError(
        f"{name[:300]!r} cannot name a stored descriptor: the manager would call it something else; expected 1 to "
        f"{_LONGEST_NAME} printable ASCII characters without a colon"
    )


def memory_file(name: str) -> int:
    """A new memfd, close-on-exec, that can be sealed."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(name, flags)


def state_in(descriptor: int) -> bytes | None:
    """The state in a memfd of :func:`store_state`; None if it is none of a layout that this version reads."""
    try:
        magic, layout, _ = _HEAD.unpack(os.pread(descriptor, _HEAD.size, 0))
    except (OSError, struct.error):
        return None
    return _read(descriptor) if (magic, layout) == (_MAGIC, _LAYOUT) else None


def close_states() -> None:
    """Close this module's copies, which a process keeps to its end: for a daemon that has ended inside its test."""
    memfds = _own_memfds()
    while memfds:
        os.close(memfds.popitem()[1])


def _own_memfds() -> dict[str, int]:
    """The memfds of the states that this process has written or read, by name."""
    test = surroundings()
    if test is None:
        return _states
    states: dict[str, int] = test.variables.setdefault("states", {})
    return states


def _memfd(name: str) -> int | None:
    """The memfd of that state, a copy of this module's own; None if there is none yet."""
    states = _own_memfds()
    if name not in states:
        for file in passed_before() or files(unset_env=False):
            if file.name == name and file.fileno() >= 0:
                _check_memfd(file)
                states[name] = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
                break
    return states.get(name)


def _check_memfd(file: File) -> None:
    try:
        magic, layout, _ = _HEAD.unpack(os.pread(file.fileno(), _HEAD.size, 0))
    except (OSError, struct.error):
        magic = layout = None
    if magic != _MAGIC:
        raise ActivationError(
            f"descriptor {file.fileno()} came under the name {file.name!r} and is no stored state; "
            "give the state a name that no socket and no other stored descriptor has"
        )
    if layout != _LAYOUT:
        raise ActivationError(
            f"the stored state {file.name!r} has layout {layout}, and this version reads layout {_LAYOUT} only; "
            f"go back to the version that stored it, or discard it: activation.unstore({file.name!r})"
        )


def _new_memfd(name: str) -> int:
    memfd = memory_file(name)
    try:
        os.ftruncate(memfd, _SIZE)
        # Nobody can shorten it beneath a reader.
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        os.pwrite(memfd, _HEAD.pack(_MAGIC, _LAYOUT, 0), 0)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def _write(memfd: int, data: bytes) -> None:
    other = 1 - os.pread(memfd, 1, _WHICH)[0]
    place, rest = _AREAS + other * LARGEST_STATE, memoryview(data)
    while rest:
        written = os.pwrite(memfd, rest, place)
        place, rest = place + written, rest[written:]
    os.pwrite(memfd, _LENGTH.pack(len(data)), _LENGTHS + other * _LENGTH.size)
    os.pwrite(memfd, bytes([other]), _WHICH)


def _read(memfd: int) -> bytes:
    which = os.pread(memfd, 1, _WHICH)[0]
    (length,) = _LENGTH.unpack(os.pread(memfd, _LENGTH.size, _LENGTHS + which * _LENGTH.size))
    return os.pread(memfd, length, _AREAS + which * LARGEST_STATE)
