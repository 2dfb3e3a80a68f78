"""config.json of a bundle, as the OCI runtime specification has it: checked, before anything is started."""

from __future__ import annotations

import os

from activation_cmd.minirunc.container.privileges import CAPABILITIES, CAPABILITY_SETS, RLIMITS
from activation_cmd.minirunc.container.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MS_BIND,
    MS_SHARED,
)

from .documents import read
from .mount_options import CLEAR, NOT_APPLIED, PROPAGATION, SET
from .values import BundleError, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

NAMESPACES = {
    "pid": CLONE_NEWPID,
    "mount": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "network": CLONE_NEWNET,
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
}
CGROUP_MOUNTS = ("cgroup", "cgroup2")

UNAPPLIED = (
    *("process.apparmorProfile", "process.selinuxLabel", "process.consoleSize", "process.ioPriority"),
    *("process.scheduler", "process.execCPUAffinity", "hooks", "domainname"),
    *("linux.seccomp", "linux.resources", "linux.cgroupsPath", "linux.devices", "linux.intelRdt"),
    *("linux.mountLabel", "linux.personality", "linux.timeOffsets", "linux.netDevices", "linux.memoryPolicy"),
)
"""What the specification has and minirunc does not apply."""

SYSCTLS = {
    "net/": "network",
    "fs/mqueue/": "ipc",
    "kernel/msg": "ipc",
    "kernel/sem": "ipc",
    "kernel/shm": "ipc",
    "kernel/domainname": "uts",
}
"""Which namespace has the parameters whose files below /proc/sys begin so."""

LARGEST_ID = (1 << 32) - 2  # -1 stands for none


class Mount:
    """One of ``mounts``."""

    __slots__ = ("data", "destination", "flags", "kind", "path", "propagation", "source")

    def __init__(self, value: Value, unapplied: list[str]) -> None:
        self.path = value.path
        self.destination = os.path.normpath("/" + value["destination"].absolute_path().lstrip("/"))
        if self.destination == "/":
            raise value["destination"].wrong("a path below the root; root.path is what is there")
        unapplied.extend(value[key].path for key in ("uidMappings", "gidMappings") if value[key].raw)
        self.flags, self.propagation, data = 0, list[int](), list[str]()
        for option in value["options"].array():
            word = option.string()
            if word in SET:
                self.flags |= SET[word]
            elif word in CLEAR:
                self.flags &= ~CLEAR[word]
            elif word in PROPAGATION:
                self.propagation.append(PROPAGATION[word])
            elif word in NOT_APPLIED:
                unapplied.append(f"{option.path} {word}")
            else:
                data.append(word)
        kind = value["type"]
        self.kind = kind.string("bind" if self.is_bind else None, "a file system's type")
        if self.kind in ("bind", "rbind"):
            self.flags |= SET[self.kind]
        if self.is_bind:
            unapplied.extend(f"{value.path} option {word}" for word in data)
        self.source = value["source"].string(None if self.is_bind else self.kind)
        self.data = ",".join(data)

    @property
    def is_bind(self) -> bool:
        return bool(self.flags & MS_BIND)


