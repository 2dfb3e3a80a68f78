"""Option for option beside systemd-socket-activate: what the program finds is the same, but for what --help says."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.commands import LIMIT, SOCKET_ACTIVATE, eventually, free_port, receive, running, said

from .test_pairs import flat

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    View = dict[str, Any]

PEER = "systemd-socket-activate"

# Reports what it finds, serves one client of each socket that it is told of, and ends.
PROBE = """
import fcntl, json, os, socket, stat, sys

report, *streams = sys.argv[1:]

def described(number):
    status = os.fstat(number)
    seen = [oct(status.st_mode), oct(fcntl.fcntl(number, fcntl.F_GETFL)), fcntl.fcntl(number, fcntl.F_GETFD)]
    if stat.S_ISSOCK(status.st_mode):
        with socket.socket(fileno=os.dup(number)) as sock:
            seen += [sock.family, sock.type, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)]
            seen += [str(sock.getsockname())]
    return seen

def descriptors():
    for number in sorted(map(int, os.listdir("/proc/self/fd"))):
        try:
            yield number, described(number)
        except OSError:
            pass  # the listing's own

with open("/proc/self/environ") as file:
    environment = dict(entry.split("=", 1) for entry in file.read().split("\\0")[:-1])
view = {
    "descriptors": {number: seen for number, seen in descriptors() if number != 2},
    "environment": environment,
    "arguments": sys.argv[2:],
    "folder": os.getcwd(),
    "pid": os.getpid(),
}
with open(report + ".new", "w") as file:
    json.dump(view, file)
os.rename(report + ".new", report)
for number in map(int, streams):
    sock = socket.socket(fileno=number)
    conn = sock.accept()[0] if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else sock
    conn.sendall(b"served")
    conn.close()
