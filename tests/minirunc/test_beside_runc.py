"""The same bundle under runc and under minirunc: a container sees the same."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import bundles
from tests.bundles import MINIRUNC, VIEW, add_bundle, bind, python
from tests.children import run_activated, tcp_listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

pytestmark = [
    pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)"),
    pytest.mark.skipif(not shutil.which("runc"), reason="there is no runc"),
]


def capabilities(*names: str, **sets: list[str]) -> dict[str, list[str]]:
    return {key: list(names) for key in ("bounding", "effective", "permitted", "inheritable", "ambient")} | sets


def process(**changes: Any) -> Any:
    return lambda config: config["process"].update(changes)


def linux(**changes: Any) -> Any:
    return lambda config: config["linux"].update(changes)


def mounts(*added: dict[str, Any]) -> Any:
    return lambda config: config["mounts"].extend(added)


def mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def without(*kinds: str) -> Any:
    """Without these namespaces: what is the machine's then is seen, not changed."""

    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] not in kinds]
        if "uts" in kinds:
            del config["hostname"]
        if "network" in kinds:
            config["mounts"] = [each for each in config["mounts"] if each["type"] != "sysfs"]
            config["linux"]["maskedPaths"].remove("/sys/firmware")

    return change


def user_namespace(host: int) -> Any:
    def change(config: dict[str, Any]) -> None:
        mapping = [{"containerID": 0, "hostID": host, "size": 65536}]
        config["linux"].update(uidMappings=mapping, gidMappings=mapping)
        config["linux"]["namespaces"].append({"type": "user"})
        # Who makes this one is a detail: the user namespace's root, here, and nobody with runc.
        config["mounts"] = [each for each in config["mounts"] if each["type"] != "mqueue"]

    return change


def writable(config: dict[str, Any]) -> None:
    config["root"]["readonly"] = False


def no_dev(config: dict[str, Any]) -> None:
    config["mounts"] = [each for each in config["mounts"] if not each["destination"].startswith("/dev")]


