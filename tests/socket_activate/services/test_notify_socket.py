"""Nobody but a service reaches its notify socket, and whoever does cannot hold up or flood socket-activate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import LIMIT, SOCKET_ACTIVATE, alive, children, connect, eventually, receive, running, said

if TYPE_CHECKING:
    from collections.abc import Iterator

root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")

SERVICE_USER, STRANGER = 1, 65533  # the first is named daemon wherever there is Unix

SERVER = """
import os, socket
{first}
listener = socket.socket(fileno=3)
while True:
    listener.accept()[0].sendall(b"served")
"""

# Sends as somebody else, again and again or once.
SENDER = """
import os, socket, sys
user, address, message, again = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.sendto(message.encode(), address)
print("sent", flush=True)
while again == "again":
    sock.sendto(message.encode(), address)
"""

# Looks for the way as somebody else.
SPY = """
import os, sys
user, folder = sys.argv[1:]
with open("/proc/net/unix") as file:
    known = file.read()
os.setgroups([])
os.setuid(int(user))
try:
    known += str(os.listdir(folder))
except PermissionError:
    pass
print(known)
"""


def write(folder: Path, *, first: str = "", service: str = "") -> str:
    """Write a pair of units whose service serves its clients; return the socket unit's path."""
    (folder / "a.py").write_text(SERVER.format(first=first))
    (folder / "a.socket").write_text(f"[Socket]\nListenStream={folder}/a.sk\n")
    (folder / "a.service").write_text(
        f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={sys.executable} -S {folder}/a.py\n{service}"
    )
    return str(folder / "a.socket")


def notify_address(process: subprocess.Popen[bytes]) -> str:
    """The NOTIFY_SOCKET of the service that runs."""
    (pid,) = children(process.pid)
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return next(each.partition("=")[2] for each in variables if each.startswith("NOTIFY_SOCKET="))


def ask(folder: Path) -> bytes:
    with connect(folder / "a.sk") as sock:
        return receive(sock, 6)


def send(user: int, address: str, message: str = "READY=1") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", "-c", SENDER, str(user), address, message, "once"]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)


@contextmanager
def flood(address: str, message: str, senders: int = 4) -> Iterator[None]:
    """Strangers send meanwhile, as fast as they can."""
    command = [sys.executable, "-S", "-c", SENDER, str(STRANGER), address, message, "again"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(senders)]
    try:
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == b"sent\n"
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


@root
def test_only_the_services_user_and_root_can_send_to_an_ordinary_users_service(tmp_path: Path) -> None:
    unit = write(tmp_path)
    (tmp_path / "a.service").write_text(f"[Service]\nExecStart=sleep 1000\nUser={SERVICE_USER}\nNotifyAccess=all\n")
    with running(SOCKET_ACTIVATE, "--now", unit, until=b"started", status=0) as process:
        eventually(lambda: len(children(process.pid)) == 1, "it runs")
        eventually(lambda: b"sleep" in Path(f"/proc/{children(process.pid)[0]}/cmdline").read_bytes(), "it runs")
        address = notify_address(process)
        assert "PermissionError" in send(STRANGER, address).stderr
        assert send(SERVICE_USER, address).stdout == send(0, address).stdout == "sent\n"
        status = os.stat(os.path.dirname(address))
        assert (status.st_uid, status.st_mode & 0o7777) == (SERVICE_USER, 0o700)


@root
def test_nobody_else_finds_the_way_to_the_notify_socket_of_roots_service(tmp_path: Path) -> None:
    unit = write(tmp_path, service="NotifyAccess=main\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        ask(tmp_path)
        address = notify_address(process)
        folder, name, _ = address.rsplit("/", 2)
        command = [sys.executable, "-S", "-c", SPY, str(STRANGER), folder]
        known = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True).stdout
        assert "/notify" in known
        assert name not in known


@root
def test_a_service_that_changes_to_another_user_by_itself_still_notifies(tmp_path: Path) -> None:
    first = f"""
os.setgroups([])
os.setuid({STRANGER})
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""
    unit = write(tmp_path, first=first, service="Type=notify\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        assert ask(tmp_path) == b"served"
        said(process, b"it is ready")


@root
@pytest.mark.parametrize("message", ["READY=1", "X" * 5000], ids=["foreign", "too long"])
def test_a_flood_of_notifications_holds_up_no_client_and_is_told_in_a_few_lines(tmp_path: Path, message: str) -> None:
    unit = write(tmp_path, service="NotifyAccess=main\n")
    log = tmp_path / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen([SOCKET_ACTIVATE, unit], stderr=output, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: "listening" in log.read_text(), "it listens")
        ask(tmp_path)
        with flood(notify_address(process), message):
            for _ in range(5):
                # Each is a start: by what is held up, it would never come to that.
                (pid,) = children(process.pid)
                os.kill(pid, signal.SIGKILL)
                eventually(lambda pid=pid: not alive(pid), "its end was seen")  # type: ignore[misc]
                assert ask(tmp_path) == b"served"
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
        lines = log.read_text().splitlines()
        assert len([line for line in lines if "notification" in line or "left out" in line]) < 60
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_the_notify_sockets(tmp_path: Path, number: int) -> None:
    unit = write(tmp_path, service="NotifyAccess=main\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening") as process:
        ask(tmp_path)
        folder = Path(notify_address(process)).parents[1]
        assert folder.exists()
        process.send_signal(number)
        process.wait(LIMIT)
        eventually(lambda: not folder.exists(), "the folder is gone")


def test_a_connections_notify_socket_goes_with_its_service(tmp_path: Path) -> None:
    (tmp_path / "a.socket").write_text(f"[Socket]\nListenStream={tmp_path}/a.sk\nAccept=yes\n")
    (tmp_path / "a@.service").write_text("[Service]\nExecStart=cat\nStandardInput=socket\nNotifyAccess=main\n")
    with running(SOCKET_ACTIVATE, str(tmp_path / "a.socket"), until=b"listening", status=0) as process:
        with connect(tmp_path / "a.sk") as sock:
            sock.sendall(b".")
            assert receive(sock, 1) == b"."
            folder = Path(notify_address(process)).parent
            assert folder.exists()
        eventually(lambda: not folder.exists(), "its folder is gone")
        assert folder.parent.exists()


@root
def test_a_long_temporary_folder_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("a" * 100)))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    unit = write(tmp_path, service="NotifyAccess=main\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        assert ask(tmp_path) == b"served"
        assert len(notify_address(process)) < 108
