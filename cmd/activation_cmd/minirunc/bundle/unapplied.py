"""What a configuration asks for and minirunc does not do.

Each such thing has a group. It is an error, unless ``--permissive`` names the group: a container that runs without its
seccomp filter, say, is not the container that was asked for. Cgroup limits alone are only mentioned, as a rootless
runc does, because every bundle that ``runc spec`` writes has some.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from .values import Value

CGROUPS = "cgroups"
"""The group that is no error unless --strict says so."""

KEYS = {
    "linux.seccomp": "seccomp",
    "process.apparmorProfile": "apparmor",
    "process.selinuxLabel": "selinux",
    "linux.mountLabel": "selinux",
    "linux.resources": CGROUPS,
    "linux.cgroupsPath": CGROUPS,
    "linux.intelRdt": "intelrdt",
    "linux.devices": "devices",
    "linux.netDevices": "netdevices",
    "linux.personality": "personality",
    "linux.memoryPolicy": "mempolicy",
    "process.ioPriority": "scheduling",
    "process.scheduler": "scheduling",
    "process.execCPUAffinity": "scheduling",
    "hooks": "hooks",
}
"""The keys that minirunc does not apply, and their groups."""

GROUPS = (*dict.fromkeys(KEYS.values()), "capabilities", "idmap", "propagation")
"""The names that --permissive takes."""


class Unapplied:
    """What of one configuration is not applied."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, group: str, what: str) -> None:
        """Note a thing, told by the path of its key."""
        self._found.append((group, what))

    def add_keys(self, config: Value) -> None:
        """Note which of KEYS the configuration has."""
        for path, group in KEYS.items():
            raw = config.raw
            for key in path.split("."):
                # What stands in the way is reported by whoever reads that.
                raw = raw.get(key) if isinstance(raw, dict) else None
            if raw:
                self.add(group, path)

    def told(self) -> list[str]:
        """All of it."""
        return [what for _, what in self._found]

    def refused(self, permissive: Collection[str], *, strict: bool) -> dict[str, list[str]]:
        """What must not be passed over, by group."""
        refused: dict[str, list[str]] = {}
        for group, what in self._found:
            if group not in permissive and (strict or group != CGROUPS):
                refused.setdefault(group, []).append(what)
        return refused