CASES: dict[str, Any] = {
    "as-spec-has-it": lambda _: None,
    "a-user": process(user={"uid": 1000, "gid": 1001, "additionalGids": [7, 5000], "umask": 0o077}),
    "a-user-of-etc-passwd": process(user={"uid": 33, "gid": 33}),
    "a-home-of-its-own": process(env=["HOME=/tmp", "A=b=c", "EMPTY=", "A=second"]),
    "no-capabilities": process(capabilities=None),
    "some-capabilities": process(capabilities=capabilities("CAP_CHOWN", "CAP_NET_RAW", "CAP_SYS_PTRACE")),
    "ambient-capabilities-of-a-user": process(
        user={"uid": 1000, "gid": 1000}, capabilities=capabilities("CAP_NET_BIND_SERVICE")
    ),
    "effective-is-less-than-permitted": process(
        user={"uid": 1000, "gid": 1000}, capabilities=capabilities("CAP_KILL", ambient=[], effective=[])
    ),
    "new-privileges": process(noNewPrivileges=False),
    "limits": process(
        rlimits=[
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_CPU", "soft": 1000, "hard": (1 << 64) - 1},
        ]
    ),
    "oom-score": process(oomScoreAdj=500),
    "a-folder": process(cwd="/usr/bin"),
    "a-folder-to-be-made": process(cwd="/made/for/it"),
    "writable": writable,
    "dev-of-the-bundle": no_dev,
    "tmpfs": mounts(mount("/run", "tmpfs", "nosuid", "nodev", "size=1m"), mount("/new/one", "tmpfs", "ro")),
    "tmpfs-options": mounts(
        mount("/one", "tmpfs", "silent", "iversion", "nosymfollow", "lazytime", "noatime"),
        mount("/two", "tmpfs", "loud", "noiversion", "nolazytime", "diratime", "sync"),
    ),
    "proc-with-options": lambda config: config["mounts"][0].update(options=["nosuid", "noexec", "nodev"]),
    "bind-options": mounts(
        bind("/usr/share", "/share", "nosuid", "nodev", "noexec", "ro"),
        bind("/usr/share", "/rw", "rw"),
        bind("/usr/share", "/private", "ro", "rprivate"),
        bind("/etc/passwd", "/etc/users", "ro"),
        bind("/dev/null", "/etc/nothing", "rw"),
    ),
    "below-a-link-that-is-absolute": mounts(bind("/usr/share", "/link/share", "ro"), mount("/link/new", "tmpfs")),
    "masked": linux(maskedPaths=["/etc", "/proc/version", "/nowhere"], readonlyPaths=["/tmp", "/proc/1", "/nowhere"]),
    "sysctl": linux(sysctl={"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}),
    "slave": linux(rootfsPropagation="slave"),
    "the-machines-uts-and-ipc": without("uts", "ipc"),
    "the-machines-network": without("network"),
    "cgroup-namespace": lambda config: config["linux"]["namespaces"].append({"type": "cgroup"}),
    "root-is-root-in-a-user-namespace": user_namespace(0),
    "root-is-a-user-in-a-user-namespace": user_namespace(100_000),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can go through, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="minirunc-") as made:
        os.chmod(made, 0o711)
        yield Path(made)


def view(
    command: Sequence[str], bundle: Path, passed: Sequence[socket.socket], env: dict[str, str], *options: str
) -> dict[str, Any]:
    arguments = [*command, "run", "-b", str(bundle), *options, f"view-{os.getpid()}"]
    done = run_activated(f"os.execvp({arguments[0]!r}, {arguments!r})", passed, env)
    assert done.returncode == 0, f"{command[0]}: {done.stderr}"
    seen: dict[str, Any] = json.loads(done.stdout)
    for fields in seen["mounts"].values():
        # Numbers of groups of mounts, and flags that the machine's own file system has.
        fields[2] = [field.rstrip("0123456789") for field in fields[2]]
    return seen


def views(
    folder: Path, change: Any, passed: Sequence[socket.socket] = (), env: dict[str, str] | None = None, *options: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a container sees under minirunc and under runc. Each has a bundle of its own: they leave mount points."""
    seen = []
    for name, command in (("minirunc", MINIRUNC), ("runc", "runc")):
        parent = folder / name
        parent.mkdir(mode=0o711)
        code = python(VIEW, "/proc/keys:/proc/kcore:/proc/acpi:/sys/firmware:/proc/timer_list:/etc:/proc/version")
        bundle = add_bundle(parent / "bundle", code, change)
        (bundle / "rootfs" / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\n")
        (bundle / "rootfs" / "link").symlink_to("/tmp")
        config = json.loads((bundle / "config.json").read_text())
        owner = config["linux"].get("uidMappings", [{"hostID": 0}])[0]["hostID"]
        for path in (bundle / "rootfs", *(bundle / "rootfs").iterdir()):
            os.chown(path, owner, owner, follow_symlinks=False)
        state = parent / "state"
        seen.append(view([command, "--root", str(state)], bundle, passed, env or {}, *options))
        assert list(state.iterdir()) == []
    return seen[0], seen[1]


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Where two views differ, member by member."""
    found: dict[str, Any] = {}
    for key in ours.keys() | theirs.keys():
        one, other = ours.get(key), theirs.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found |= {f"{key} {name}": pair for name, pair in differences(one, other).items()}
        elif one != other:
            found[key] = (one, other)
    return found


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_a_container_sees_the_same(folder: Path, change: Any) -> None:
    ours, theirs = views(folder, change)
    assert differences(ours, theirs) == {}


def test_of_the_descriptors_it_sees_their_names_too(folder: Path) -> None:
    env = {"LISTEN_PID": "self", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:admin"}
    with tcp_listener() as one, tcp_listener() as two, tcp_listener() as three:
        ours, theirs = views(folder, lambda _: None, [one, two, three], env, "--preserve-fds=1")
    assert ours["descriptors"] == [0, 1, 2, 3, 4, 5]
    assert ours["environment"]["LISTEN_FDS"] == "2"
    assert differences(ours, theirs) == {"environment LISTEN_FDNAMES": ("web:admin", None)}
