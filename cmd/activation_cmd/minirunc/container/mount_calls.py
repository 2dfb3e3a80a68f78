"""The system calls for mounts, as functions that raise OSError.

The newest, mount_setattr(2), came with Linux 5.12. Where it is missing, a container cannot be started.
"""

from __future__ import annotations

import os

from .syscalls import AT_FDCWD, Uint64, call, numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MNT_DETACH = 2

_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
_FSOPEN_CLOEXEC, _FSMOUNT_CLOEXEC = 1, 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOUNT_ATTR_SIZE = 32
_LONGEST_MESSAGE = 4096  # bytes; the kernel says less than that of a mount that failed


def open_tree(source: str | int, *, recursive: bool) -> int:
    """A copy of the mount at a path or a descriptor, mounted nowhere yet. open_tree(2)."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    if isinstance(source, int):
        return numbered(_OPEN_TREE, source, b"", flags | _AT_EMPTY_PATH)
    return numbered(_OPEN_TREE, AT_FDCWD, os.fsencode(source), flags)


def move_mount(tree: int, destination: str | int) -> None:
    """Mount what open_tree() or new_mount() has returned. move_mount(2)."""
    if isinstance(destination, int):
        both = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
        numbered(_MOVE_MOUNT, tree, b"", destination, b"", both)
    else:
        numbered(_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(destination), _MOVE_MOUNT_F_EMPTY_PATH)


def new_mount(kind: str, source: str, options: Iterable[str], attributes: int) -> int:
    """A mount of a new file system, mounted nowhere yet. fsopen(2), fsconfig(2), fsmount(2).

    Args:
        options: each NAME or NAME=VALUE.
        attributes: MOUNT_ATTR_ bits.
    """
    context = numbered(_FSOPEN, os.fsencode(kind), _FSOPEN_CLOEXEC)
    try:
        _fsconfig(context, _FSCONFIG_SET_STRING, "source", source)
        for option in options:
            name, equals, value = option.partition("=")
            _fsconfig(context, _FSCONFIG_SET_STRING if equals else _FSCONFIG_SET_FLAG, name, value if equals else None)
        _fsconfig(context, _FSCONFIG_CMD_CREATE)
        return numbered(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def _fsconfig(context: int, command: int, name: str | None = None, value: str | None = None) -> None:
    texts = (None if text is None else os.fsencode(text) for text in (name, value))
    try:
        numbered(_FSCONFIG, context, command, *texts, 0)
    except OSError as error:
        try:
            said = os.read(context, _LONGEST_MESSAGE).decode(errors="replace").removeprefix("e ").strip()
        except OSError:
            raise error from None
        raise OSError(error.errno, said) from None


def mount_setattr(
    mount: str | int, attributes: int = 0, clear: int = 0, propagation: int = 0, *, recursive: bool = False
) -> None:
    """Change the attributes of a mount, with ``recursive`` also of all below it. mount_setattr(2)."""
    changes = (Uint64 * 4)(attributes, clear, propagation, 0)
    flags = _AT_RECURSIVE if recursive else 0
    if isinstance(mount, int):
        numbered(_MOUNT_SETATTR, mount, b"", flags | _AT_EMPTY_PATH, changes, _MOUNT_ATTR_SIZE)
    else:
        numbered(_MOUNT_SETATTR, AT_FDCWD, os.fsencode(mount), flags, changes, _MOUNT_ATTR_SIZE)


def umount2(target: str, flags: int) -> None:
    """umount(2)."""
    call("umount2", os.fsencode(target), flags)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    call("pivot_root", os.fsencode(new_root), os.fsencode(put_old))
