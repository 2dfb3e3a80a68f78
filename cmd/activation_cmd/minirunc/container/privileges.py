"""What the container's process may do: its limits, its user, its capabilities and its keys."""

from __future__ import annotations

import errno
import os
import resource
import stat

from activation_cmd.minirunc.bundle.kernel import CAPABILITIES, RLIMITS
from activation_cmd.minirunc.bundle.values import At, BundleError

from . import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from activation_cmd.minirunc.bundle.config import Config
    from activation_cmd.minirunc.bundle.process import Process

_FILES = "RLIMIT_NOFILE"
_INFINITY = (1 << 63) - 1  # what setrlimit(2) takes for no limit begins above


def set_limits(process: Process) -> None:
    """Apply process.rlimits, but do not lower the number of open files yet: minirunc needs some until the exec."""
    for name, (soft, hard) in process.rlimits.items():
        if name != _FILES:
            _set_limit(name, soft, hard)
        elif hard > resource.getrlimit(resource.RLIMIT_NOFILE)[1] != resource.RLIM_INFINITY:
            _set_limit(name, hard, hard)


def set_file_limit(process: Process) -> None:
    """Apply process.rlimits to the number of open files."""
    if _FILES in process.rlimits:
        _set_limit(_FILES, *process.rlimits[_FILES])


def _set_limit(name: str, soft: int, hard: int) -> None:
    with At(f"process.rlimits: {name} cannot be {soft}, at most {hard}"):
        pair = [resource.RLIM_INFINITY if limit > _INFINITY else limit for limit in (soft, hard)]
        try:
            resource.setrlimit(RLIMITS[name], (pair[0], pair[1]))
        except ValueError as error:  # the module resource turns some errors into this
            raise OSError(0, str(error)) from None


def give_streams(config: Config) -> None:
    """Give process.user the standard streams that are pipes or sockets, so that it can open /dev/stdout."""
    if config.namespaces.get("user"):
        return  # in a joined one, the numbers outside are not known
    for number in range(3):
        kind = os.fstat(number).st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
            try:
                os.fchown(number, config.outside_uid, -1)
            except OSError:  # it belongs to another user
                pass


def leave_session_keyring() -> None:
    """Replace the session keyring of minirunc's caller by a new one, or the container could use the caller's keys.

    Raises:
        BundleError: a new one cannot be had.
    """
    try:
        syscalls.join_new_session_keyring()
    except LookupError:
        raise BundleError(
            "minirunc cannot make a session keyring on this architecture; "
            "expected that it can, or --no-new-keyring, with which the container shares the caller's"
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return  # a kernel without keyrings has no keys
        raise BundleError(
            f"a new session keyring cannot be made: {error.strerror}; "
            "expected that it can, or --no-new-keyring, with which the container shares the caller's"
        ) from None


def set_user(config: Config) -> None:
    """Become process.user, with the bounding set of process.capabilities. Other sets keep all capabilities."""
    process = config.process
    with At("process.capabilities"):
        for number in CAPABILITIES.values():
            if not process.capabilities["bounding"] >> number & 1 and _is_bounding(number):
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    with At("process.user"):
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        try:
            os.setgroups(process.additional_gids)
        except PermissionError:
            # In a user namespace that was made without root, groups cannot be set, and there are none.
            if process.additional_gids or "user" not in config.namespaces:
                raise
        os.setresgid(process.gid, process.gid, process.gid)
        os.setresuid(process.uid, process.uid, process.uid)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)


def use_all_capabilities() -> None:
    """Make every permitted capability effective again, after a change of user."""
    _, permitted, inheritable = syscalls.capget()
    syscalls.capset(permitted, permitted, inheritable)


def set_capabilities(process: Process) -> list[str]:
    """Drop all capabilities but those of process.capabilities; return the names of those that are not available."""
    with At("process.capabilities"):
        wanted = process.capabilities
        _, available, _ = syscalls.capget()
        permitted = wanted["permitted"] & available
        inheritable = wanted["inheritable"] & available
        syscalls.capset(wanted["effective"] & permitted, permitted, inheritable)
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in CAPABILITIES.values():
            # The kernel accepts no others in the ambient set.
            if wanted["ambient"] & permitted & inheritable & 1 << number:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
        missing = (wanted["permitted"] | wanted["effective"] | wanted["inheritable"]) & ~available
        missing |= wanted["effective"] & ~permitted
        missing |= sum(
            1 << each for each in CAPABILITIES.values() if wanted["bounding"] >> each & 1 and not _is_bounding(each)
        )
    return [name for name, number in CAPABILITIES.items() if missing >> number & 1]


def _is_bounding(number: int) -> bool:
    try:
        return bool(syscalls.prctl(syscalls.PR_CAPBSET_READ, number))
    except OSError:  # a capability that this kernel does not have
        return False
