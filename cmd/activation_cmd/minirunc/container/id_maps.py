"""Writes the mappings of a new user namespace, which is done from outside: user_namespaces(7)."""

from __future__ import annotations

import os

from activation_cmd.minirunc.bundle.values import At, BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from activation_cmd.minirunc.bundle.config import Config


def write(pid: int, config: Config) -> None:
    """Write the mappings of the process's new user namespace."""
    for which, mappings, own in (
        ("uid", config.uid_mappings, os.geteuid()),
        ("gid", config.gid_mappings, os.getegid()),
    ):
        with At(f"linux.{which}Mappings"):
            if os.geteuid() == 0:
                _write(f"/proc/{pid}/{which}_map", mappings)
            elif [mapping[1:] for mapping in mappings] == [(own, 1)]:
                if which == "gid":
                    with open(f"/proc/{pid}/setgroups", "w") as file:
                        file.write("deny")  # or a process could leave a group that denies it something
                _write(f"/proc/{pid}/{which}_map", mappings)
            else:
                _run_helper(f"new{which}map", pid, mappings, own)


def _write(path: str, mappings: list[tuple[int, int, int]]) -> None:
    text = "\n".join(" ".join(map(str, mapping)) for mapping in mappings)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())  # the kernel takes only one write
    finally:
        os.close(descriptor)


def _run_helper(helper: str, pid: int, mappings: list[tuple[int, int, int]], own: int) -> None:
    command = [helper, *(str(number) for number in (pid, *(number for mapping in mappings for number in mapping)))]
    reading, writing = os.pipe()
    with open(reading, errors="replace") as told:
        try:
            said = [(os.POSIX_SPAWN_DUP2, writing, 2)]
            spawned = os.posix_spawnp(helper, command, os.environ, file_actions=said)
        except FileNotFoundError:
            raise BundleError(
                f"linux.{helper[3:6]}Mappings take {helper} (of the package uidmap), which is not installed; "
                f"expected it, or one mapping of size 1 to the hostID {own}"
            ) from None
        finally:
            os.close(writing)
        why = " ".join(told.read().split()) or f"{helper} failed"
    if os.waitpid(spawned, 0)[1]:
        raise BundleError(f"linux.{helper[3:6]}Mappings: {why}; expected what /etc/sub{helper[3:6]} allows")
