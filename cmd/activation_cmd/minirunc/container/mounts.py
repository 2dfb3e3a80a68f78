"""The container's mounts: all of them are made before the change of root, and mounted in the container after it.

Until the change of root nothing of the container is looked up, and after it nothing of the machine is there to be
found. What comes from outside is a mount without a place by then (open_tree(2), fsmount(2)), so that no path leads to
it. And it has its attributes before anybody can see it.
"""

from __future__ import annotations

import errno
import os
import stat

from activation_cmd.minirunc.bundle.mount_options import ATIME, NODEV, NOEXEC, NOSUID, RDONLY, RESTRICTIONS
from activation_cmd.minirunc.bundle.values import At, BundleError

from . import inside, mount_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from activation_cmd.minirunc.bundle.config import Config
    from activation_cmd.minirunc.bundle.mounts import Mount

KERNEL_FILE_SYSTEMS = ("proc", "sysfs")


def bind_outside(config: Config) -> dict[str, int]:
    """What the mounts bind from outside the container, by the paths of the mounts in config.json."""
    trees = {}
    for item in config.mounts:
        if item.is_bind and path_inside(config, item) is None:
            with At(f"{item.path}.source"):
                trees[item.path] = bind(os.path.join(config.bundle, item.source), item)
    return trees


def path_inside(config: Config, item: Mount) -> str | None:
    """The source of a bind as a path in the container, if it lies below its root: an earlier mount may be there."""
    source = os.path.normpath(os.path.join(config.bundle, item.source))
    if source == config.rootfs or source.startswith(f"{config.rootfs}/"):
        return source.removeprefix(config.rootfs) or "/"
    return None


def bind(source: str | int, item: Mount) -> int:
    """A copy of what is mounted at ``source``, with the attributes that are wanted.

    What restricts a bind restricts all of it: below a ``rbind`` that is ``ro``, nothing can be written.
    """
    try:
        tree = mount_calls.open_tree(source, recursive=item.recursive)
    except OSError as error:
        raise OSError(error.errno, error.strerror, source if isinstance(source, str) else item.source) from None
    added, removed = item.attributes
    if restrictions := added & RESTRICTIONS:
        mount_calls.mount_setattr(tree, restrictions, recursive=True)
    if (others := added & ~RESTRICTIONS) or removed & ATIME:
        # What a bind is not to be restricted by, such as rw, it may be restricted by all the same: by its source.
        mount_calls.mount_setattr(tree, others, removed & ATIME)
    _set_attributes_below(tree, item)
    return tree


def bind_file(path: str, attributes: int = NOSUID | NODEV | NOEXEC | RDONLY) -> int:
    """A copy of the mount of one file."""
    tree = mount_calls.open_tree(path, recursive=False)
    mount_calls.mount_setattr(tree, attributes)
    return tree


def make_file_systems(config: Config) -> dict[str, int]:
    """New file systems for the mounts, by the paths of these in config.json. Their namespaces must be entered."""
    made = {}
    if any(item.copies_up for item in config.mounts):
        from . import copying  # noqa: F401  # it cannot be loaded after the change of root
    for item in config.mounts:
        if not item.is_bind:
            with At(f"{item.path} ({item.destination})"):
                # A tmpfs is written to until everything is in its place.
                later = RDONLY if item.kind == "tmpfs" else 0
                options = [word for word in item.super_options if not (later and word == "ro")] + item.data
                try:
                    made[item.path] = mount_calls.new_mount(
                        item.kind, item.source, options, item.attributes[0] & ~later
                    )
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        raise BundleError(
                            f"{item.path}.type is {item.kind!r}; expected a file system that this kernel has"
                        ) from None
                    raise
                _set_attributes_below(made[item.path], item)
    return made


def attach(config: Config, trees: dict[str, int]) -> None:
    """Mount everything in the container."""
    for item in config.mounts:
        with At(f"{item.path} ({item.destination})"):
            tree = trees.get(item.path)
            if tree is None:
                source = path_inside(config, item)
                assert source is not None  # or it was bound before the change of root
                opened = inside.open_inside(source)
                tree = trees[item.path] = bind(opened, item)
                os.close(opened)
            _attach(item, tree)


