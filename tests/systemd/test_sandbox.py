"""What the units promise of their sandboxes: by systemd's own judgement, and tried from inside by a program."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import LIMIT, connect, echoed

from .conftest import UNITS
from .daemons import ask, processes

if TYPE_CHECKING:
    from .conftest import StartManager
    from .manager import Manager

FOOBAR = UNITS / "foobar.service"

# It tries what a sandbox is to forbid, and nothing that would hurt the machine where it is allowed.
PROBE = """
import ctypes, errno, json, mmap, os, signal, socket, stat

libc = ctypes.CDLL(None, use_errno=True)
found = {}

def tried(name, attempt):
    try:
        found[name] = attempt()
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

def called(name, *arguments):
    ctypes.set_errno(0)
    done = getattr(libc, name)(*arguments) != -1
    found[name] = "done" if done else errno.errorcode[ctypes.get_errno()]

def opened(family):
    socket.socket(family).close()
    return "done"

def sent():
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", ("127.0.0.1", 9))
    return "done"

def read_kmsg():
    if not os.path.exists("/dev/kmsg"):
        return "not here"
    os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    return "done"

def made_set_uid():
    descriptor = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.fchmod(descriptor, 0o4700)
    return "done"

def mapped(code=b""):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return page

def called_as_i386():
    if os.uname().machine != "x86_64":
        return "not here"
    page = mapped(bytes.fromhex("b814000000 cd80 c3"))  # getpid() by the gate of 32 bit programs
    getpid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    if not (child := os.fork()):
        os._exit(getpid() != os.getpid())
    return "done" if (ended := os.waitpid(child, 0)[1]) == 0 else signal.Signals(ended & 127).name

with open("/proc/self/status") as file:
    status = dict(line.split(":", 1) for line in file)
for name in ("CapBnd", "NoNewPrivs", "Umask"):
    found[name] = int(status[name], 16)
found["root"] = os.getuid() == 0
for path in ("/usr", "/sys", "/sys/fs/cgroup"):
    found[path] = "read-only" if os.statvfs(path).f_flag & os.ST_RDONLY else "writable"
for path in ("/proc/1", "/proc/meminfo", "/tmp/mark", "/dev/kmsg", "/dev/null"):
    found[path] = os.path.exists(path)
found["/home"] = stat.S_IMODE(os.stat("/home").st_mode) != 0
for kind in ("mnt", "net", "user", "uts"):
    found[kind] = os.readlink("/proc/self/ns/" + kind)
