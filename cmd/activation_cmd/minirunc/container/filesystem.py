"""The container's file system: the change into its root, and what is put there. pivot_root(2), never a bare chroot(2).

1. ``prepare`` opens the root and what is bound from outside, as minirunc's user, who may see it.
2. ``enter`` makes the new file systems, in the container's namespaces, and changes the root. The old one is gone then.
3. It mounts everything in the container, whose paths ``inside`` looks up, and makes the devices.
4. ``protect`` takes away what may not be written or seen.
"""

from __future__ import annotations

import errno
import os
import stat

from activation_cmd.minirunc.bundle.mount_options import MS_SLAVE, RDONLY
from activation_cmd.minirunc.bundle.values import At, BundleError

from . import inside, mount_calls, mounts, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from activation_cmd.minirunc.bundle.config import Config

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}

NOTIFY_SOCKET = "/run/notify"
"""Where the container finds what it tells its service manager."""

_CAP_MKNOD = 27
_PROC = 0x9FA0  # PROC_SUPER_MAGIC of statfs(2)


class Outside:
    """What the container needs of the machine: mounts that have no place yet, as descriptors.

    Attributes:
        root: the container's root.
        trees: what the mounts of config.json bind, by their paths there.
        devices: what takes the place of devices that cannot be made, by name.
        notify: the socket for NOTIFY_SOCKET, if there is one.
    """

    __slots__ = ("devices", "notify", "root", "trees")

    def __init__(self, root: int, trees: dict[str, int], devices: dict[str, int], notify: int | None) -> None:
        self.root, self.trees, self.devices, self.notify = root, trees, devices, notify

    def close(self) -> None:
        for descriptor in (self.root, *self.trees.values(), *self.devices.values()):
            os.close(descriptor)
        if self.notify is not None:
            os.close(self.notify)


def prepare(config: Config, notify_socket: str | None) -> Outside:
    """In a new mount namespace, open what comes from outside, and make the bundle's root a mount.

    Args:
        notify_socket: what is to be found at NOTIFY_SOCKET inside.
    """
    with At("linux.namespaces"):
        try:
            mount_calls.mount_setattr("/", propagation=MS_SLAVE, recursive=True)  # nothing that follows is seen outside
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            raise BundleError("this kernel has no mount_setattr(2); minirunc takes Linux 5.12 or later") from None
    trees = mounts.bind_outside(config)
    devices = {}
    if "user" in config.namespaces or not syscalls.capget()[0] >> _CAP_MKNOD & 1:
        for name in DEVICES:
            with At(f"/dev/{name}"):
                devices[name] = mounts.bind_file(f"/dev/{name}", attributes=0)
    notify = None
    if notify_socket:
        with At("NOTIFY_SOCKET"):
            notify = mounts.bind_file(notify_socket)
    with At("root.path"):
        root = _prepare_root(config)
    return Outside(root, trees, devices, notify)


def _prepare_root(config: Config) -> int:
    root = mount_calls.open_tree(config.rootfs, recursive=True)
    if config.readonly:
        # All that is mounted there, for good; and what is on top for later: folders may have to be made there.
        on_top = os.fstatvfs(root).f_flag & os.ST_RDONLY
        mount_calls.mount_setattr(root, RDONLY, recursive=True)
        if not on_top:
            mount_calls.mount_setattr(root, clear=RDONLY)
    mount_calls.move_mount(root, config.rootfs)
    return root


def enter(config: Config, outside: Outside) -> None:
    """Change into the container's root, with everything mounted in it."""
    made = mounts.make_file_systems(config)
    outside.trees |= made
    with At("root.path"):
        old_root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(outside.root)
        mount_calls.pivot_root(".", ".")
        os.fchdir(old_root)
        mount_calls.umount2(".", mount_calls.MNT_DETACH)
        os.chdir("/")
        os.close(old_root)

    mounts.attach(config, outside.trees)
    if not any(item.is_bind and item.destination == "/dev" for item in config.mounts):
        with At("/dev"):
            _make_devices(outside.devices)
    if outside.notify is not None:
        with At(f"NOTIFY_SOCKET ({NOTIFY_SOCKET})"):
            _attach_notify_socket(outside.notify)
    with At("process.cwd"):
        os.close(inside.open_inside(config.process.cwd, make=inside.FOLDER))


def protect(config: Config, outside: Outside) -> None:
    """Take away what may not be written or seen. Nothing of the machine is open after that."""
    with At("root"):
        if config.readonly:
            mount_calls.mount_setattr(outside.root, RDONLY)
        if config.propagation:
            flags, recursive = config.propagation
            mount_calls.mount_setattr(outside.root, propagation=flags, recursive=recursive)
    mounts.protect(config, outside.trees)
    outside.close()


def write_sysctl(config: Config) -> None:
    """Write linux.sysctl into the container's own /proc/sys."""
    for file, value in config.sysctl.items():
        with At(f"linux.sysctl ({file})"):
            parameter = inside.open_inside(f"/proc/sys/{file}", os.O_WRONLY)
            try:
                if syscalls.file_system_type(parameter) != _PROC:
                    raise BundleError(
                        f"linux.sysctl ({file}): /proc/sys is of another file system; expected a mount of proc at /proc"
                    )
                os.write(parameter, value.encode())
            finally:
                os.close(parameter)


def _attach_notify_socket(tree: int) -> None:
    folder = inside.open_inside(os.path.dirname(NOTIFY_SOCKET), make=inside.FOLDER)
    try:
        os.rmdir(os.path.basename(NOTIFY_SOCKET), dir_fd=folder)  # runc leaves one there
    except OSError:
        pass
    os.close(folder)
    destination = inside.open_inside(NOTIFY_SOCKET, make=inside.FILE)
    mount_calls.move_mount(tree, destination)
    os.close(destination)


def _make_devices(bound: dict[str, int]) -> None:
    """Make the default devices and links of the specification; what is there already stays.

    Args:
        bound: instead of making these, mount the machine's.
    """
    folder = inside.open_inside("/dev", make=inside.FOLDER)
    umask = os.umask(0)
    for name, numbers in DEVICES.items():
        if name not in bound:
            try:
                os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(*numbers), dir_fd=folder)
            except FileExistsError:
                pass
    os.umask(umask)
    for name, tree in bound.items():
        try:
            made = os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        except FileExistsError:
            continue
        mount_calls.move_mount(tree, made)
        os.close(made)
    for name, target in LINKS.items():
        _link(target, name, folder)
    try:
        os.close(inside.open_inside("/proc/kcore"))
        _link("/proc/kcore", "core", folder)
    except OSError:
        pass
    try:
        os.unlink("ptmx", dir_fd=folder)
    except FileNotFoundError:
        pass
    os.symlink("pts/ptmx", "ptmx", dir_fd=folder)
    os.close(folder)


def _link(target: str, name: str, folder: int) -> None:
    try:
        os.symlink(target, name, dir_fd=folder)
    except FileExistsError:
        pass