class Config:
    """What a bundle asks for, checked as far as it can be without starting anything.

    Attributes:
        bundle: the bundle's folder, an absolute path.
        unapplied: what is in the configuration and will not be applied, as paths of keys.
        namespaces: the path of each that is to be joined, by type; "" for a new one.
    """

    def __init__(self, bundle: str, document: Any) -> None:
        config = Value("", document).required()
        self.bundle = bundle
        self.version = config["ociVersion"].string(expected='a version, such as "1.0.2"')
        if self.version.partition(".")[0] != "1":
            raise config["ociVersion"].wrong('version 1 of the specification, such as "1.0.2"')
        self.unapplied = [path for path in UNAPPLIED if _at(config, path)]
        self.annotations = {key: value.string() for key, value in config["annotations"].members()}

        self._read_linux(config["linux"])
        self._read_process(config["process"].required())
        self._read_root(config["root"].required())
        self.hostname = config["hostname"].string("")
        if self.hostname and "uts" not in self.namespaces:
            raise config["hostname"].wrong("none without uts in linux.namespaces: it would be the machine's own")
        mounts = [Mount(value, self.unapplied) for value in config["mounts"].array()]
        self.mounts = [mount for mount in mounts if mount.kind not in CGROUP_MOUNTS]

    @property
    def own_pid_namespace(self) -> bool:
        """Whether the container's process is the first of a new PID namespace."""
        return self.namespaces.get("pid") == ""

    @property
    def own_user_namespace(self) -> bool:
        return self.namespaces.get("user") == ""

    @property
    def outside_uid(self) -> int:
        """The number that process.user.uid stands for on the machine."""
        for inside, outside, size in self.uid_mappings:
            if inside <= self.uid < inside + size:
                return outside + self.uid - inside
        return self.uid

    def _read_root(self, root: Value) -> None:
        path = root["path"]
        self.rootfs = os.path.realpath(os.path.join(self.bundle, path.string(expected="the path of a folder")))
        if not os.path.isdir(self.rootfs):
            raise path.wrong(f"a folder; {self.rootfs} is none")
        self.readonly = root["readonly"].boolean()

    def _read_process(self, process: Value) -> None:
        if process["terminal"].boolean():
            raise process["terminal"].wrong(
                "false: the container has the standard streams of minirunc, which makes no pseudoterminals"
            )
        self.args = process["args"].strings()
        if not self.args or not self.args[0]:
            raise process["args"].wrong("the program and its arguments")
        self.env = dict(_variable(item) for item in process["env"].array())
        self.cwd = os.path.normpath(process["cwd"].absolute_path())
        self.no_new_privileges = process["noNewPrivileges"].boolean()
        score = process["oomScoreAdj"]
        self.oom_score_adj = None if score.raw is None else score.integer(-1000, 1000)

        user = process["user"]
        self.uid, self.gid = (user[key].integer(0, LARGEST_ID, 0) for key in ("uid", "gid"))
        self.additional_gids = [item.integer(0, LARGEST_ID) for item in user["additionalGids"].array()]
        self.umask = user["umask"].integer(0, 0o777, 0o022)
        if self.own_user_namespace:
            _check_mapped(user["uid"], [self.uid], self.uid_mappings, "uidMappings")
            _check_mapped(user["gid"], [self.gid], self.gid_mappings, "gidMappings")
            _check_mapped(user["additionalGids"], self.additional_gids, self.gid_mappings, "gidMappings")

        self.rlimits: dict[str, tuple[int, int]] = {}
        for limit in process["rlimits"].array():
            name = limit["type"].one_of(RLIMITS)
            if name in self.rlimits:
                raise limit["type"].wrong("each limit once")
            hard = limit["hard"].integer(0, (1 << 64) - 1)
            self.rlimits[name] = limit["soft"].integer(0, hard), hard

        self.capabilities = dict.fromkeys(CAPABILITY_SETS, 0)
        for name in CAPABILITY_SETS:
            for item in process["capabilities"][name].array():
                if (capability := item.string()) in CAPABILITIES:
                    self.capabilities[name] |= 1 << CAPABILITIES[capability]
                else:
                    self.unapplied.append(f"{item.path} {capability}")

    def _read_linux(self, linux: Value) -> None:
        self.namespaces: dict[str, str] = {}
        for namespace in linux["namespaces"].array():
            kind = namespace["type"].one_of(NAMESPACES)
            if kind in self.namespaces:
                raise namespace["type"].wrong("each namespace once")
            path = namespace["path"]
            self.namespaces[kind] = path.absolute_path() if path.raw else ""
        if "mount" not in self.namespaces:
            raise linux["namespaces"].wrong("mount among them: the container's mounts would be the machine's")

        self.uid_mappings = [_mapping(item) for item in linux["uidMappings"].array()]
        self.gid_mappings = [_mapping(item) for item in linux["gidMappings"].array()]
        for key, mappings in (("uidMappings", self.uid_mappings), ("gidMappings", self.gid_mappings)):
            if self.own_user_namespace and not mappings:
                raise linux[key].wrong("what the numbers of the new user namespace stand for")
            if mappings and "user" not in self.namespaces:
                raise linux[key].wrong("none without a user namespace in linux.namespaces")

        self.masked_paths = linux["maskedPaths"].absolute_paths()
        self.readonly_paths = linux["readonlyPaths"].absolute_paths()
        propagation = linux["rootfsPropagation"]
        self.propagation = PROPAGATION[propagation.one_of(PROPAGATION)] if propagation.raw else 0
        if self.propagation & MS_SHARED:
            self.unapplied.append(f"{propagation.path} {propagation.raw} towards the machine")
        self.sysctl = dict(self._sysctl(key, value) for key, value in linux["sysctl"].members())

    def _sysctl(self, key: str, value: Value) -> tuple[str, str]:
        """The file below /proc/sys and what to write: only what is the container's own."""
        file = key if "/" in key else key.replace(".", "/")
        namespace = next((SYSCTLS[start] for start in SYSCTLS if file.startswith(start)), "")
        if self.namespaces.get(namespace) != "" or ".." in file.split("/"):
            raise value.wrong(
                f"no such parameter without a new {namespace} namespace: it would be the machine's"
                if namespace
                else "parameters of the network, ipc and uts namespaces only; this one is the whole machine's"
            )
        return file, value.string()


def load(bundle: str) -> Config:
    """Read the bundle's configuration.

    Raises:
        BundleError: it is none, or asks for what cannot be.
    """
    path = os.path.join(os.path.abspath(bundle), "config.json")
    try:
        return Config(os.path.dirname(path), read(path))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; expected a bundle, as minirunc spec begins one") from None
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def _at(config: Value, path: str) -> object:
    """What is there, or something false. What is in the way is looked at later, by whoever reads that."""
    raw = config.raw
    for key in path.split("."):
        raw = raw.get(key) if isinstance(raw, dict) else None
    return raw


def _variable(item: Value) -> tuple[str, str]:
    name, equals, value = item.string().partition("=")
    if not (name and equals):
        raise item.wrong("NAME=value")
    return name, value


def _mapping(item: Value) -> tuple[int, int, int]:
    inside, outside = (item[key].integer(0, LARGEST_ID) for key in ("containerID", "hostID"))
    return inside, outside, item["size"].integer(1, LARGEST_ID + 1)


def _check_mapped(value: Value, ids: Iterable[int], mappings: Iterable[tuple[int, int, int]], key: str) -> None:
    for number in ids:
        if not any(inside <= number < inside + size for inside, _, size in mappings):
            raise Value(value.path, number).wrong(f"a number that linux.{key} has")
