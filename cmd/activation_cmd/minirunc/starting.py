"""What ``run`` and ``create`` have in common: from the bundle to a process that becomes the container."""

from __future__ import annotations

import _socket
import os

from .bundle import config as configuration
from .bundle.values import BundleError
from .container import container, guardian, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from .bundle.config import Config
    from .state import State


class Order:
    """What is asked for on the command line.

    Attributes:
        root: the folder of the containers' state.
        identity: the container's ID.
        bundle: the bundle's folder.
        preserve_fds: how many descriptors to pass beside those of $LISTEN_FDS.
        pid_file: a path, or "".
        keep: whether the state stays when the container has ended.
        strict: whether cgroup limits that are not applied are an error.
        permissive: the groups of what need not be applied.
        new_keyring: whether the container gets a session keyring of its own.
    """

    __slots__ = (
        *("bundle", "identity", "keep", "new_keyring", "permissive", "pid_file", "preserve_fds", "root", "strict"),
    )

    def __init__(
        self,
        root: str,
        identity: str,
        *,
        bundle: str = ".",
        preserve_fds: int = 0,
        pid_file: str = "",
        keep: bool = False,
        strict: bool = False,
        permissive: Collection[str] = (),
        new_keyring: bool = True,
    ) -> None:
        self.root, self.identity, self.bundle = root, identity, bundle
        self.preserve_fds, self.pid_file, self.keep = preserve_fds, pid_file, keep
        self.strict, self.permissive, self.new_keyring = strict, permissive, new_keyring


def load(order: Order) -> Config:
    """Read the bundle's configuration, and make sure that minirunc may pass over what it cannot apply.

    Raises:
        BundleError: it is none, or minirunc cannot do what it says.
    """
    config = configuration.load(order.bundle)
    if os.geteuid() != 0 and "user" not in config.namespaces:
        raise BundleError(
            "linux.namespaces has no user; expected it of whoever is not root: minirunc spec --rootless has such a "
            "configuration"
        )
    if refused := config.unapplied.refused(order.permissive, strict=order.strict):
        told = ", ".join(what for each in refused.values() for what in each)
        raise BundleError(
            f"minirunc cannot apply {told}; expected a configuration without it, or --permissive={','.join(refused)} "
            "to run the container all the same"
        )
    if told := ", ".join(config.unapplied.told()):
        _remark(f"not applied: {told}")
    return config


def _remark(message: str) -> None:
    from .reports import remark

    remark(message)


def fork(
    start: container.Start, state: State, *, keep: bool, created: Callable[[int], object] = lambda _: None
) -> tuple[int, int, int]:
    """Fork the guardian, and wait until the container's process has become its program, or waits at its gate.

    Args:
        keep: whether the guardian leaves the state.
        created: called with the number of the process when that waits at its gate, before it is left alone.

    Returns:
        The numbers of the two, and what the exit status will be read from.

    Raises:
        BundleError: it could not be started.
    """
    reading, writing = os.pipe()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()
    guardian_pid = os.fork()
    if not guardian_pid:
        ours.close()
        guardian.guard(start, supervisor, theirs, writing, lambda: state.end(keep=keep))
    theirs.close()
    os.close(writing)
    pid, is_alone = 0, start.gate is None
    while message := ours.recv(1 << 16):
        kind, _, text = message.partition(b" ")
        if kind == b"map":
            from .container import id_maps

            id_maps.write(guardian_pid, start.config)
            ours.send(b"mapped")
        elif kind == b"forked":
            pid = int(text)
        elif kind == b"remark":
            _remark(text.decode(errors="replace"))
        elif kind == b"created":
            created(pid)
            ours.send(b"go")
        elif kind == b"alone":
            is_alone = True
        else:
            raise BundleError(text.decode(errors="replace"))
    ours.close()
    if not (pid and is_alone):
        raise BundleError("the container's guardian or its process ended before it was started; was it killed?")
    return guardian_pid, pid, reading


def document(state: State, config: Config, pid: int, *, keep: bool) -> dict[str, object]:
    """The container's state as the specification has it, and what else minirunc has to know of it."""
    # The container works by now, and did not wait for these.
    from .processes import mount_namespace, started
    from .reports import now

    root = os.stat(config.rootfs)
    return {
        "ociVersion": config.version,
        "id": state.identity,
        "pid": pid,
        "bundle": config.bundle,
        "rootfs": config.rootfs,
        "created": now(),
        "annotations": config.annotations,
        "start_time": started(pid),
        "keep": keep,
        "own_pid_namespace": config.own_pid_namespace,
        "root_file": [root.st_dev, root.st_ino],
        "mount_namespace": mount_namespace(pid),
    }
