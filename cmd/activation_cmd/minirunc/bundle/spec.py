"""minirunc spec: writes a configuration to start from. minirunc applies all of it."""

from __future__ import annotations

import json
import os
from typing import Any, Final

VERSION: Final = "1.0.2"
"""Of the OCI runtime specification."""

_CAPABILITIES: Final = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
_QUIET: Final = ["nosuid", "noexec", "nodev"]
_PTS: Final = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]


def write(bundle: str, *, rootless: bool) -> int:
    """Write config.json into the bundle's folder.

    Raises:
        FileExistsError: there is a config.json already.
    """
    with open(os.path.join(bundle, "config.json"), "x") as file:
        json.dump(configuration(rootless=rootless), file, indent="\t")
        file.write("\n")
    return 0


def configuration(*, rootless: bool) -> dict[str, Any]:
    """Return the configuration of ``runc spec``, without a terminal and cgroups, and without what runc cannot apply."""
    namespaces = ["pid", "ipc", "uts", "mount", *(["user"] if rootless else ["network"])]
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "minirunc",
        "mounts": [
            _mount("/proc", "proc", "proc"),
            _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "devpts", *_PTS, *([] if rootless else ["gid=5"])),
            _mount("/dev/shm", "tmpfs", "shm", *_QUIET, "mode=1777", "size=65536k"),  # noqa: S108  # inside
            _mount("/dev/mqueue", "mqueue", "mqueue", *_QUIET),
            # A sysfs belongs to a network namespace, and a rootless container has none of its own.
            _mount("/sys", "none", "/sys", "rbind", *_QUIET, "ro")
            if rootless
            else _mount("/sys", "sysfs", "sysfs", *_QUIET, "ro"),
        ],
        "linux": {
            **(_own_id() if rootless else {}),
            "namespaces": [{"type": kind} for kind in namespaces],
            "maskedPaths": [
                *(f"/proc/{name}" for name in ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list")),
                *(f"/proc/{name}" for name in ("timer_stats", "sched_debug", "scsi")),
                "/sys/firmware",
            ],
            "readonlyPaths": [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")],
        },
    }


def _mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source} | ({"options": options} if options else {})


def _own_id() -> dict[str, Any]:
    return {
        f"{which}Mappings": [{"containerID": 0, "hostID": number, "size": 1}]
        for which, number in (("uid", os.geteuid()), ("gid", os.getegid()))
    }
