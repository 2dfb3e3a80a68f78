"""Processes by their numbers, which the kernel uses again: each is told from others by when it was started."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def started(pid: int | str) -> str | None:
    """When the process was started, by the kernel's clock; None where there is none, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:  # a process may have any name
            fields = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[19] if fields[0] not in "ZX" else None


def mount_namespace(pid: int | str) -> int | None:
    """The inode number of a process's mount namespace; None if the process has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return None


def members(document: dict[str, Any]) -> Iterator[int]:
    """The processes of a container, of whose state ``document`` tells; the first one may have ended.

    There is no cgroup that has them all. They are in the container's PID namespace, as long as its first process lives.
    Without a PID namespace of its own, they are in its mount namespace, with its root, and younger than that process.
    """
    own_pid_namespace = None
    if document["own_pid_namespace"] and document["pid"] and started(document["pid"]) == document["start_time"]:
        own_pid_namespace = _pid_namespace(document["pid"])
    for name in filter(str.isdecimal, os.listdir("/proc")):
        if document["own_pid_namespace"]:
            belongs = own_pid_namespace is not None and _pid_namespace(name) == own_pid_namespace
        else:
            began = started(name)
            belongs = (
                document["mount_namespace"] is not None
                and mount_namespace(name) == document["mount_namespace"]
                and _root(name) == document["root_file"]
                and began is not None
                and document["start_time"] is not None
                and int(began) >= int(document["start_time"])
            )
        if belongs:
            yield int(name)


def _pid_namespace(pid: int | str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def _root(pid: int | str) -> list[int] | None:
    try:
        status = os.stat(f"/proc/{pid}/root")
    except OSError:
        return None
    return [status.st_dev, status.st_ino]