def _attach(item: Mount, tree: int) -> None:
    is_folder = stat.S_ISDIR(os.fstat(tree).st_mode)
    exists, destination = _open_destination(item, inside.FOLDER if is_folder else inside.FILE)
    if exists and item.kind == "tmpfs" and not any(option.startswith("mode=") for option in item.data):
        os.fchdir(tree)
        os.chmod(".", stat.S_IMODE(os.fstat(destination).st_mode))
    if exists and item.copies_up:
        from . import copying

        copying.copy_folder(destination, tree)
    mount_calls.move_mount(tree, destination)
    os.close(destination)
    for flags, recursive in item.propagation:
        mount_calls.mount_setattr(tree, propagation=flags, recursive=recursive)


def _open_destination(item: Mount, make: str) -> tuple[bool, int]:
    """Whether the destination was there before, and a descriptor of it."""
    # Whoever looks at /proc or /sys, minirunc among them, has to find the kernel's.
    is_kernels = item.kind in KERNEL_FILE_SYSTEMS or item.destination in ("/proc", "/sys")
    links = 0 if is_kernels else inside.MOST_LINKS
    try:
        return True, inside.open_inside(item.destination, links=links)
    except FileNotFoundError:
        return False, inside.open_inside(item.destination, make=make, links=links)
    except OSError as error:
        if error.errno == errno.ELOOP and is_kernels:
            raise BundleError(
                f"{item.path}: {item.destination} is a symbolic link in the container, or below one; "
                f"expected an ordinary folder for what is mounted there"
            ) from None
        raise


def _set_attributes_below(tree: int, item: Mount) -> None:
    added, removed = item.attributes_below
    if added or removed:
        mount_calls.mount_setattr(tree, added, removed, recursive=True)


def protect(config: Config, trees: dict[str, int]) -> None:
    """Make read-only what may only be read, and hide what may not be seen."""
    for item in config.mounts:
        if item.kind == "tmpfs" and item.is_readonly:
            with At(f"{item.path} ({item.destination})"):
                mount_calls.mount_setattr(trees[item.path], RDONLY)
    for path in config.readonly_paths:
        with At(f"linux.readonlyPaths ({path})"):
            if (opened := _open_present(path)) is not None:
                tree = mount_calls.open_tree(opened, recursive=True)
                mount_calls.mount_setattr(tree, RDONLY, recursive=True)
                _cover(opened, tree)
    for path in config.masked_paths:
        with At(f"linux.maskedPaths ({path})"):
            if (opened := _open_present(path)) is not None:
                is_folder = stat.S_ISDIR(os.fstat(opened).st_mode)
                _cover(opened, mount_calls.new_mount("tmpfs", "tmpfs", ["ro"], RDONLY) if is_folder else _null())


def _cover(covered: int, tree: int) -> None:
    mount_calls.move_mount(tree, covered)
    os.close(tree)
    os.close(covered)


def _null() -> int:
    """A copy of the mount of the container's /dev/null: of the device, whatever the container may have there."""
    device = inside.open_inside("/dev/null", links=0)
    try:
        status = os.fstat(device)
        if (stat.S_ISCHR(status.st_mode), status.st_rdev) != (True, os.makedev(1, 3)):
            raise BundleError(
                "linux.maskedPaths: the container's /dev/null is another file; expected the device, to hide files under"
            )
        return mount_calls.open_tree(device, recursive=False)
    finally:
        os.close(device)


def _open_present(path: str) -> int | None:
    """Open the path; None if there is nothing. A link that leads nowhere, as yet, is an error."""
    try:
        return inside.open_inside(path)
    except FileNotFoundError:
        folder, name = os.path.split(os.path.normpath(path))
        try:
            above = inside.open_inside(folder)
        except FileNotFoundError:
            return None
        try:
            os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(above)
        raise
