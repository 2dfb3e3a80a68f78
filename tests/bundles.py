"""Bundles for minirunc, and for runc: the machine's own programs and Python in a root file system of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation_cmd.minirunc.bundle.spec import configuration

from .commands import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Callable

MINIRUNC = str(SCRIPTS / "minirunc")
PYTHON = os.path.realpath(sys.executable)

CAP_SYS_ADMIN = 21
needs_root = not int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16) >> CAP_SYS_ADMIN & 1

# What a container's first process sees, as JSON.
VIEW = """
import json, os, resource, socket, stat, sys

def seen(path):
    status = os.lstat(path)
    link = os.readlink(path) if stat.S_ISLNK(status.st_mode) else None
    return [oct(status.st_mode), status.st_rdev, link, status.st_uid, status.st_gid]

def readable(path):
    if os.path.isdir(path):
        return os.listdir(path)
    try:
        with open(path, "rb") as file:
            return len(file.read(1))
    except OSError as error:
        return error.errno

def opened(path):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno

def writable(path):
    return not os.statvfs(path).f_flag & os.ST_RDONLY

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
mounts = {}
for line in open("/proc/self/mountinfo"):
    left, _, right = line.partition(" - ")
    fields = left.split()
    mounts[fields[4]] = [fields[3].rpartition("/")[2], fields[5], fields[6:], right.split()]
limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
print(json.dumps({
    "pid": os.getpid(),
    "session": os.getsid(0),
    "environment": dict(os.environ),
    "arguments": sys.argv,
    "folder": os.getcwd(),
    "hostname": socket.gethostname(),
    "users": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
    "status": {name: status[name] for name in status if name.startswith(("Cap", "NoNew", "Umask"))},
    # Without 32 and 33, which the C library keeps for itself.
    "signals": {name: int(status[name], 16) & ~(3 << 31) for name in ["SigBlk", "SigIgn", "SigCgt"]},
    "score": open("/proc/self/oom_score_adj").read(),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
    "mounts": mounts,
    "dev": {name: seen(f"/dev/{name}") for name in sorted(os.listdir("/dev"))},
    "masked": {path: readable(path) for path in sys.argv[1].split(":") if os.path.lexists(path)},
    "writable": {path: writable(path) for path in ["/", "/proc/sys", "/sys", "/dev"] if os.path.lexists(path)},
    "streams": [opened(f"/dev/{name}") for name in ["stdout", "stderr", "null", "tty"]],
    "interfaces": sorted(socket.if_nameindex()),
    "loopback": open("/sys/class/net/lo/operstate").read() if os.path.exists("/sys/class/net/lo") else None,
    "sysctl": {name: open(f"/proc/sys/{name}").read() for name in ["net/ipv4/ip_forward", "kernel/msgmax"]},
    "descriptors": [number for number in range(100) if os.path.lexists(f"/proc/self/fd/{number}")],
}))
"""


def python(code: str, *arguments: str) -> list[str]:
    """The command that runs Python code in a bundle."""
    return [PYTHON, "-I", "-S", "-c", code, *arguments]


def bind(path: str | Path, destination: str | Path = "", *options: str) -> dict[str, Any]:
    """A mount that shows a path of the machine in the container."""
    return {
        "destination": str(destination or path),
        "type": "bind",
        "source": str(path),
        "options": ["rbind", *(options or ("ro",))],
    }


def add_bundle(
    folder: Path,
    args: list[str],
    change: Callable[[dict[str, Any]], object] = lambda _: None,
    *,
    rootless: bool = False,
) -> Path:
    """Make a bundle in the folder, whose process is ``args``.

    Args:
        change: what to do to the configuration that ``minirunc spec`` writes, and that shows /usr and Python.
    """
    root = folder / "rootfs"
    for name in ("usr", "etc", "proc", "dev", "sys", "run", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if (Path("/") / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
        elif (Path("/") / name).is_dir():
            (root / name).mkdir()
    config = configuration(rootless=rootless)
    config["process"]["args"] = args
    config["mounts"] += [bind("/usr")]
    config["mounts"] += [bind(f"/{name}") for name in ("bin", "sbin", "lib", "lib64") if (root / name).is_dir()]
    for prefix in sorted({os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}):
        if not Path(prefix).is_relative_to("/usr"):
            config["mounts"].append(bind(prefix))
    change(config)
    write(folder, config)
    return folder


def mounts() -> list[str]:
    """What is mounted on this machine, except by the podman of tests that run at the same time."""
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if "/podman-" not in line]


def write(folder: Path, config: object) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def with_foobard(config: dict[str, Any]) -> None:
    """Show the container this environment's packages, and let foobard be its process."""
    # trio wants a folder for temporary files; what is bound may be below it.
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    paths = [path for path in sys.path if os.path.isdir(path) and not path.startswith("/usr/")]
    prefix = os.path.realpath(sys.base_prefix)
    config["mounts"] += [bind(path) for path in dict.fromkeys(paths) if not Path(path).is_relative_to(prefix)]
    code = f"import sys; sys.path += {paths}; from activation_cmd.foobard.main import main; sys.exit(main())"
    config["process"]["args"] = python(code)
