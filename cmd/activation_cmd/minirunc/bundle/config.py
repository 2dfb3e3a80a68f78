"""The config.json of a bundle, in the format of the OCI runtime specification."""

from __future__ import annotations

import os

from .documents import read
from .kernel import LARGEST_ID, NAMESPACES, SYSCTLS
from .mount_options import MS_SHARED, PROPAGATION
from .mounts import Mount
from .process import Process
from .unapplied import CGROUPS, Unapplied
from .values import BundleError, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CGROUP_MOUNTS = ("cgroup", "cgroup2")
_CLOCKS = ("monotonic", "boottime")


class Config:
    """What a bundle asks for, checked as far as that is possible without starting anything.

    Attributes:
        bundle: the bundle's folder, an absolute path.
        rootfs: the folder of root.path, an absolute path without links.
        namespaces: the path of each that is to be joined, by type; "" for a new one.
        time_offsets: seconds and nanoseconds by the names of clocks.
        propagation: the root's, one of PROPAGATION's flags, and whether it holds for what is below; None for no change.
    """

    def __init__(self, bundle: str, document: Any) -> None:
        config = Value("", document).required()
        self.bundle = bundle
        self.version = config["ociVersion"].string(expected='a version, such as "1.0.2"')
        if self.version.partition(".")[0] != "1":
            raise config["ociVersion"].wrong('version 1 of the specification, such as "1.0.2"')
        self.unapplied = Unapplied()
        self.unapplied.add_keys(config)
        self.annotations = {key: value.string() for key, value in config["annotations"].members()}

        self._read_linux(config["linux"])
        self.process = Process(config["process"].required(), self.unapplied)
        if self.own_user_namespace:
            self._check_mapped(config["process"]["user"])
        self._read_root(config["root"].required())
        self.hostname, self.domainname = (self._name(config[key]) for key in ("hostname", "domainname"))
        mounts = [Mount(value, self.unapplied) for value in config["mounts"].array()]
        self.mounts = [mount for mount in mounts if mount.kind not in CGROUP_MOUNTS]
        for mount in mounts:
            if mount.kind in CGROUP_MOUNTS:
                self.unapplied.add(CGROUPS, f"{mount.path} ({mount.kind})")

    @property
    def own_pid_namespace(self) -> bool:
        """Whether the container's process is the first of a new PID namespace."""
        return self.namespaces.get("pid") == ""

    @property
    def own_user_namespace(self) -> bool:
        return self.namespaces.get("user") == ""

    @property
    def outside_uid(self) -> int:
        """The number of process.user.uid outside the container's user namespace."""
        uid = self.process.uid
        for inside, outside, size in self.uid_mappings:
            if inside <= uid < inside + size:
                return outside + uid - inside
        return uid

    def _name(self, value: Value) -> str:
        """Return the hostname or the domainname."""
        name = value.string("")
        if name and "uts" not in self.namespaces:
            raise value.wrong("none without uts in linux.namespaces: it would be the machine's own")
        return name

    def _check_mapped(self, user: Value) -> None:
        process = self.process
        _check_mapped(user["uid"], [process.uid], self.uid_mappings, "uidMappings")
        _check_mapped(user["gid"], [process.gid], self.gid_mappings, "gidMappings")
        _check_mapped(user["additionalGids"], process.additional_gids, self.gid_mappings, "gidMappings")

    def _read_root(self, root: Value) -> None:
        path = root["path"]
        self.rootfs = os.path.realpath(os.path.join(self.bundle, path.string(expected="the path of a folder")))
        if not os.path.isdir(self.rootfs):
            raise path.wrong(f"a folder; {self.rootfs} is not one")
        self.readonly = root["readonly"].boolean()

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
        self._read_propagation(linux["rootfsPropagation"])
        self._read_time_offsets(linux["timeOffsets"])
        self.sysctl = dict(self._sysctl(key, value) for key, value in linux["sysctl"].members())

    def _read_propagation(self, value: Value) -> None:
        self.propagation: tuple[int, bool] | None = None
        if value.raw in (None, ""):
            return
        word = value.one_of((*PROPAGATION, *(f"r{each}" for each in PROPAGATION)))
        self.propagation = PROPAGATION[word if word in PROPAGATION else word[1:]], word not in PROPAGATION
        if self.propagation[0] == MS_SHARED:
            self.unapplied.add("propagation", f"{value.path} ({word} towards the machine)")

    def _read_time_offsets(self, value: Value) -> None:
        self.time_offsets: dict[str, tuple[int, int]] = {}
        for clock, offset in value.members():
            if clock not in _CLOCKS:
                raise offset.wrong(f"no such clock; expected one of {', '.join(_CLOCKS)}")
            seconds = offset["secs"].integer(-(1 << 62), 1 << 62, 0)
            self.time_offsets[clock] = seconds, offset["nanosecs"].integer(0, 999_999_999, 0)
        if self.time_offsets and self.namespaces.get("time") != "":
            raise value.wrong("none without a new time namespace in linux.namespaces")

    def _sysctl(self, key: str, value: Value) -> tuple[str, str]:
        """Return the file below /proc/sys and its new value. It must belong to a new namespace of the container."""
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
        BundleError: there is no valid configuration.
    """
    path = os.path.join(os.path.abspath(bundle), "config.json")
    try:
        return Config(os.path.dirname(path), read(path))
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; expected a bundle, as minirunc spec begins one") from None
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def _mapping(item: Value) -> tuple[int, int, int]:
    inside, outside = (item[key].integer(0, LARGEST_ID) for key in ("containerID", "hostID"))
    return inside, outside, item["size"].integer(1, LARGEST_ID + 1)


def _check_mapped(value: Value, ids: Iterable[int], mappings: Iterable[tuple[int, int, int]], key: str) -> None:
    for number in ids:
        if not any(inside <= number < inside + size for inside, _, size in mappings):
            raise Value(value.path, number).wrong(f"a number that linux.{key} has")
