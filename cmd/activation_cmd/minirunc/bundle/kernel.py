"""The kernel's numbers for the words of config.json: namespaces, capabilities and resource limits.

They stand here, beside what reads config.json, because the process that becomes the container uses them as well:
``container`` imports ``bundle``, never the other way.
"""

from __future__ import annotations

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 1 << 7, 1 << 17, 1 << 25, 1 << 26
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 1 << 27, 1 << 28, 1 << 29, 1 << 30

NAMESPACES = {
    "pid": CLONE_NEWPID,
    "mount": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "network": CLONE_NEWNET,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}

SYSCTLS = {
    "net/": "network",
    "fs/mqueue/": "ipc",
    "kernel/msg": "ipc",
    "kernel/sem": "ipc",
    "kernel/shm": "ipc",
    "kernel/domainname": "uts",
}
"""Which namespace has the parameters whose files below /proc/sys begin like this."""

# In the order of their numbers, from 0: getrlimit(2), capabilities(7).
_LIMITS = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME"
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)

RLIMITS = {f"RLIMIT_{name}": number for number, name in enumerate(_LIMITS.split())}
CAPABILITIES = {f"CAP_{name}": number for number, name in enumerate(_CAPABILITIES.split())}
CAPABILITY_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")

LARGEST_ID = (1 << 32) - 2
"""The largest number of a user or a group: the one above it, -1, stands for none."""
