"""A real systemd for tests: PID 1 of private namespaces, next to whatever runs on the machine.

boot.sh makes the namespaces, and says why each is as it is. The network is the machine's own.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any, Self, TypeVar

from tests.commands import LIMIT, children

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

INTERVAL = 0.01
"""Seconds between two looks at what no event tells of."""

BOOT = Path(__file__).with_name("boot.sh")
SYSTEMD = "/lib/systemd/systemd"
TOOLS = ("systemctl", "unshare", "nsenter", "mount", "mountpoint", "mktemp", "find")

# The head of a program that has its interpreter and its imports next to it: otherwise they may be where a service that
# is locked down cannot look, below /root or /tmp. The interpreter may need its own shared library; -S: nothing else.
LIBRARIES = "/usr/local/sbin/.libraries"
HEAD = """\
#!/usr/bin/env -S LD_LIBRARY_PATH={libraries}/python/lib {libraries}/python/{interpreter} -PS
import sys
sys.path += {path}
"""

# What units depend on by default, or in foobar.socket's [Install], and a manager finds in the machine's own units.
TARGETS = "boot sysinit basic shutdown umount sockets paths timers slices multi-user network"
TARGET = "[Unit]\nDefaultDependencies=no\n"

# There is no journal.
CONSOLE = "[Service]\nStandardOutput=append:/run/console\nStandardError=append:/run/console\n"

JOBS = ("systemctl", "list-jobs", "--no-pager")

CAP_SYS_ADMIN = 21
CREDENTIALS = struct.Struct("3i")  # ucred of unix(7): process, user, group


def missing() -> str | None:
    """Why no manager can run here, or None where one can."""
    if sys.platform != "linux":
        return "systemd runs on Linux only"
    if not os.access(SYSTEMD, os.X_OK):
        return f"there is no {SYSTEMD}"
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    if absent:
        return f"there is no {', '.join(absent)}"
    capabilities = Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0]
    if not int(capabilities, 16) >> CAP_SYS_ADMIN & 1:
        return "making namespaces for systemd takes root (CAP_SYS_ADMIN)"
    return None


class Manager:
    """A running systemd, from entering the block to its end; nothing of it stays but its folder.

    Attributes:
        folder: what it keeps its files in, and the test whatever it wants; the same path inside as outside.
        pid: of its PID 1, as it is seen from outside.
    """

    pid: int

    def __init__(self, folder: Path, *units: Path | Mapping[str, str]) -> None:
        """Prepare it.

        Args:
            folder: an empty folder, or one to be made.
            units: unit files to copy, or texts by name; a name may be one of a drop-in: ``"foobar.service.d/a.conf"``.
        """
        self.folder = folder.resolve()
        for name in ("units", "programs", "libraries", "fresh"):
            (self.folder / name).mkdir(parents=True)
        self._write({f"{target}.target": TARGET for target in TARGETS.split()}, *units)
        libraries = {f"path{number}": library for number, library in enumerate(filter(os.path.isdir, sys.path))}
        for name, library in {**libraries, "python": sys.base_prefix}.items():
            (self.folder / "libraries" / name).symlink_to(os.path.abspath(library))
            (self.folder / "programs" / ".libraries" / name).mkdir(parents=True)
        self._head = HEAD.format(
            libraries=LIBRARIES,
            interpreter=os.path.relpath(os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)),
            path=[f"{LIBRARIES}/{name}" for name in libraries],
        )
        for script in metadata.distribution("trio-activation").entry_points.select(group="console_scripts"):
            self.add_program(script.name, f"from {script.module} import {script.attr} as main\nsys.exit(main())\n")
        self.add_program("minirunc", "from activation_cmd.minirunc.main import main\nsys.exit(main())\n")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.pid = self._boot(stack)
            self._end = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def _boot(self, stack: ExitStack) -> int:
        """Start it; return the number of its PID 1. What ``stack`` is given ends it."""
        # Below a folder that is fresh inside, the interpreter and what it imports would be gone.
        python = [path for path in (sys.prefix, sys.base_prefix, *sys.path) if os.path.isdir(path)]
        kept = sorted({name(path) for path in python for name in (os.path.abspath, os.path.realpath)})
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(self.folder / "console", "ab") as console:
            notify.bind("")  # to an abstract name that is free
            notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            address = "@" + os.fsdecode(notify.getsockname()[1:])
            # PID 1 logs to a terminal or not at all. What copies it ends when nobody has the terminal's other end.
            copied, terminal = os.openpty()
            copying = subprocess.Popen(
                ["cat"], stdin=copied, stdout=console, stderr=subprocess.DEVNULL, start_new_session=True
            )
            os.close(copied)
            stack.callback(copying.wait, LIMIT)
            stack.callback(os.close, terminal)
            arguments = [SYSTEMD, str(self.folder), os.ttyname(terminal), address, *kept]
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", str(BOOT), *arguments],
                stdin=PIPE,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
            stack.callback(process.wait, LIMIT)
            assert process.stdin
            stack.callback(process.stdin.close)  # boot.sh kills PID 1 then, waits for it, and ends
            return self._ready(notify, process.pid)

    def _ready(self, notify: socket.socket, booting: int) -> int:
        """Wait for READY=1; return its sender's number. The kernel tells it as it is seen from here."""
        pidfd = os.pidfd_open(booting)
        deadline = time.monotonic() + LIMIT
        try:
            while (left := deadline - time.monotonic()) > 0:
                readable, _, _ = select.select([notify.fileno(), pidfd], [], [], left)
                if notify.fileno() in readable:
                    message, ancillary, _, _ = notify.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
                    if b"READY=1" in message.split(b"\n"):
                        return int(CREDENTIALS.unpack(ancillary[0][2])[0])
                elif readable:
                    raise RuntimeError(f"systemd ended before it was up; it said:\n{self.log}")
        finally:
            os.close(pidfd)
        raise TimeoutError(f"systemd was not up after {LIMIT:g} s; it said:\n{self.log}")

    @property
    def log(self) -> str:
        """What the manager and its services have said."""
        return (self.folder / "console").read_bytes().decode(errors="replace").replace("\r", "")

    def path(self, inside: str) -> Path:
        """Where a path inside is found from outside, as long as the manager runs: connect to its sockets there."""
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def add(self, *units: Path | Mapping[str, str]) -> None:
        """Add units, or write them anew, and have the manager read them."""
        self._write(*units)
        self.systemctl("daemon-reload")

    def add_program(self, name: str, code: str) -> None:
        """Add a Python program that units, locked down as they may be, and run() find by its name."""
        program = self.folder / "programs" / name
        program.write_text(self._head + code)
        program.chmod(0o755)

    def _write(self, *units: Path | Mapping[str, str]) -> None:
        for unit in units:
            texts = {unit.name: unit.read_text()} if isinstance(unit, Path) else unit
            for name, text in texts.items():
                self._write_one(name, text)
                # The unit file itself stays as it is.
                if name.endswith(".service") and "\nStandard" not in text:
                    self._write_one(f"{name}.d/console.conf", CONSOLE)

    def _write_one(self, name: str, text: str) -> None:
        path = self.folder / "units" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command inside; what it returns is the nsenter around it, which ends with it and as it does.

        Args:
            options: as of subprocess.Popen.
        """
        enter = ("nsenter", "-t", str(self.pid), "-m", "-p", "-r", "-w", "--")
        env = {**os.environ, "PATH": "/usr/local/sbin:" + os.environ["PATH"]}
        return subprocess.Popen([*enter, *command], env=env, text=True, **options)

    def kill(self, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
        """Send a signal to a command that popen() started. Without its nsenter, nobody might ever reap it."""
        self.wait_for(lambda: children(process.pid) or process.poll() is not None, "nsenter has started the command")
        for pid in children(process.pid):
            os.kill(pid, number)

    def run(
        self,
        *command: str,
        input: str = "",  # noqa: A002
        check: bool = True,
        limit: float = LIMIT,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end, for ``limit`` seconds at most. With ``check``, it must exit with 0."""
        with self.popen(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            try:
                stdout, stderr = process.communicate(input, limit)
            except BaseException as error:
                self.kill(process)
                if isinstance(error, subprocess.TimeoutExpired) and command != JOBS:
                    error.add_note(self._waits_for())
                raise
        done = subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} exited with {done.returncode}\n{stdout}{stderr}{self.state()}")
        return done

    def _waits_for(self) -> str:
        try:
            return f"the manager's jobs:\n{self.run(*JOBS, check=False).stdout}\nlog:\n{self.log}"
        except subprocess.TimeoutExpired:
            return f"the manager does not answer; log:\n{self.log}"

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """Run systemctl and return what it prints."""
        return self.run("systemctl", *arguments, check=check).stdout.strip()

    def property(self, unit: str, name: str) -> str:
        """A property as ``systemctl show`` prints it."""
        return self.systemctl("show", "--property", name, "--value", unit)

    def wait_for(self, condition: Callable[[], T], what: str, limit: float = LIMIT) -> T:
        """Wait until the condition holds, for ``limit`` seconds at most; return what it returned then.

        Raises:
            TimeoutError: it does not; the message tells the units' state and the log.
        """
        deadline = time.monotonic() + limit
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"after {limit:g} s still not so: {what}\n{self.state()}")
            time.sleep(INTERVAL)
        return value

    def wait_property(self, unit: str, name: str, value: str, limit: float = LIMIT) -> None:
        """Wait until the unit's property has the value, as :meth:`wait_for`."""
        self.wait_for(lambda: self.property(unit, name) == value, f"{name} of {unit} is {value!r}", limit)

    def state(self) -> str:
        """The units' state and the log, for a failing test."""
        status = self.run("systemctl", "status", "--all", "--lines=0", "*.socket", "*.service", check=False)
        return f"{status.stdout}{status.stderr}\nlog:\n{self.log}"