"""


class Row(NamedTuple):
    """Options, and on which descriptors the program serves clients; FOLDER and PORT are different each time."""

    options: str
    streams: str = "3"

    @property
    def accepts(self) -> bool:
        return not {"-a", "--accept"}.isdisjoint(self.options.split())


ROWS = {
    "a path": Row("-l FOLDER/a.sk"),
    "an abstract name": Row("-l @a-PORT"),
    "a port": Row("-l PORT"),
    "v4": Row("--listen=127.0.0.1:PORT"),
    "v6": Row("-l [::1]:PORT"),
    "vsock": Row("-l vsock:1:PORT"),
    "several": Row("-l FOLDER/a.sk -l 127.0.0.1:PORT -l @a-PORT", "3 4 5"),
    "a name": Row("-l FOLDER/a.sk --fdname=front"),
    "one name for all": Row("-l FOLDER/a.sk -l @a-PORT --fdname=front", "3 4"),
    "many names": Row("-l FOLDER/a.sk -l @a-PORT --fdname front:back", "3 4"),
    "datagrams on a path": Row("-d -l FOLDER/a.sk", ""),
    "datagrams": Row("--datagram -l 127.0.0.1:PORT -l FOLDER/a.sk --fdname=udp:unix", ""),
    "sequential packets": Row("--seqpacket -l FOLDER/a.sk -l @a-PORT", "3 4"),
    "accept": Row("-a -l FOLDER/a.sk"),
    "accept on tcp": Row("--accept -l 127.0.0.1:PORT"),
    "accept with a name": Row("-a -l FOLDER/a.sk --fdname=back"),
    "accept sequential packets": Row("-a --seqpacket -l FOLDER/a.sk"),
    "inetd": Row("--inetd -l FOLDER/a.sk", "0"),
    "inetd with a name": Row("--inetd --fdname=no -l 127.0.0.1:PORT", "1"),
    "accept and inetd": Row("-a --inetd -l FOLDER/a.sk", "1"),
    "variables": Row("-l FOLDER/a.sk -E ONE=1 --setenv=TWO=a=b -E EMPTY="),
    "variables of the environment": Row("-l FOLDER/a.sk -E GIVEN --setenv GIVEN=other -E MISSING -E HOME=/x"),
}

# What differs on purpose, as --help has it, or with the version of systemd.
DIFFERENT = {
    "/is a child": "it is started again for the next client; not with --once",
    "/environment/INVOCATION_ID": "as a service; not with --once",
    "/environment/SYSTEMD_EXEC_PID": "as a service; not with --once",
    "/environment/NOTIFY_SOCKET": "as a service; not with --once",
    "/environment/FDSTORE": "as a service with a store; not with --once",
    "/descriptors/0": "standard input is /dev/null; not with --inetd",
    "/environment/LISTEN_PIDFDID": "from v258 on",
}
ACCEPTED = {
    "/environment/LISTEN_FDNAMES": "a connection has the name that it has under a unit",
    "/environment/REMOTE_ADDR": "as under a unit",
    "/environment/REMOTE_PORT": "as under a unit",
}


@pytest.fixture(autouse=True)
def peer(monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which(PEER):
        pytest.skip(f"there is no {PEER}")
    monkeypatch.setenv("GIVEN", "from the environment")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("LISTEN_FDS", "no matter")
    monkeypatch.setenv("LISTEN_PID", "1")


def clients(options: Sequence[str], folder: Path, port: int) -> list[socket.socket]:
    """One of each socket."""
    kind = socket.SOCK_STREAM
    if {"-d", "--datagram"} & set(options):
        kind = socket.SOCK_DGRAM
    elif "--seqpacket" in options:
        kind = socket.SOCK_SEQPACKET
    found = []
    for before, option in zip(["", *options], options, strict=False):
        if before != "-l" and not option.startswith("--listen="):
            continue
        text = option.removeprefix("--listen=")
        places: dict[str, tuple[int, Any]] = {
            "@": (socket.AF_UNIX, f"\0{text[1:]}"),
            "/": (socket.AF_UNIX, text),
            "[": (socket.AF_INET6, ("::1", port)),
            "v": (socket.AF_VSOCK, (1, port)),
        }
        family, address = places.get(text[0], (socket.AF_INET, ("127.0.0.1", port)))
        sock = socket.socket(family, kind)
        found.append(sock)
        sock.settimeout(LIMIT)
        sock.connect(address)
    return found


def seen(command: Sequence[str], row: Row, folder: Path) -> View:
    """What the program finds, and its clients."""
    folder.mkdir()
    port = free_port()
    report = folder / "report"
    probe = folder.parent / "probe"
    probe.write_text(PROBE)
    options = row.options.replace("FOLDER", str(folder)).replace("PORT", str(port)).split()
    program = [sys.executable, "-S", "-E", str(probe), str(report), *row.streams.split()]
    with running(*command, *options, *program, until=b"istening on") as process:
        for _ in range(row.options.count("-l") - 1):
            said(process, b"istening on")
        socks = clients(options, folder, port)
        try:
            for sock in socks:
                if sock.type == socket.SOCK_DGRAM:
                    sock.send(b"datagram")
            answers = [receive(sock, 7).decode() for sock in socks if sock.type != socket.SOCK_DGRAM]
            eventually(report.exists, "it has reported")
        finally:
            for sock in socks:
                sock.close()
    view = json.loads(report.read_text().replace(str(folder), "FOLDER").replace(str(port), "PORT"))
    if view["environment"].get("LISTEN_PID") == str(view["pid"]):
        view["environment"]["LISTEN_PID"] = "its own"
    view["is a child"] = view.pop("pid") != process.pid
    return {**view, "answers": answers}


CASES = [
    pytest.param(row, once, id=f"{name}, once" if once else name, marks=[pytest.mark.may_skip] * ("vsock" in name))
    for name, row in ROWS.items()
    for once in ((False,) if row.accepts else (False, True))  # it becomes one program, and with --accept there are many
]


@pytest.mark.parametrize(("row", "once"), CASES)
def test_what_the_program_finds_is_the_same(tmp_path: Path, row: Row, once: bool) -> None:
    if "vsock" in row.options and not has_vsock():
        pytest.skip("this kernel has no vsock to itself")
    theirs = flat(seen([PEER], row, tmp_path / "theirs"))
    ours = flat(seen([SOCKET_ACTIVATE, "--clean-env", *["--once"] * once], row, tmp_path / "ours"))
    differ = {key: (theirs.get(key), ours.get(key)) for key in theirs | ours if theirs.get(key) != ours.get(key)}
    allowed = {**DIFFERENT, **ACCEPTED} if row.accepts and "--fdname" not in row.options else DIFFERENT
    assert not {key: values for key, values in differ.items() if key not in allowed}
    assert ours["/is a child"] == (not once)
    assert ("/environment/NOTIFY_SOCKET" in ours) == (not once)
    if "--inetd" in row.options:
        assert ours["/descriptors/0"] == theirs["/descriptors/0"]


def has_vsock() -> bool:
    try:
        with socket.socket(socket.AF_VSOCK) as listener:
            listener.bind((1, socket.VMADDR_PORT_ANY))
            listener.listen()
            with socket.socket(socket.AF_VSOCK) as sock:
                sock.settimeout(LIMIT)
                sock.connect(listener.getsockname())
    except OSError:
        return False
    return True