tried("AF_UNIX", lambda: opened(socket.AF_UNIX))
tried("AF_INET", lambda: opened(socket.AF_INET))
tried("send", sent)
tried("read kmsg", read_kmsg)
tried("set-uid", made_set_uid)
tried("write and execute", lambda: mapped() and "done")
tried("i386", called_as_i386)
tried("nice", lambda: os.nice(0) or "done")
tried("real time", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)) or "done")
tried("hostname", lambda: socket.sethostname(socket.gethostname()) or "done")
called("personality", 0x0040000)  # ADDR_NO_RANDOMIZE
called("adjtimex", ctypes.create_string_buffer(512))  # only reads
called("klogctl", 10, None, 0)  # the size of the kernel's log
called("shmget", 0, 4096, 0o1600)
called("syscall", 438, os.pidfd_open(os.getpid()), 0, 0)  # pidfd_getfd, which is for debuggers
libc.delete_module(b"no_such_module", os.O_NONBLOCK)
found["delete_module"] = errno.errorcode[ctypes.get_errno()]
called("unshare", 0x10000000)  # CLONE_NEWUSER
print("PROBE", os.environ["UNIT"], json.dumps(found), flush=True)
"""

# What a directive alone changes for root and its probe: a different answer to one question.
SEEN: dict[str, tuple[str, Any]] = {
    "DynamicUser=yes": ("root", False),
    "UMask=0077": ("Umask", 0x77),
    "NoNewPrivileges=yes": ("NoNewPrivs", 1),
    "CapabilityBoundingSet=": ("CapBnd", 0),
    "ProtectSystem=strict": ("/usr", "read-only"),
    "ProtectHome=yes": ("/home", False),
    "ProtectProc=invisible": ("/proc/1", False),
    "ProcSubset=pid": ("/proc/meminfo", False),
    "PrivateMounts=yes": ("mnt", "own"),
    "PrivateTmp=yes": ("/tmp/mark", False),
    "PrivateDevices=yes": ("/dev/kmsg", False),
    "DevicePolicy=closed": ("read kmsg", "EPERM"),
    "PrivateNetwork=yes": ("net", "own"),
    "IPAddressDeny=any": ("send", "EPERM"),
    "RestrictAddressFamilies=AF_UNIX": ("AF_INET", "EAFNOSUPPORT"),
    "PrivateUsers=yes": ("user", "own"),
    "ProtectHostname=yes": ("uts", "own"),
    "ProtectClock=yes": ("adjtimex", "EPERM"),
    "ProtectKernelTunables=yes": ("/sys", "read-only"),
    "ProtectKernelModules=yes": ("delete_module", "EPERM"),
    "ProtectKernelLogs=yes": ("klogctl", "EPERM"),
    "ProtectControlGroups=yes": ("/sys/fs/cgroup", "read-only"),
    "RestrictNamespaces=yes": ("unshare", "EPERM"),
    "RestrictRealtime=yes": ("real time", "EPERM"),
    "RestrictSUIDSGID=yes": ("set-uid", "EPERM"),
    "LockPersonality=yes": ("personality", "EPERM"),
    "MemoryDenyWriteExecute=yes": ("write and execute", "EPERM"),
    "SystemCallArchitectures=native": ("i386", "SIGSYS"),
    "SystemCallFilter=@system-service": ("syscall", "EPERM"),
    "SystemCallFilter=~@privileged @resources": ("nice", "EPERM"),
}
# Root is spared by the first, and the filters kill unless they are told otherwise.
NEEDED = {
    "ProtectProc=invisible": "User=nobody",
    "SystemCallFilter=@system-service": "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=~@privileged @resources": "SystemCallErrorNumber=EPERM",
}
# Without a test of their own: those that state what is so by default, and one that the others are seen by.
DEFAULTS = {"AmbientCapabilities=", "KeyringMode=private", "DeviceAllow=", "SystemCallErrorNumber=EPERM"}
REMOVED = "RemoveIPC=yes"  # what it does comes after the end
# What the manager says where it may not load programs into the kernel.
CANNOT = {
    "IPAddressDeny=any": "does not support BPF/cgroup firewalling",
    "DevicePolicy=closed": "device control BPF program",
}
NO_SANDBOX = (
    *("Type=", "ExecStart=", "Environment=", "WatchdogSec=", "Restart="),
    *("FileDescriptorStoreMax=", "LimitNOFILE="),
)


def sandbox() -> list[str]:
    """The directives of foobar.service that lock it down."""
    lines = FOOBAR.read_text().partition("\n[Service]\n")[2].splitlines()
    return [line for line in lines if line and not line.startswith(("#", *NO_SANDBOX))]


def probe(manager: Manager, boxes: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Try everything in each of the boxes, which are lines of units; return what each answered."""
    manager.add_program("probe", PROBE)
    manager.path("/tmp/mark").touch()
    service = "[Service]\nType=oneshot\nExecStart=probe\nEnvironment=UNIT=%N\n"
    manager.add({f"{name}.service": f"{service}{box}\n" for name, box in boxes.items()})
    manager.systemctl("start", *(f"{name}.service" for name in boxes))
    answers: dict[str, dict[str, Any]] = {
        name: json.loads(text) for name, text in re.findall(r"PROBE (\S+) ({.*?})", manager.log)
    }
    assert answers.keys() == boxes.keys()
    for answer in answers.values():
        for kind in ("mnt", "net", "user", "uts"):
            shared = answer[kind] == os.readlink(f"/proc/{manager.pid}/ns/{kind}")
            answer[kind] = "shared" if shared else "own"
    return answers


def test_each_directive_of_the_sandbox_does_what_it_is_there_for(start_manager: StartManager) -> None:
    assert {*SEEN, *DEFAULTS, REMOVED} == set(sandbox())
    manager = start_manager()
    alone = {directive: f"alone-{number}" for number, directive in enumerate(SEEN)}
    boxes = {name: f"{directive}\n{NEEDED.get(directive, '')}" for directive, name in alone.items()}
    answers = probe(manager, {"free": "", "locked": "\n".join(sandbox()), **boxes})
    free, locked = answers["free"], answers["locked"]
    untold = []
    for directive, (question, answer) in SEEN.items():
        if free[question] in (answer, "not here", "SIGSEGV"):
            untold.append(directive)  # it is so here in any case, or there is nothing to try it on
        elif directive in CANNOT and CANNOT[directive] in manager.log:
            untold.append(directive)
        else:
            assert (directive, answers[alone[directive]][question]) == (directive, answer)
        assert locked[question] != free[question] or directive in untold
    assert len(untold) < 5
    print(f"tried: {len(SEEN) - len(untold)} of {len(SEEN)}; not to be told on this machine: {untold}")
    # What it needs it has.
    assert (locked["AF_UNIX"], locked["/dev/null"]) == ("done", True)


