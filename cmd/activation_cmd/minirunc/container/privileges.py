"""What the container's process may: limits, user and capabilities."""

from __future__ import annotations

import os
import resource
import stat

from activation_cmd.minirunc.bundle.values import At

from . import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from activation_cmd.minirunc.bundle.config import Config

RLIMITS = {
    f"RLIMIT_{name}": number
    for number, name in enumerate(
        [
            "CPU",
            "FSIZE",
            "DATA",
            "STACK",
            "CORE",
            "RSS",
            "NPROC",
            "NOFILE",
            "MEMLOCK",
            "AS",
            "LOCKS",
            "SIGPENDING",
            "MSGQUEUE",
            "NICE",
            "RTPRIO",
            "RTTIME",
        ]
    )
}
CAPABILITIES = {
    f"CAP_{name}": number
    for number, name in enumerate(
        [
            "CHOWN",
            "DAC_OVERRIDE",
            "DAC_READ_SEARCH",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
            "LINUX_IMMUTABLE",
            "NET_BIND_SERVICE",
            "NET_BROADCAST",
            "NET_ADMIN",
            "NET_RAW",
            "IPC_LOCK",
            "IPC_OWNER",
            "SYS_MODULE",
            "SYS_RAWIO",
            "SYS_CHROOT",
            "SYS_PTRACE",
            "SYS_PACCT",
            "SYS_ADMIN",
            "SYS_BOOT",
            "SYS_NICE",
            "SYS_RESOURCE",
            "SYS_TIME",
            "SYS_TTY_CONFIG",
            "MKNOD",
            "LEASE",
            "AUDIT_WRITE",
            "AUDIT_CONTROL",
            "SETFCAP",
            "MAC_OVERRIDE",
            "MAC_ADMIN",
            "SYSLOG",
            "WAKE_ALARM",
            "BLOCK_SUSPEND",
            "AUDIT_READ",
            "PERFMON",
            "BPF",
            "CHECKPOINT_RESTORE",
        ]
    )
}
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")

_INFINITY = (1 << 63) - 1  # what setrlimit(2) takes for no limit begins above


def set_limits(config: Config) -> None:
    """Apply process.rlimits."""
    for name, pair in config.rlimits.items():
        with At(f"process.rlimits: {name} cannot be {pair[0]}, at most {pair[1]}"):
            soft, hard = (resource.RLIM_INFINITY if limit > _INFINITY else limit for limit in pair)
            try:
                resource.setrlimit(RLIMITS[name], (soft, hard))
            except ValueError as error:  # which is what resource makes of some errors
                raise OSError(0, str(error)) from None


def give_streams(config: Config) -> None:
    """Let process.user open /dev/stdout and the like, where they are pipes or sockets; from outside its namespace."""
    if config.namespaces.get("user"):
        return  # joined: who its users are outside is not known
    for number in range(3):
        kind = os.fstat(number).st_mode
        if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind):
            try:
                os.fchown(number, config.outside_uid, -1)
            except OSError:  # somebody else's, who may not give it away
                pass


def set_user(config: Config) -> None:
    """Become process.user, with no capability in the bounding set but the wanted ones. All others are still there."""
    with At("process.capabilities"):
        for number in CAPABILITIES.values():
            if not config.capabilities["bounding"] >> number & 1 and _is_bounding(number):
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
    with At("process.user"):
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        try:
            os.setgroups(config.additional_gids)
        except PermissionError:
            # A user namespace that was made without root has no say in it, and no groups.
            if config.additional_gids or "user" not in config.namespaces:
                raise
        os.setresgid(config.gid, config.gid, config.gid)
        os.setresuid(config.uid, config.uid, config.uid)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)


def set_capabilities(config: Config) -> list[str]:
    """Give up all capabilities but those of process.capabilities; return those that were wanted and are not there."""
    with At("process.capabilities"):
        wanted = config.capabilities
        _, available, _ = syscalls.capget()
        permitted = wanted["permitted"] & available
        inheritable = wanted["inheritable"] & available
        syscalls.capset(wanted["effective"] & permitted, permitted, inheritable)
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in CAPABILITIES.values():
            # The kernel takes no other into the ambient set.
            if wanted["ambient"] & permitted & inheritable & 1 << number:
                syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
    return [name for name, number in CAPABILITIES.items() if wanted["permitted"] & ~available & 1 << number]


def _is_bounding(number: int) -> bool:
    try:
        return bool(syscalls.prctl(syscalls.PR_CAPBSET_READ, number))
    except OSError:  # a capability that this kernel does not have
        return False
