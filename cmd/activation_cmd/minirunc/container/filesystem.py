"""The container's file system: its mounts, its devices, and the change into it. pivot_root(2), never a bare chroot(2).

While the mounts are made, the root is already the container's and the working directory is the old one: so the kernel
looks a destination up in the container's own tree, symbolic links included. What is bound from outside is opened
before, and is then found by its number in the old root's /proc. The change of root that lasts comes after that.
"""

from __future__ import annotations

import os
import stat

from activation_cmd.minirunc.bundle.values import At

from .syscalls import (
    MNT_DETACH,
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SLAVE,
    mount,
    pivot_root,
    umount2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from activation_cmd.minirunc.bundle.config import Config, Mount

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}

NOTIFY_SOCKET = "/run/notify"
"""Where the container finds what it tells its service manager."""

# The flags of a mount in statvfs(3), and in mount(2). A user namespace may not take them off what it binds.
_KEPT = (
    *((flag, flag) for flag in (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_NODIRATIME)),
    (4096, MS_RELATIME),
)


def attach(config: Config, notify_socket: str | None) -> dict[str, int]:
    """In a new mount namespace, make the bundle's root a mount and the working directory.

    Args:
        notify_socket: what is to be found at NOTIFY_SOCKET inside.

    Returns:
        Descriptors of what will be bound into the container, by path.
    """
    mount(None, "/", None, MS_SLAVE | MS_REC)  # nothing that follows is seen outside
    with At("root.path"):
        mount(config.rootfs, config.rootfs, None, MS_BIND | MS_REC)
    outside = {}
    for item in config.mounts:
        if item.is_bind and item.source not in outside:
            with At(f"{item.path}.source"):
                outside[item.source] = os.open(os.path.join(config.bundle, item.source), os.O_PATH | os.O_CLOEXEC)
    for path in (*(f"/dev/{name}" for name in DEVICES), *([notify_socket] if notify_socket else ())):
        if path in outside:
            continue
        try:
            outside[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            pass  # it is missed when it is needed
    with At("root.path"):
        os.chdir(config.rootfs)
    return outside


def enter(config: Config, notify_socket: str | None, outside: dict[str, int]) -> None:
    """Make the working directory the root, and mount everything in it."""
    with At("root.path"):
        old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        new_root = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        # For the look-ups alone: nothing leads above this root, while the old one is the working directory.
        os.chroot(".")
        os.fchdir(old_root)

    for item in config.mounts:
        with At(f"{item.path} ({item.destination})"):
            _mount(item, outside)
    if not any(item.is_bind and item.destination == "/dev" for item in config.mounts):
        with At("/dev"):
            _make_devices(outside)
    if notify_socket:
        with At(f"NOTIFY_SOCKET ({NOTIFY_SOCKET})"):
            destination = os.path.realpath(NOTIFY_SOCKET)
            if os.path.isdir(destination):
                os.rmdir(destination)  # runc leaves it there
            flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY
            _bind(outside[notify_socket], destination, MS_BIND, flags)
    with At("process.cwd"):
        os.makedirs(config.cwd, exist_ok=True)

    with At("root.path"):
        os.chroot(".")
        os.fchdir(new_root)
        pivot_root(".", ".")
        os.fchdir(old_root)
        umount2(".", MNT_DETACH)
        os.chdir("/")
    for descriptor in (old_root, new_root, *outside.values()):
        os.close(descriptor)


def protect(config: Config) -> None:
    """What may be read only, and what may not be seen."""
    for item in config.mounts:
        if item.kind == "tmpfs" and item.flags & MS_RDONLY:  # it was written to until now
            with At(f"{item.path} ({item.destination})"):
                _remount(item.destination, MS_BIND | item.flags)
    with At("root"):
        if config.readonly:
            _remount("/", MS_BIND | MS_RDONLY)
        if config.propagation:
            mount(None, "/", None, config.propagation)
    for path in config.readonly_paths:
        with At(f"linux.readonlyPaths ({path})"):
            try:
                mount(path, path, None, MS_BIND | MS_REC)
            except FileNotFoundError:
                continue
            _remount(path, MS_BIND | MS_REC | MS_RDONLY | _kept_flags(path))
    for path in config.masked_paths:
        with At(f"linux.maskedPaths ({path})"):
            try:
                if os.path.isdir(path):
                    mount("tmpfs", path, "tmpfs", MS_RDONLY)
                else:
                    mount("/dev/null", path, None, MS_BIND)
            except FileNotFoundError:
                if os.path.lexists(path):
                    raise


def _mount(item: Mount, outside: dict[str, int]) -> None:
    destination = os.path.realpath(item.destination)  # a link may lead to what is still to be made
    if item.is_bind:
        _bind(outside[item.source], destination, item.flags & (MS_BIND | MS_REC), item.flags & ~MS_BIND & ~MS_REC)
    else:
        mode = _existing_mode(destination)
        os.makedirs(destination, exist_ok=True)
        later = MS_RDONLY if item.kind == "tmpfs" else 0
        mount(item.source, destination, item.kind, item.flags & ~later, item.data)
        if item.kind == "tmpfs" and mode is not None and "mode=" not in item.data:
            os.chmod(destination, mode)
    for flags in item.propagation:
        mount(None, destination, None, flags)


def _existing_mode(path: str) -> int | None:
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def _bind(descriptor: int, destination: str, kind: int, flags: int) -> None:
    """Bind what is open as ``descriptor``, with the working directory where a /proc is."""
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.makedirs(destination, exist_ok=True)
    elif not os.path.lexists(destination):
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        os.close(os.open(destination, os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))
    mount(f"proc/self/fd/{descriptor}", destination, None, kind)
    if flags:
        _remount(destination, MS_BIND | flags)


def _remount(path: str, flags: int) -> None:
    try:
        mount(None, path, None, MS_REMOUNT | flags)
    except PermissionError:
        mount(None, path, None, MS_REMOUNT | flags | _kept_flags(path))


def _kept_flags(path: str) -> int:
    present = os.statvfs(path).f_flag
    return sum(flag for found, flag in _KEPT if present & found)


def _make_devices(outside: dict[str, int]) -> None:
    """The default devices and links of the specification; what is there already stays."""
    os.makedirs("/dev", exist_ok=True)
    umask = os.umask(0)
    for name, numbers in DEVICES.items():
        path = f"/dev/{name}"
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(*numbers))
        except FileExistsError:
            pass
        except PermissionError:  # in a user namespace
            if path not in outside:
                raise
            _bind(outside[path], path, MS_BIND, 0)
    os.umask(umask)
    links = LINKS | ({"core": "/proc/kcore"} if os.path.exists("/proc/kcore") else {})
    for name, target in links.items():
        try:
            os.symlink(target, f"/dev/{name}")
        except FileExistsError:
            pass
    if os.path.lexists("/dev/ptmx"):
        os.unlink("/dev/ptmx")
    os.symlink("pts/ptmx", "/dev/ptmx")