def test_what_a_service_leaves_in_shared_memory_is_removed(start_manager: StartManager) -> None:
    manager = start_manager()
    boxes = {"leaves": "User=daemon", "removes": f"User=nobody\n{REMOVED}", "locked": "\n".join(sandbox())}
    answers = probe(manager, boxes)
    assert [answers[name]["shmget"] for name in boxes] == ["done"] * 3
    # /proc shows the namespace of who looks.
    segments = manager.run("nsenter", "-t", "1", "-i", "cat", "/proc/sysvipc/shm").stdout.splitlines()[1:]
    assert [int(line.split()[7]) for line in segments] == [pwd.getpwnam("daemon").pw_uid]


def test_systemd_calls_the_service_safe() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", str(FOOBAR))
    said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True).stdout
    level = re.search(r"Overall exposure level for foobar.service: ([0-9.]+)", said)
    assert level, said
    assert float(level[1]) <= 0.2


def verified(manager: Manager, folder: Path, *options: str) -> str:
    """What systemd has to say of the units in a folder."""
    home = "/run/home"
    program = manager.path(f"{home}/.local/bin/foobard")
    if not program.is_symlink():
        program.parent.mkdir(parents=True)
        program.symlink_to("/usr/local/sbin/foobard")
    variables = (f"SYSTEMD_UNIT_PATH={folder}:/run/units", f"HOME={home}", "XDG_RUNTIME_DIR=/run")
    units = sorted(str(path) for path in folder.iterdir() if path.is_file())
    assert units
    done = manager.run("env", *variables, "systemd-analyze", *options, "verify", "--man=no", *units, check=False)
    return f"{done.stdout}{done.stderr}" + (f"exit status {done.returncode}" if done.returncode else "")


def test_systemd_finds_no_fault_with_any_unit(start_manager: StartManager) -> None:
    manager = start_manager()
    copied = shutil.copytree(UNITS, manager.folder / "shipped", symlinks=True)
    assert verified(manager, copied) == ""
    assert verified(manager, copied / "user", "--user") == ""
    # It would tell.
    for file in (copied / "foobar.service", copied / "user" / "foobar.service"):
        file.write_text(file.read_text().replace("ExecStart=", "ExecSatrt=") + "NoSuchDirective=yes\n")
    assert "NoSuchDirective" in verified(manager, copied)
    assert "NoSuchDirective" in verified(manager, copied / "user", "--user")


def test_foobar_service_lives_in_its_sandbox(start_manager: StartManager) -> None:
    manager = start_manager(UNITS / "foobar.socket", FOOBAR)
    manager.systemctl("start", "foobar.socket")
    path = manager.path("/run/foobar.sk")
    assert ask(path, b"hello") == b"hello"
    assert Path(manager.property("foobar.service", "DropInPaths")).name == "console.conf"  # no exception for the test
    (pid,) = processes(manager, "foobar.service")
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    assert not re.search(r"^Uid:.*\t0\b", status, re.MULTILINE)

    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        manager.systemctl("restart", "foobar.service")
        assert echoed(sock, b"still here") == b"still here"
        assert processes(manager, "foobar.service") not in ([], [pid])
    assert ask(path, b"after") == b"after"

    (pid,) = processes(manager, "foobar.service")
    os.kill(pid, signal.SIGKILL)
    manager.wait_property("foobar.service", "NRestarts", "1")
    assert ask(path, b"again") == b"again"
    assert manager.property("foobar.socket", "Result") == "success"


def test_the_watchdog_hears_of_foobard_out_of_its_sandbox(start_manager: StartManager) -> None:
    sooner = "[Service]\nWatchdogSec=1s\n"
    manager = start_manager(UNITS / "foobar.socket", FOOBAR, {"foobar.service.d/sooner.conf": sooner})
    manager.systemctl("start", "foobar.socket")
    path = manager.path("/run/foobar.sk")
    with connect(path) as sock:
        assert echoed(sock, b"before") == b"before"
        before = processes(manager, "foobar.service")

        def heard() -> int:
            return int(manager.property("foobar.service", "WatchdogTimestampMonotonic"))

        three_times_as_late = heard() + 3_000_000
        manager.wait_for(lambda: heard() > three_times_as_late, "it still tells that it is alive")
        assert echoed(sock, b"after") == b"after"
    assert processes(manager, "foobar.service") == before
    assert manager.property("foobar.service", "NRestarts") == "0"
