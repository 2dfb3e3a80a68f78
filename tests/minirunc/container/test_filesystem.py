"""The container's file system: an image leads nowhere but into itself, and what is to be read only is that."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import bundles
from tests.bundles import MINIRUNC, PYTHON, add_bundle, bind, python
from tests.commands import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    Change = Callable[[dict[str, Any]], object]

pytestmark = pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")


def run_box(tmp_path: Path, *before: str) -> subprocess.CompletedProcess[str]:
    """Run the bundle in ``tmp_path``; ``before`` is a command that executes minirunc."""
    done = run(*before, MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path / "bundle"), "box")
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()  # type: ignore[assignment]
    return done  # type: ignore[return-value]


def add(tmp_path: Path, args: list[str], change: Change = lambda _: None) -> Path:
    """Make the bundle; return its root."""
    return add_bundle(tmp_path / "bundle", args, change) / "rootfs"


def without_dev(config: dict[str, Any]) -> None:
    config["mounts"] = [mount for mount in config["mounts"] if not mount["destination"].startswith("/dev")]


def through_proc(path: Path) -> str:
    """A link to a folder of the machine, by way of the working directory or the root of whoever follows it."""
    return f"/proc/self/cwd{path}"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("way", ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/thread-self/cwd"])
def test_no_working_directory_is_made_outside(tmp_path: Path, outside: Path, way: str) -> None:
    root = add(tmp_path, ["/usr/bin/true"], lambda config: config["process"].update(cwd="/work/x"))
    (root / "work").symlink_to(f"{way}{outside}")
    run_box(tmp_path)
    assert list(outside.iterdir()) == []


def test_no_devices_are_made_outside_and_no_file_there_is_replaced(tmp_path: Path, outside: Path) -> None:
    root = add(tmp_path, ["/usr/bin/true"], without_dev)
    (root / "dev").rmdir()
    (root / "dev").symlink_to(through_proc(outside))
    (outside / "ptmx").write_text("the machine's")
    run_box(tmp_path)
    assert os.listdir(outside) == ["ptmx"]
    assert (outside / "ptmx").read_text() == "the machine's"


@pytest.mark.parametrize("number", range(3, 12))
def test_nothing_is_mounted_through_a_descriptor_of_minirunc(tmp_path: Path, outside: Path, number: int) -> None:
    mount = {"destination": f"/fds/{number}{outside}/made", "type": "tmpfs", "source": "tmpfs"}
    root = add(tmp_path, ["/usr/bin/true"], lambda config: config["mounts"].append(mount))
    (root / "fds").symlink_to("/proc/self/fd")
    run_box(tmp_path)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", ["a link", "a file"])
def test_what_is_masked_is_masked_by_the_device_or_not_at_all(tmp_path: Path, outside: Path, kind: str) -> None:
    def change(config: dict[str, Any]) -> None:
        without_dev(config)
        config["root"]["readonly"] = False
        config["linux"]["maskedPaths"] = ["/etc/secret"]
        config["mounts"].append(bind(outside, "/outside", "ro"))

    root = add(tmp_path, ["/bin/sh", "-c", "echo written >/etc/secret"], change)
    (root / "etc" / "secret").write_text("secret")
    (outside / "file").write_text("the machine's")
    if kind == "a link":
        (root / "dev" / "null").symlink_to("/outside/file")
    else:
        (root / "dev" / "null").touch()
    done = run_box(tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert (outside / "file").read_text() == "the machine's"
    assert kind == "a link" or (root / "dev" / "null").read_text() == ""


@pytest.mark.parametrize("destination", ["/proc", "/sys"])
@pytest.mark.parametrize("how", ["mounted", "bound", "below a link"])
def test_proc_and_sys_are_no_links(tmp_path: Path, outside: Path, destination: str, how: str) -> None:
    def change(config: dict[str, Any]) -> None:
        if how == "bound":
            config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != destination]
            config["mounts"].append(bind(outside, destination))
        elif how == "below a link":
            (mount,) = (mount for mount in config["mounts"] if mount["destination"] == destination)
            mount["destination"] = f"/link{destination}"

    root = add(tmp_path, ["/usr/bin/true"], change)
    if how == "below a link":
        (root / "link").symlink_to("tmp")
    else:
        (root / destination[1:]).rmdir()
        (root / destination[1:]).symlink_to("tmp")
    done = run_box(tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is a symbolic link in the container, or below one; expected an ordinary folder" in done.stderr
    assert list((root / "tmp").iterdir()) == []


@pytest.mark.parametrize("way", ["itself", "a link", "a script", "a script that cannot be read"])
def test_the_program_is_not_minirunc_s_own_interpreter(tmp_path: Path, way: str) -> None:
    name = "/proc/self/exe" if way == "itself" else "/program"
    root = add(tmp_path, [name, "-c", "print('it runs')"])
    if way == "a link":
        (root / "program").symlink_to("/proc/self/exe")
    elif way != "itself":
        (root / "program").write_text("#! /proc/self/exe\nprint('it runs')\n")
        (root / "program").chmod(0o755 if way == "a script" else 0o111)
    done = run_box(tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "/proc/self/exe leads through a link in /proc" in done.stderr or way == "a link"


def test_a_script_runs(tmp_path: Path) -> None:
    root = add(tmp_path, ["program", "an argument"], lambda c: c["process"].update(env=["PATH=/nowhere:/opt:/usr/bin"]))
    (root / "opt").mkdir()
    (root / "opt" / "program").write_text('#!/bin/sh\necho "$0 $1"\n')
    (root / "opt" / "program").chmod(0o755)
    assert run_box(tmp_path).stdout == "/opt/program an argument\n"


@pytest.mark.parametrize("kind", ["endless", "a pipe", "large"])
def test_a_file_of_users_that_never_ends_holds_up_nothing(tmp_path: Path, kind: str) -> None:
    root = add(tmp_path, ["/bin/sh", "-c", "echo $HOME"])
    if kind == "endless":
        (root / "etc" / "passwd").symlink_to("/dev/zero")
    elif kind == "a pipe":
        os.mkfifo(root / "etc" / "passwd")
    else:
        (root / "etc" / "passwd").touch()
        os.truncate(root / "etc" / "passwd", 1 << 40)
    assert run_box(tmp_path).stdout == "/\n"


def test_a_parameter_is_written_to_the_kernel_or_not_at_all(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/proc"]
        config["linux"].update(sysctl={"net.ipv4.ip_forward": "1"}, maskedPaths=[], readonlyPaths=[])

    root = add(tmp_path, ["/usr/bin/true"], change)
    (root / "proc" / "sys" / "net" / "ipv4").mkdir(parents=True)
    (root / "proc" / "sys" / "net" / "ipv4" / "ip_forward").touch()
    done = run_box(tmp_path)
    assert done.returncode == 1
    assert "linux.sysctl (net/ipv4/ip_forward): /proc/sys is of another file system" in done.stderr


WRITE = """
import os, sys
for path in sys.argv[1:]:
    try:
        open(path + "/written", "w")
        print(path, "is written to")
    except OSError as error:
        print(path, error.strerror)
    flags = os.statvfs(path).f_flag
    print(*(name for name in ("nosuid", "nodev", "noexec") if flags & getattr(os, "ST_" + name.upper())))
