"""The options of mounts, as mount(8) and the OCI runtime specification name them."""

from __future__ import annotations

RDONLY, NOSUID, NODEV, NOEXEC, NOATIME, STRICTATIME, NODIRATIME, NOSYMFOLLOW = 1, 2, 4, 8, 0x10, 0x20, 0x80, 0x200000
ATIME = 0x70
"""The bits of which NOATIME and STRICTATIME are values; relatime is the value 0."""
RESTRICTIONS = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW

ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (RDONLY, 0),
    "rw": (0, RDONLY),
    "nosuid": (NOSUID, 0),
    "suid": (0, NOSUID),
    "nodev": (NODEV, 0),
    "dev": (0, NODEV),
    "noexec": (NOEXEC, 0),
    "exec": (0, NOEXEC),
    "nosymfollow": (NOSYMFOLLOW, 0),
    "symfollow": (0, NOSYMFOLLOW),
    "nodiratime": (NODIRATIME, 0),
    "diratime": (0, NODIRATIME),
    "noatime": (NOATIME, ATIME),
    "strictatime": (STRICTATIME, ATIME),
    "relatime": (0, ATIME),
    "atime": (0, ATIME),
    "norelatime": (0, 0),
    "nostrictatime": (0, ATIME),
}
"""The attributes of mount_setattr(2) that an option sets, and those that it clears first.

With an r in front (``rro``), an option holds for every mount below as well.
"""

SUPER = {"ro": "rw", "sync": "async", "dirsync": "", "mand": "nomand", "lazytime": "nolazytime"}
"""Options of the file system itself, not of one mount of it, each with the option that takes it back."""

BIND = {"bind": False, "rbind": True}
"""The options, and the types, of a bind; and whether it takes along what is mounted below its source."""

MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED, "unbindable": MS_UNBINDABLE}
"""How mounts propagate, mount_namespaces(7). With an r in front, also those below."""

WITHOUT_EFFECT = frozenset(("", "defaults", "silent", "loud", "iversion", "noiversion"))
"""Words that change nothing: the kernel's file systems count versions whenever they can."""

COPY_UP = "tmpcopyup"
"""Copies into a tmpfs what it covers."""

NOT_APPLIED = {"idmap": "idmap", "ridmap": "idmap"}
"""Options that runc has and minirunc does not, with their groups for --permissive."""