"""


def with_a_mount_below(folder: Path) -> tuple[str, ...]:
    """A command that executes another one, for which something is mounted below the folder."""
    (folder / "below").mkdir()
    return ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs below "$0/below" && exec "$@"', str(folder))


@pytest.mark.parametrize("options", [["rbind", "ro"], ["rbind", "rro"], ["ro", "bind", "rbind"]], ids=",".join)
def test_nothing_below_a_read_only_mount_can_be_written(tmp_path: Path, outside: Path, options: list[str]) -> None:
    mount = {"destination": "/outside", "source": str(outside), "options": options}
    add(tmp_path, python(WRITE, "/outside", "/outside/below"), lambda config: config["mounts"].append(mount))
    done = run_box(tmp_path, *with_a_mount_below(outside))
    assert done.stderr == ""
    assert done.stdout == "/outside Read-only file system\n\n/outside/below Read-only file system\n\n"


@pytest.mark.parametrize("options", [["nosuid", "nodev", "noexec"], ["rnosuid", "rnodev", "rnoexec"]], ids=",".join)
def test_what_restricts_a_mount_restricts_what_is_below(tmp_path: Path, outside: Path, options: list[str]) -> None:
    mount = {"destination": "/outside", "type": "rbind", "source": str(outside), "options": options}
    add(tmp_path, python(WRITE, "/outside", "/outside/below"), lambda config: config["mounts"].append(mount))
    done = run_box(tmp_path, *with_a_mount_below(outside))
    assert done.stdout == (
        "/outside is written to\nnosuid nodev noexec\n/outside/below is written to\nnosuid nodev noexec\n"
    )


def test_what_is_mounted_in_a_read_only_root_is_read_only(tmp_path: Path) -> None:
    root = add(tmp_path, python(WRITE, "/", "/data/below"))
    (root / "data").mkdir()
    done = run_box(tmp_path, *with_a_mount_below(root / "data"))
    assert done.stdout == "/ Read-only file system\n\n/data/below Read-only file system\n\n"


def test_a_source_that_was_mounted_read_only_stays_so(tmp_path: Path, outside: Path) -> None:
    mount = {"destination": "/outside", "source": str(outside / "below"), "options": ["bind", "rw", "nosuid"]}
    add(tmp_path, python(WRITE, "/outside"), lambda config: config["mounts"].append(mount))
    before = with_a_mount_below(outside)
    done = run_box(tmp_path, *before[:4], before[4].replace("tmpfs below", "tmpfs -o ro below"), *before[5:])
    assert done.stdout == "/outside Read-only file system\nnosuid\n"


def test_a_bind_finds_what_an_earlier_mount_has_put_into_the_root(tmp_path: Path, outside: Path) -> None:
    (outside / "file").write_text("of the first mount\n")

    def change(config: dict[str, Any]) -> None:
        config["mounts"].append(bind(outside, "/first"))
        config["mounts"].append(bind("rootfs/first/file", "/second"))
        config["mounts"].append(bind(tmp_path / "bundle" / "rootfs" / "first", "/third"))

    add(tmp_path, ["cat", "/second", "/third/file"], change)
    done = run_box(tmp_path)
    assert (done.stdout, done.stderr) == ("of the first mount\n" * 2, "")


def test_such_a_source_leads_through_no_link_out_of_the_root(tmp_path: Path, outside: Path) -> None:
    (outside / "secret").write_text("the machine's\n")
    root = add(tmp_path, ["cat", "/seen/secret"], lambda c: c["mounts"].append(bind("rootfs/link", "/seen")))
    (root / "link").symlink_to(outside)
    done = run_box(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    (root / outside.relative_to("/")).mkdir(parents=True)
    (root / outside.relative_to("/") / "secret").write_text("the container's\n")
    assert run_box(tmp_path).stdout == "the container's\n"


def test_the_attributes_of_mounts_are_as_their_options_say(tmp_path: Path) -> None:
    options = {
        "/one": ["noexec", "exec", "noatime", "relatime", "nodev"],
        "/two": ["strictatime", "nodiratime", "ro", "rw"],
        "/three": ["ro", "sync", "noatime", "rnosuid", "", "size=1m,nr_inodes=10"],
    }

    def change(config: dict[str, Any]) -> None:
        config["mounts"] += [{"destination": path, "type": "tmpfs", "options": each} for path, each in options.items()]

    add(tmp_path, ["grep", " tmpfs ", "/proc/mounts"], change)
    lines = [line.split() for line in run_box(tmp_path).stdout.splitlines()]
    seen = {fields[1]: fields[3].split(",") for fields in lines if fields[1] in options}
    assert seen["/one"][:3] == ["rw", "nodev", "relatime"]
    assert seen["/two"][:2] == ["rw", "nodiratime"]
    assert {"ro", "nosuid", "noatime", "sync", "size=1024k", "nr_inodes=10"} <= set(seen["/three"])


def test_a_tmpfs_takes_over_what_it_covers(tmp_path: Path, outside: Path) -> None:
    """As podman asks for it, with --read-only and --tmpfs."""
    (outside / "secret").write_text("the machine's\n")
    mount = {"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup", "ro", "size=1m"]}
    show = "cd /data; stat -c '%A %u:%g %n' . * folder/*; cat file folder/deep; readlink link; grep -c ' /data ' $M"
    root = add(tmp_path, ["sh", "-c", show.replace("$M", "/proc/mounts")], lambda c: c["mounts"].append(mount))
    (root / "data" / "folder").mkdir(parents=True)
    (root / "data").chmod(0o711)
    (root / "data" / "file").write_text("of the image\n")
    (root / "data" / "file").chmod(0o4755)
    (root / "data" / "folder" / "deep").write_text("deep in it\n")
    os.chown(root / "data" / "folder" / "deep", 33, 34)
    os.chmod(root / "data" / "folder" / "deep", 0o604)
    (root / "data" / "link").symlink_to(outside / "secret")
    os.mkfifo(root / "data" / "pipe", 0o600)
    done = run_box(tmp_path)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        *("drwx--x--x 0:0 .", "-rwsr-xr-x 0:0 file", "drwxr-xr-x 0:0 folder", "lrwxrwxrwx 0:0 link"),
        *("prw------- 0:0 pipe", "-rw----r-- 33:34 folder/deep"),
        *("of the image", "deep in it", str(outside / "secret"), "1"),
    ]


def test_what_a_tmpfs_has_no_room_for_is_an_error(tmp_path: Path) -> None:
    mount = {"destination": "/data", "type": "tmpfs", "options": ["tmpcopyup", "size=4k"]}
    root = add(tmp_path, ["true"], lambda config: config["mounts"].append(mount))
    (root / "data").mkdir()
    (root / "data" / "file").write_bytes(bytes(100_000))
    done = run_box(tmp_path)
    assert (done.returncode, done.stderr) == (1, "minirunc: mounts[8] (/data): No space left on device\n")


def test_time_goes_differently_in_a_time_namespace(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "time"})
        config["linux"]["timeOffsets"] = {"boottime": {"secs": 1_000_000, "nanosecs": 5}, "monotonic": {"secs": 5_000}}

    add(tmp_path, ["cat", "/proc/uptime", "/proc/self/timens_offsets"], change)
    done = run_box(tmp_path)
    assert done.stderr == ""
    uptime, *offsets = done.stdout.splitlines()
    assert float(uptime.split()[0]) > 1_000_000
    assert [line.split() for line in offsets] == [["monotonic", "5000", "0"], ["boottime", "1000000", "5"]]


def test_the_domainname_is_the_containers(tmp_path: Path) -> None:
    before = Path("/proc/sys/kernel/domainname").read_text()
    add(tmp_path, ["cat", "/proc/sys/kernel/domainname"], lambda config: config.update(domainname="its.own"))
    done = run_box(tmp_path)
    assert (done.stdout, done.stderr) == ("its.own\n", "")
    assert Path("/proc/sys/kernel/domainname").read_text() == before


def test_devices_of_the_image_stay_and_missing_ones_are_made(tmp_path: Path) -> None:
    root = add(tmp_path, python("import os; print([oct(os.stat(f'/dev/{n}').st_mode) for n in ('null', 'zero')])"))
    config = json.loads((tmp_path / "bundle" / "config.json").read_text())
    without_dev(config)
    bundles.write(tmp_path / "bundle", config)
    os.mknod(root / "dev" / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert run_box(tmp_path).stdout == "['0o20600', '0o20666']\n"


# Looks for a key in the session keyring, or makes one there and becomes another program: keyrings(7).
KEYS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, REQUEST_KEY, KEYCTL = {"x86_64": (248, 249, 250)}.get(os.uname().machine, (217, 218, 219))
if sys.argv[1] == "look":
    print("found" if libc.syscall(REQUEST_KEY, b"user", b"secret", None, 0) > 0 else "nothing")
else:
    assert libc.syscall(KEYCTL, 1, None, 0, 0, 0) > 0
    assert libc.syscall(ADD_KEY, b"user", b"secret", b"x", ctypes.c_size_t(1), -3) > 0
    os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64", "riscv64"), reason="other numbers of system calls")
@pytest.mark.parametrize("uid", [0, 1000])
def test_the_keys_of_who_starts_it_are_not_the_containers(tmp_path: Path, uid: int) -> None:
    def change(config: dict[str, Any]) -> None:
        config["process"]["user"]["uid"] = uid

    add(tmp_path, python(KEYS, "look"), change)
    if uid:
        for path in (tmp_path.parent, tmp_path, tmp_path / "bundle", tmp_path / "bundle" / "rootfs"):
            path.chmod(0o755)
    caller = (PYTHON, "-I", "-S", "-c", KEYS, "make")
    assert run_box(tmp_path, *caller).stdout == "nothing\n"
    bundle = ("-b", str(tmp_path / "bundle"))
    shared = run(*caller, MINIRUNC, "--root", str(tmp_path / "state"), "run", "--no-new-keyring", *bundle, "box")
    assert shared.stdout == b"found\n"


@pytest.mark.parametrize("sets", [["permitted"], ["bounding"], ["bounding", "permitted", "effective", "inheritable"]])
def test_capabilities_that_minirunc_lacks_are_an_error(tmp_path: Path, sets: list[str]) -> None:
    wanted = {name: ["CAP_NET_RAW"] for name in sets}
    add(tmp_path, ["/usr/bin/true"], lambda config: config["process"].update(capabilities=wanted))
    lacking = ("setpriv", "--inh-caps=-net_raw", "--bounding-set=-net_raw")
    done = run_box(tmp_path, *lacking)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "process.capabilities: minirunc does not have CAP_NET_RAW itself" in done.stderr
    command = (MINIRUNC, "--root", str(tmp_path / "state"), "--permissive=capabilities", "run")
    permitted = run(*lacking, *command, "-b", str(tmp_path / "bundle"), "box")
    assert permitted.returncode == 0
    assert b"CAP_NET_RAW" in permitted.stderr
