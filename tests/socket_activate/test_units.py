"""socket-activate with unit files, without systemd: its signals, its options, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from activation_cmd.socket_activate import main as socket_activate
from activation_cmd.socket_activate.command_line import UNIT_PATH, unit_environment

from tests.children import open_descriptors
from tests.commands import (
    LIMIT,
    SCRIPTS,
    SOCKET_ACTIVATE,
    alive,
    children,
    connect,
    echoed,
    eventually,
    free_port,
    receive,
    resident,
    run,
    running,
    said,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

UNITS = Path(__file__).parents[2] / "units"

# What each service begins with.
PRELUDE = """
import json, os, select, signal, socket, sys, time

FOLDER = os.path.dirname(sys.argv[0])
listener = socket.socket(fileno=3)

def note(*words):
    with open(f"{FOLDER}/journal", "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def notify(*assignments):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
        manager.send("\\n".join(assignments).encode())

def answer(data):
    with listener.accept()[0] as conn:
        conn.sendall(str(data).encode())
"""

# Tells each client its number, for ever.
ECHO = "while True:\n    answer(os.getpid())\n"
OFTEN = "StartLimitIntervalSec=0\n"
OFTEN_SOCKET = "TriggerLimitIntervalSec=0\n"


def write(
    folder: Path, code: str = ECHO, *, name: str = "a", socket: str = "", service: str = "", unit: str = ""
) -> str:
    """Write a pair of units whose socket is NAME.sk; return the socket unit's path."""
    (folder / f"{name}.py").write_text(PRELUDE + code)
    (folder / f"{name}.socket").write_text(f"[Socket]\nListenStream={folder}/{name}.sk\n{socket}")
    template = "@" if "Accept=yes" in socket else ""
    (folder / f"{name}{template}.service").write_text(
        f"[Unit]\n{unit}[Service]\nExecStart={sys.executable} -S {folder}/{name}.py\n{service}"
    )
    return str(folder / f"{name}.socket")


def ask(path: Path) -> bytes:
    with connect(path) as sock:
        return receive(sock, 1 << 16)


def journal(folder: Path) -> list[str]:
    path = folder / "journal"
    return path.read_text().splitlines() if path.exists() else []


def nodes(folder: Path) -> set[str]:
    """What is not part of the units."""
    return {path.name for path in folder.iterdir() if path.suffix not in (".socket", ".service", ".py")}


@contextmanager
def drained(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Read its messages meanwhile, and end it."""
    assert process.stderr
    reader = threading.Thread(target=process.stderr.readall)  # type: ignore[attr-defined]
    reader.start()
    try:
        yield
    finally:
        process.terminate()
        process.wait(LIMIT)
        reader.join(LIMIT)


# Signals

RELOADS = """
def reload(number, frame):
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    note("reloaded")
    notify("READY=1", "STATUS=reloaded")

signal.signal(signal.SIGHUP, reload)
notify("READY=1")
"""


@pytest.mark.parametrize(
    "service",
    ["Type=notify-reload\n", "Type=notify\nExecReload=kill -HUP $MAINPID\n"],
    ids=["notify-reload", "ExecReload"],
)
def test_a_hangup_reloads_what_runs_and_ends_nothing(tmp_path: Path, service: str) -> None:
    unit = write(tmp_path, RELOADS + ECHO, service=service)
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        before = ask(tmp_path / "a.sk")
        said(process, b"it is ready")
        for number in (1, 2, 3):
            process.send_signal(signal.SIGHUP)
            eventually(lambda number=number: journal(tmp_path) == ["reloaded"] * number, "it has reloaded")  # type: ignore[misc]
            assert ask(tmp_path / "a.sk") == before
        assert said(process, b"status: reloaded")


def test_a_hangup_with_nothing_to_reload_ends_nothing(tmp_path: Path) -> None:
    unit = write(tmp_path, RELOADS + ECHO, service="Type=notify-reload\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        process.send_signal(signal.SIGHUP)
        assert alive(int(ask(tmp_path / "a.sk")))


def a_child_waits(pid: int) -> bool:
    """Whether a child of socket-activate waits for the first client."""
    opened: set[str] = set()
    for child in other_than_programs(pid):
        with suppress(OSError):
            opened |= {os.readlink(link) for link in Path(f"/proc/{child}/fd").iterdir()}
    return "anon_inode:[eventpoll]" in opened


def test_a_hangup_reloads_what_a_client_has_just_started(tmp_path: Path) -> None:
    # The first client starts the service without socket-activate, which the scheduler may run much later.
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        unit = write(folder, RELOADS + 'note("ready")\n' + ECHO, service="Type=notify-reload\n")
        with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
            eventually(lambda pid=process.pid: a_child_waits(pid), "a child waits for the client")  # type: ignore[misc]
            process.send_signal(signal.SIGSTOP)
            ask(folder / "a.sk")
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGCONT)
            eventually(lambda folder=folder: journal(folder) == ["ready", "reloaded"], "it has reloaded")  # type: ignore[misc]


STUBBORN = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: note(signal.Signals(number).name))
"""


@pytest.mark.parametrize(
    ("service", "seen"),
    [("TimeoutStopSec=2s\n", "SIGTERM"), ("TimeoutStopSec=2s\nKillSignal=SIGUSR1\n", "SIGUSR1")],
    ids=["SIGTERM", "KillSignal="],
)
def test_a_signal_stops_by_the_units_rules(tmp_path: Path, service: str, seen: str) -> None:
    unit = write(tmp_path, STUBBORN + ECHO, service=service)
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        pid = int(ask(tmp_path / "a.sk"))
        process.terminate()
        assert process.wait(LIMIT) == 0
    assert journal(tmp_path) == [seen]
    assert not alive(pid)
    assert nodes(tmp_path) == {"journal"}


def test_the_end_of_a_main_process_that_was_named_is_the_end_of_the_one_that_named_it(tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: (note("SIGTERM"), os._exit(0)))
reader, writer = os.pipe()
main = os.fork()
if not main:
    os.close(writer)
    os.read(reader, 1)
    os._exit(3)
notify("READY=1", f"MAINPID={main}")
conn = listener.accept()[0]  # stays open until this process ends: the client leaves when all is noted
note("started")
os.close(writer)
while True:
    signal.sigtimedwait([], 0.05)
"""
    unit = write(tmp_path, code, service="Type=notify\nNotifyAccess=all\nRestart=always\nRestartSec=1ms\n", unit=OFTEN)
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0):
        for _ in range(20):
            with connect(tmp_path / "a.sk") as sock:
                assert receive(sock, 1) == b""
    journal = (tmp_path / "journal").read_text().split()
    assert journal[:40] == ["started", "SIGTERM"] * 20


def test_a_watchdog_that_is_fed_just_when_it_bites_bites_or_does_not(tmp_path: Path) -> None:
    code = """
notify("READY=1")
while True:
    time.sleep(0.0302)
    note("fed")
    notify("WATCHDOG=1")
"""
    service = "Type=notify\nWatchdogSec=30ms\nRuntimeMaxSec=1h\nRestart=always\nRestartSec=1ms\n"
    unit = write(tmp_path, code, service=service, unit=OFTEN)
    journal = tmp_path / "journal"
    with running(SOCKET_ACTIVATE, "--now", unit, until=b"listening", status=0) as process:
        eventually(lambda: journal.exists() and journal.read_text().count("fed") > 50, "it was fed often")
        process.terminate()
        assert process.stderr
        text = process.stderr.read()
    assert b"RuntimeMaxSec" not in text
    assert b"Traceback" not in text


def test_a_second_interrupt_ends_all_at_once(tmp_path: Path) -> None:
    units = [write(tmp_path, STUBBORN + ECHO, name=name, service="TimeoutStopSec=infinity\n") for name in "ab"]
    with running(SOCKET_ACTIVATE, *units, until=b"b.sk", status=0) as process:
        pids = [int(ask(tmp_path / f"{name}.sk")) for name in "ab"]
        process.send_signal(signal.SIGINT)
        eventually(lambda: len(journal(tmp_path)) == 2, "both were asked to end")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0
    assert not any(map(alive, pids))
    assert nodes(tmp_path) == {"journal"}


def test_a_second_signal_at_any_moment_of_the_end_does_not_change_the_exit_status(tmp_path: Path) -> None:
    unit = write(tmp_path)
    for milliseconds in range(0, 60, 2):
        with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
            ask(tmp_path / "a.sk")
            process.terminate()
            time.sleep(milliseconds / 1000)
            process.terminate()
            assert process.wait(LIMIT) == 0, f"the second one came {milliseconds} ms after the first"


def test_a_signal_just_after_it_has_given_up_does_not_change_the_exit_status(tmp_path: Path) -> None:
    unit = write(tmp_path, "sys.exit(1)", service="Restart=always\nRestartSec=1ms\n", unit="StartLimitIntervalSec=1h\n")
    for milliseconds in range(0, 30, 2):
        with running(SOCKET_ACTIVATE, "--now", unit, until=b"given up") as process:
            time.sleep(milliseconds / 1000)
            process.terminate()
            assert process.wait(LIMIT) == 1, f"{milliseconds} ms after it has given up"


def test_a_service_narrows_who_may_notify_for_it(tmp_path: Path) -> None:
    code = """
notify("NOTIFYACCESS=main", "READY=1")
if not os.fork():
    notify("STATUS=of the child")
    os._exit(0)
os.wait()
notify("NOTIFYACCESS=nonsense")
notify("STATUS=of the parent")
"""
    unit = write(tmp_path, code + ECHO, service="Type=notify\nNotifyAccess=all\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        ask(tmp_path / "a.sk")
        text = said(process, b"of the parent")
    assert b"was dropped: NotifyAccess=main" in text
    assert b"NOTIFYACCESS=nonsense was ignored; expected one of none, main, exec, all" in text
    assert b"of the child" not in text


@pytest.mark.parametrize(
    ("service", "kept"),
    [
        ("", False),
        ("FileDescriptorStorePreserve=yes\n", True),
        ("FileDescriptorStorePreserve=no\n", False),
        ("FileDescriptorStorePreserve=restart\nRestart=always\nRestartSec=1ms\n", True),
        ("FileDescriptorStorePreserve=no\nRestart=always\nRestartSec=1ms\n", False),
    ],
)
def test_the_store_outlasts_the_service_or_does_not(tmp_path: Path, service: str, kept: bool) -> None:
    code = """
reader, writer = os.pipe()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
    manager.connect(os.environ["NOTIFY_SOCKET"])
    socket.send_fds(manager, [b"FDSTORE=1\\nFDNAME=stored"], [os.memfd_create("a")])
answer(os.environ["LISTEN_FDNAMES"])
"""
    unit = write(tmp_path, code, service=f"FileDescriptorStoreMax=9\n{service}")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0):
        assert ask(tmp_path / "a.sk") == b"a.socket"
        assert ask(tmp_path / "a.sk") == (b"a.socket:stored" if kept else b"a.socket")


# What is left

# It leaves processes in sessions of their own behind, as a daemon of old does.
DAEMONIZES = """
for _ in range(2):
    if not os.fork():
        os.setsid()
        if not os.fork():
            time.sleep(1000)
        time.sleep(1000)
"""


def marked(mark: str) -> list[int]:
    """The processes that have the mark in their environment."""
    found = []
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
        except OSError:
            pass  # it has ended, or is another user's
    return found


def test_killed_at_any_moment_it_leaves_no_process_and_no_path(tmp_path: Path) -> None:
    made = tmp_path / "made"
    more = f"ListenFIFO={made}/fifo\nListenStream={made}/in/side.sk\n"
    units = [
        write(tmp_path, DAEMONIZES + ECHO, socket=more),
        write(tmp_path, DAEMONIZES + ECHO, name="b", socket=f"Symlinks={made}/link\n"),
    ]
    chance = random.Random(9)

    def come(served: threading.Event, over: threading.Event) -> None:
        while not over.is_set():
            for name in "ab":
                try:
                    ask(tmp_path / f"{name}.sk")
                    served.set()
                except OSError:
                    over.wait(0.01)

    for number in range(30):
        mark, served, over = f"MARK={uuid.uuid4()}", threading.Event(), threading.Event()
        environment = {**os.environ, "MARK": mark.removeprefix("MARK=")}
        client = threading.Thread(target=come, args=[served, over])
        with subprocess.Popen([SOCKET_ACTIVATE, *units], stderr=subprocess.DEVNULL, env=environment) as process:
            client.start()
            try:
                if number % 3:
                    eventually(lambda: (tmp_path / "b.sk").exists(), "it listens")
                if number % 3 == 2:
                    assert served.wait(LIMIT)
                time.sleep(chance.uniform(0, 0.1))
                process.kill()
                process.wait(LIMIT)
            finally:
                over.set()
                client.join(LIMIT)
        eventually(lambda mark=mark: not marked(mark), f"no process is left, try {number}")  # type: ignore[misc]
        assert nodes(tmp_path) == set(), f"try {number}"


def test_stopped_it_ends_what_a_service_has_left_in_sessions_of_their_own(tmp_path: Path) -> None:
    unit = write(tmp_path, DAEMONIZES + "answer(os.getpid())\n")
    mark = f"MARK={uuid.uuid4()}"
    environment = {**os.environ, "MARK": mark.removeprefix("MARK=")}
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0, env=environment) as process:
        ask(tmp_path / "a.sk")
        said(process, b"the next client starts it again")  # which is when all of it has ended
        eventually(
            lambda: set(marked(mark)) == {process.pid, *other_than_programs(process.pid)}, "nothing else is left"
        )
    eventually(lambda: not marked(mark), "no process is left")


def test_stopped_it_signals_children_with_a_session_and_an_environment_of_their_own(tmp_path: Path) -> None:
    # As a container's process is. The service itself passes nothing on.
    child = "import os, signal; os.setsid(); print(flush=True); signal.sigwait({signal.SIGTERM})"
    code = f"""
import subprocess
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}})
process = subprocess.Popen([sys.executable, "-c", {child!r}], env={{}}, stdout=subprocess.PIPE)
process.stdout.readline()
answer("started")
note("the child ended with", process.wait())
"""
    unit = write(tmp_path, code)
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0):
        assert ask(tmp_path / "a.sk") == b"started"
    assert (tmp_path / "journal").read_text() == "the child ended with 0\n"


def test_without_its_executor_it_ends_and_removes_what_it_made(tmp_path: Path) -> None:
    unit = write(tmp_path)
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=1) as process:
        pid = int(ask(tmp_path / "a.sk"))
        os.kill(other_than_programs(process.pid)[0], signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        assert process.wait(LIMIT) == 1
    assert nodes(tmp_path) == set()


@pytest.mark.parametrize("which", ["the one ahead", "the one that waits for clients"])
def test_clients_are_served_although_its_own_children_are_killed(tmp_path: Path, which: str) -> None:
    unit = write(tmp_path, "answer(1)\n", unit=OFTEN, socket=OFTEN_SOCKET)
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process, drained(process):
        for _ in range(50 if which == "the one ahead" else 3):
            eventually(lambda: len(other_than_programs(process.pid)) == 3, "both are there")
            os.kill(other_than_programs(process.pid)[-1 if which == "the one ahead" else 1], signal.SIGKILL)
            assert ask(tmp_path / "a.sk") == b"1"


def test_stopped_at_any_moment_of_a_storm_of_clients_it_leaves_nothing(tmp_path: Path) -> None:
    unit = write(tmp_path, "answer(1)\n", unit=OFTEN, socket=OFTEN_SOCKET)
    chance = random.Random(11)
    for number in range(15):
        mark, over = f"MARK={uuid.uuid4()}", threading.Event()

        def come(over: threading.Event = over) -> None:
            while not over.is_set():
                with suppress(OSError):
                    ask(tmp_path / "a.sk")

        environment = {**os.environ, "MARK": mark.removeprefix("MARK=")}
        with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0, env=environment) as process, drained(process):
            clients = [threading.Thread(target=come) for _ in range(3)]
            for client in clients:
                client.start()
            try:
                assert ask(tmp_path / "a.sk") == b"1"
                time.sleep(chance.uniform(0, 0.02))
                process.terminate()
                assert process.wait(LIMIT) == 0
            finally:
                over.set()
                for client in clients:
                    client.join(LIMIT)
        assert marked(mark) == [], f"try {number}"
        assert nodes(tmp_path) == set(), f"try {number}"


def other_than_programs(pid: int) -> list[int]:
    """What a socket-activate has forked for its own use, the oldest first: the executor."""
    lists = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    programs = children(pid)
    return [number for text in lists for number in map(int, text.split()) if number not in programs]


# Options


def test_now_starts_all_services_without_a_client_when_all_sockets_are_there(tmp_path: Path) -> None:
    names = "abc"
    code = "note(sum(os.path.exists(f'{FOLDER}/{name}.sk') for name in 'abc'))\n" + ECHO
    units = [write(tmp_path, code, name=name) for name in names]
    with running(SOCKET_ACTIVATE, "--now", *units, until=b"listening", status=0) as process:
        eventually(lambda: journal(tmp_path) == ["3"] * 3, "all have started")
        assert len(children(process.pid)) == 3
        assert {int(ask(tmp_path / f"{name}.sk")) for name in names} == set(children(process.pid))


def test_several_units_side_by_side_each_have_their_own_life(tmp_path: Path) -> None:
    units = [write(tmp_path, name=name) for name in "ab"]
    units.append(write(tmp_path, "answer('once')\n", name="c"))
    with running(SOCKET_ACTIVATE, *units, until=b"c.sk", status=0) as process:
        first = ask(tmp_path / "a.sk")
        assert len(children(process.pid)) == 1
        assert ask(tmp_path / "c.sk") == ask(tmp_path / "c.sk") == b"once"
        assert ask(tmp_path / "b.sk") != first
        assert ask(tmp_path / "a.sk") == first


def test_two_socket_units_share_one_service(tmp_path: Path) -> None:
    unit = write(tmp_path, "answer(os.environ['LISTEN_FDNAMES'])\n")
    other = tmp_path / "b.socket"
    other.write_text(f"[Socket]\nListenFIFO={tmp_path}/fifo\nService=a.service\nFileDescriptorName=other\n")
    with running(SOCKET_ACTIVATE, unit, str(other), until=b"fifo", status=0):
        assert ask(tmp_path / "a.sk") == b"a.socket:other"


def test_a_service_has_the_sockets_that_it_shares_from_its_client_on(tmp_path: Path) -> None:
    # It learns late of a client that has come, and the next child that waits is quicker than it.
    late = """
import sys, time
import trio
from activation_cmd.socket_activate import main as socket_activate
from activation_cmd.socket_activate.processes.reaper import Reaper
from activation_cmd.socket_activate.processes.spare import Spare
real_chosen, real_fork = Spare._chosen, Reaper.fork
async def chosen(self, child):
    await real_chosen(self, child)
    await trio.sleep(1)
def fork(self, starts, *, at_once):
    child = real_fork(self, starts, at_once=at_once)
    time.sleep(0.3)
    return child
Spare._chosen, Reaper.fork = chosen, fork
sys.exit(socket_activate.main(sys.argv[1:]))
"""
    holds = "conn = listener.accept()[0]\nconn.sendall(b'served')\nconn.recv(1)\n"
    own = "listener = socket.socket(fileno=3 + os.environ['LISTEN_FDNAMES'].split(':').index('b.socket'))\n"
    a = write(tmp_path, holds)
    b = write(tmp_path, own + holds, name="b", service="Sockets=b.socket a.socket\n")
    with running(sys.executable, "-c", late, a, b, until=b"b.sk", status=0) as process:
        for _ in range(3):
            with connect(tmp_path / "b.sk") as client:
                assert receive(client, 6) == b"served"
                # This one comes before socket-activate has learnt of the first, for whom b started without it.
                other = connect(tmp_path / "a.sk")
                said(process, b"b.service: a client came")
                other.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    other.recv(6)
                other.settimeout(LIMIT)
            with other:
                assert receive(other, 6) == b"served"
            said(process, b"a.service: pid")


def test_the_units_of_this_project_serve_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(SCRIPTS), prepend=os.pathsep)
    port = free_port()
    for file in UNITS.glob("*.*"):
        (tmp_path / file.name).write_text(
            file.read_text().replace("=/run/", f"={tmp_path}/").replace("2007", str(port))
        )
    units = [str(tmp_path / f"{name}.socket") for name in ("foobar", "foobar-inet", "foobar-accept")]
    with running(SOCKET_ACTIVATE, *units, until=b"accept.sk", status=0) as process:
        for address in (tmp_path / "foobar.sk", ("127.0.0.1", port), tmp_path / "foobar-accept.sk"):
            with connect(address) as client:
                assert echoed(client, b"hello") == b"hello"
        said(process, b"exited with status 0")
        assert len(children(process.pid)) == 2


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ([], {"HERE": "1", "OTHER": "2", "HOME": os.environ.get("HOME"), "UNIT": "3"}),
        (["--clean-env"], {"HERE": None, "HOME": None, "UNIT": "3"}),
        (["--clean-env", "-E", "HERE", "-E", "GIVEN=a=b"], {"HERE": "1", "OTHER": None, "GIVEN": "a=b", "UNIT": "3"}),
        (["-E", "OTHER=4", "--setenv=UNIT=5"], {"HERE": "1", "OTHER": "4", "UNIT": "3"}),
    ],
    ids=" ".join,
)
def test_the_environment_is_passed_on_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], seen: dict[str, str | None]
) -> None:
    monkeypatch.setenv("HERE", "1")
    monkeypatch.setenv("OTHER", "2")
    monkeypatch.setenv("LISTEN_FDS", "7")
    monkeypatch.setenv("MAINPID", "1")
    unit = write(tmp_path, "answer(json.dumps(dict(os.environ)))\n", service="Environment=UNIT=3\n")
    with running(SOCKET_ACTIVATE, *options, unit, until=b"listening", status=0):
        environment = json.loads(ask(tmp_path / "a.sk"))
    assert {name: environment.get(name) for name in seen} == seen
    assert environment["LISTEN_FDS"] == "1"
    assert "MAINPID" not in environment


def test_once_it_becomes_the_command_whose_the_path_is_then(tmp_path: Path) -> None:
    path, report = tmp_path / "a.sk", tmp_path / "report"
    command = ["sh", "-c", f"echo $$ $LISTEN_PID $LISTEN_FDS >{report}"]
    with running(SOCKET_ACTIVATE, "--once", "-l", str(path), "--", *command, until=b"listening", status=0) as process:
        with connect(path):
            assert process.wait(LIMIT) == 0
        assert report.read_text().split() == [str(process.pid), str(process.pid), "1"]
        assert path.is_socket()


def test_once_a_signal_before_the_first_client_ends_it_and_removes_the_path(tmp_path: Path) -> None:
    command = [SOCKET_ACTIVATE, "--once", "-l", str(tmp_path / "a.sk"), "true"]
    for moment in (0, 0.005, 0.05, 0.2):
        with running(*command, until=b"listening", status=0) as process:
            time.sleep(moment)
            process.terminate()
            process.wait(LIMIT)
        assert nodes(tmp_path) == set(), f"{moment} s after it listens"


def test_once_goes_on_to_ignore_what_is_ignored(tmp_path: Path) -> None:
    code = "import socket; socket.socket(fileno=3).accept()[0].send(b'here')"
    command = (SOCKET_ACTIVATE, "--once", "-l", str(tmp_path / "a.sk"), sys.executable, "-c", code)
    ignore = "trap '' HUP; exec \"$@\""
    with running("sh", "-c", ignore, "sh", *command, until=b"listening", status=0) as process:
        for _ in range(20):
            process.send_signal(signal.SIGHUP)
        with connect(tmp_path / "a.sk") as sock:
            assert receive(sock, 4) == b"here"
        assert process.wait(LIMIT) == 0


# Becomes a command that ignores what a shell's background or nohup has it ignore, and worse, and with all else blocked.
DEAF = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for number in {*signal.valid_signals()} - {signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""

TELLS_SIGNALS = """
while True:
    with open("/proc/self/status") as status:
        answer(json.dumps({line[:6]: int(line[8:], 16) for line in status if line[:6] in ("SigBlk", "SigIgn")}))
    os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize("by_unit", [True, False])
def test_signals_that_it_was_started_to_ignore_or_block_are_the_services_to_hear(tmp_path: Path, by_unit: bool) -> None:
    unit = write(tmp_path, TELLS_SIGNALS)
    # The C library keeps 32 and 33 for itself, and Python's SIGPIPE and SIGXFSZ are ignored by the service's own.
    seen = {"SigBlk": 0, "SigIgn": 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1}
    what = [unit] if by_unit else ["-l", str(tmp_path / "a.sk"), sys.executable, "-S", str(tmp_path / "a.py")]
    with running(sys.executable, "-c", DEAF, SOCKET_ACTIVATE, *what, until=b"listening", status=0) as process:
        for _ in range(2):
            found = json.loads(ask(tmp_path / "a.sk"))
            assert {name: value & ~(3 << 31) for name, value in found.items()} == seen
            said(process, b"SIGINT")
            process.send_signal(signal.SIGHUP)  # which it was started to ignore itself
    assert nodes(tmp_path) == set()


@pytest.mark.parametrize("moment", ["sockets.listening.Listening", "run.say_log", "run.Spare", "run.Assembly"])
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_while_it_starts_is_heard(tmp_path: Path, moment: str, number: str) -> None:
    module, _, name = moment.rpartition(".")
    code = f"""
import signal, sys
from activation_cmd.socket_activate import main as socket_activate
import activation_cmd.socket_activate.{module} as module
real = module.{name}
def at_this_moment(*arguments, **options):
    signal.raise_signal(signal.{number})
    return real(*arguments, **options)
module.{name} = at_this_moment
sys.exit(socket_activate.main(["-l", {str(tmp_path / "a.sk")!r}, "true"]))
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    assert nodes(tmp_path) == set()


@pytest.mark.parametrize("by_unit", [True, False])
def test_it_listens_before_it_loads_an_event_loop(tmp_path: Path, by_unit: bool) -> None:
    unit = write(tmp_path, 'answer("hello")')
    code = f"""
import socket, sys
from activation_cmd.socket_activate import main as socket_activate
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("attr", "attrs", "trio"):
            sys.meta_path.remove(self)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect({str(tmp_path / "a.sk")!r})
            print("connected", file=sys.stderr, flush=True)
sys.meta_path.insert(0, Finder())
sys.exit(socket_activate.main(sys.argv[1:]))
"""
    what = [unit] if by_unit else ["-l", str(tmp_path / "a.sk"), "true"]
    with running(sys.executable, "-c", code, *what, until=b"connected", status=0):
        pass


def test_a_signal_to_a_service_that_has_just_been_forked_is_heard(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from activation_cmd.socket_activate import main as socket_activate
real, calls = os.setsid, []
def setsid():
    real()
    calls.append(os.getpid())
    if len(calls) == 2:  # the first is the executor's
        os.kill(os.getpid(), signal.SIGTERM)
os.setsid = setsid
sys.exit(socket_activate.main(["--now", "-l", {str(tmp_path / "a.sk")!r}, "sleep", "1000"]))
"""
    with running(sys.executable, "-c", code, until=b"was ended by SIGTERM", status=0):
        pass


def test_what_is_set_for_services_is_set_though_the_environment_is_clean() -> None:
    found = unit_environment(["HOME=/x", "OTHER=1", "TERM=dumb"], clean=True)
    assert found == {"PATH": UNIT_PATH, "HOME": "/x", "OTHER": "1", "TERM": "dumb"}
    assert unit_environment(["PATH=/bin"], clean=True) == {"PATH": "/bin"}


def test_check_says_what_would_be_done_and_does_nothing(tmp_path: Path) -> None:
    units = [
        write(tmp_path, socket="FileDescriptorName=front\n", service="Type=notify\nWatchdogSec=5\nRestart=always\n"),
        write(tmp_path, name="b", socket=f"Accept=yes\nListenSequentialPacket=@{tmp_path}\n"),
    ]
    (tmp_path / "b@.service").write_text("[Service]\nExecStart=/surely/not/there\n")
    done = run(SOCKET_ACTIVATE, "--check", *units)
    assert done.returncode == 0
    text = done.stdout.decode()
    for words in (
        f"a.socket: listens on {tmp_path}/a.sk (stream), passed as front",
        "a.socket: starts a.service for the first client",
        f"a.service: runs {sys.executable} -S {tmp_path}/a.py (Type=notify)",
        "WATCHDOG=1 within 5 s",
        "Restart=always",
        f"b.socket: listens on @{tmp_path} (seqpacket)",
        "for each connection",
        "/surely/not/there, which is no program that can be run here",
    ):
        assert words in text
    assert nodes(tmp_path) == set()


GRACEFUL = """
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGTERM, lambda *_: None)
with open(f"{FOLDER}/watched/version") as file:
    version = file.read()
while reader not in select.select([listener, reader], [], [])[0]:
    answer(version)
"""


@pytest.fixture
def watchfiles() -> None:
    pytest.importorskip("watchfiles")


@pytest.mark.usefixtures("watchfiles")
def test_a_change_of_what_is_watched_restarts_what_runs_and_refuses_nobody(tmp_path: Path) -> None:
    version = tmp_path / "watched" / "version"
    version.parent.mkdir()
    version.write_text("1")
    unit = write(tmp_path, GRACEFUL, unit=OFTEN, socket=OFTEN_SOCKET)
    over = threading.Event()

    def come() -> set[bytes]:
        answers = set()
        while not over.is_set():
            answers.add(ask(tmp_path / "a.sk"))
        return answers

    with running(SOCKET_ACTIVATE, "--watch", str(version.parent), unit, until=b"listening", status=0) as process:
        with ThreadPoolExecutor(4) as pool:
            try:
                clients = [pool.submit(come) for _ in range(4)]
                for number in "23":
                    version.write_text(number)
                    eventually(lambda number=number: ask(tmp_path / "a.sk") == number.encode(), "it has restarted")  # type: ignore[misc]
            finally:
                over.set()
        assert set.union(*(client.result() for client in clients)) <= {b"1", b"2", b"3"}
        assert b"version changed" in said(process, b"changed")


# Accept=yes

HOLDS = """
listener.sendall(b"served")
listener.recv(1)
"""


def test_more_connections_than_there_may_be_are_dropped_until_one_has_ended(tmp_path: Path) -> None:
    unit = write(tmp_path, HOLDS, socket="Accept=yes\nMaxConnections=2\n")
    path = tmp_path / "a.sk"
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:
        with connect(path) as first, connect(path) as second:
            assert receive(first, 6) == receive(second, 6) == b"served"
            assert len(children(process.pid)) == 2
            assert receive_all(path) == b""
            second.close()
            said(process, b"exited with status 0")
            with connect(path) as third:
                assert receive(third, 6) == b"served"
                assert receive_all(path) == b""
        eventually(lambda: not children(process.pid), "all have ended")


def receive_all(path: Path) -> bytes:
    with connect(path) as sock:
        try:
            return sock.recv(100)
        except ConnectionResetError:
            return b""


# Storms


@pytest.mark.parametrize(
    "service", ["", "Restart=always\nRestartSec=0\n"], ids=["by the next client", "Restart=always"]
)
def test_a_thousand_clients_and_none_is_refused_while_the_service_is_killed(tmp_path: Path, service: str) -> None:
    unit = write(tmp_path, unit=OFTEN, socket=OFTEN_SOCKET, service=service)
    served: list[bytes] = []
    killed: list[int] = []

    def come(number: int) -> None:
        with connect(tmp_path / "a.sk") as sock:  # what raises here is a failure
            for pid in children(process.pid) if number % 20 == 0 else ():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            with suppress(ConnectionResetError):
                if answer := receive(sock, 20):
                    served.append(answer)

    with running(SOCKET_ACTIVATE, unit, until=b"listening") as process, drained(process):
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(come, range(1000)))
        assert ask(tmp_path / "a.sk")
    assert len(served) > 900
    assert len(set(killed)) > 10
    assert process.returncode == 0
    assert nodes(tmp_path) == set()


def test_activations_leave_no_descriptor_no_process_and_no_memory_behind(tmp_path: Path) -> None:
    unit = write(tmp_path, "answer(1)\n", unit=OFTEN, socket=OFTEN_SOCKET, service="FileDescriptorStoreMax=3\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=0) as process:

        def activate(times: int) -> None:
            for _ in range(times):
                ask(tmp_path / "a.sk")
                said(process, b"the next client starts it again")

        def kinds() -> list[str]:
            return sorted(re.sub(r"\d+", "", link) for link in open_descriptors(process.pid).values())

        def forked() -> int:
            return len(children(process.pid)) + len(other_than_programs(process.pid))

        def settled() -> list[str]:
            waits = lambda: not children(process.pid) and len(other_than_programs(process.pid)) == 3  # noqa: E731
            eventually(waits, "one waits for the next client, and one for its order")
            seen: list[str] = []
            while seen != (now := kinds()):  # until all is told that there is to tell of it
                seen = now
                time.sleep(0.2)
            return seen

        activate(20)
        before, memory = settled(), resident(process.pid)
        activate(100)
        assert settled() == before
        assert resident(process.pid) - memory < 1 << 20


# What cannot be


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.socket", "-l", "b.sk"], "-l goes with a COMMAND, not with unit files"),
        (["--accept", "a.socket"], "--accept goes with -l; unit files say that themselves"),
        (["a.socket", "--fdname=a"], "--fdname goes with -l"),
        (["--once", "a.socket"], "--once goes with -l"),
        (["--inetd", "a.socket"], "--inetd goes with -l"),
        (["-d", "--seqpacket", "-l", "a.sk", "true"], "--datagram and --seqpacket are two kinds"),
        (["-d", "-a", "-l", "a.sk", "true"], "datagrams and FIFOs have no connections"),
        (["-a", "--listen-fifo", "a", "true"], "datagrams and FIFOs have no connections"),
        (["-a", "--listen-datagram", "a", "-l", "b", "true"], "datagrams and FIFOs have no connections"),
        (["--once", "--watch", ".", "-l", "a.sk", "true"], "with --once there is nobody to --watch"),
        (["--fdname", "a\nb", "-l", "./a.sk", "true"], "--fdname has 'a\\nb': expected a name in ASCII"),
        (["--fdname", "a:ä", "-l", "./a.sk", "-l", "./b.sk", "true"], "--fdname has 'ä': expected a name in ASCII"),
        (["-a", "--now", "-l", "./a.sk", "true"], "--accept starts a COMMAND for each connection, and --now for none"),
        (["-l", "192.168.1.1", "true"], "'192.168.1.1' is no address; expected a path with a slash in it"),
        (["-l", "junk", "true"], "'junk' is no address; expected a path with a slash in it"),
        (["-l", "not an address", "true"], "'not an address' is no address"),
        (["-l", "./a.sk", "-l", "./a.sk", "true"], "'./a.sk' is listed twice"),
        (["--listen-sequential-packet", "80", "true"], "'80' has no sequential packets"),
        (["--user", "-l", "./a.sk", "true"], "--user goes with unit files"),
        (["-a", "--once", "-l", "a.sk", "true"], "--accept starts a COMMAND for each connection, --once only one"),
        (["--inetd", "-l", "a.sk", "-l", "b.sk", "true"], "--inetd passes one socket, not 2"),
        (["-l", "./a.sk", "-E", "=1", "true"], "--setenv '=1' has no name"),
        (["a.socket", "-E", ""], "--setenv '' has no name"),
        (["--watch", "surely-not-there", "a.socket"], "--watch"),
        (["--surely-no-option"], "unrecognized arguments: --surely-no-option"),
        (["--now"], "expected -l ADDR and a COMMAND, or unit files"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_go_together_is_wrong_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    with pytest.raises(SystemExit) as end:
        socket_activate.main(arguments)
    assert end.value.code == 2
    assert words in capfd.readouterr().err
    assert nodes(tmp_path) == set()


GOOD_SOCKET, GOOD_SERVICE = "[Socket]\nListenStream=/a/b\n", "[Service]\nExecStart=true\n"


def of_service(text: str) -> dict[str, str | bytes]:
    return {"a.socket": GOOD_SOCKET, "a.service": text}


# The files, and where the first error is.
BAD: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no socket unit": ({}, "a.socket: "),
    "no service": ({"a.socket": GOOD_SOCKET}, "a.socket: |a.service: "),
    "no template": ({"a.socket": f"{GOOD_SOCKET}Accept=yes\n", "a.service": GOOD_SERVICE}, "a.socket: |a@.service: "),
    "no section": ({"a.socket": "ListenStream=/a\n"}, "a.socket:1: "),
    "no end of a section": ({"a.socket": "[Socket\n"}, "a.socket:1: "),
    "no assignment": ({"a.socket": f"{GOOD_SOCKET}nonsense\n"}, "a.socket:3: "),
    "no key": ({"a.socket": f"{GOOD_SOCKET}=1\n"}, "a.socket:3: "),
    "nothing to listen on": ({"a.socket": "[Socket]\n"}, "a.socket: "),
    "an empty file": ({"a.socket": ""}, "a.socket: "),
    "no text": ({"a.socket": b"[Socket]\nListenStream=\xff\x00\n"}, "a.socket:2: "),
    "random bytes": ({"a.socket": random.Random(1).randbytes(4000)}, "a.socket:"),
    "a line of a million": ({"a.socket": f"{GOOD_SOCKET}SocketMode={'7' * 1_000_000}\n"}, "a.socket:3: "),
    "a path that is too long": ({"a.socket": f"[Socket]\nListenStream=/{'a' * 200}\n"}, "a.socket:2: "),
    "a port that is none": ({"a.socket": "[Socket]\nListenStream=65536\n"}, "a.socket:2: "),
    "a host name": ({"a.socket": "[Socket]\nListenDatagram=localhost:80\n"}, "a.socket:2: "),
    "a seqpacket port": ({"a.socket": "[Socket]\nListenSequentialPacket=80\n"}, "a.socket:2: "),
    "a relative FIFO": ({"a.socket": "[Socket]\nListenFIFO=a\n"}, "a.socket:2: "),
    "a netlink family that is none": ({"a.socket": "[Socket]\nListenNetlink=Nonsense!\n"}, "a.socket:2: "),
    "a queue that is none": ({"a.socket": "[Socket]\nListenMessageQueue=a\n"}, "a.socket:2: "),
    "a mode that is none": ({"a.socket": f"{GOOD_SOCKET}SocketMode=rw\n"}, "a.socket:3: "),
    "a size that is none": ({"a.socket": f"{GOOD_SOCKET}\n\nReceiveBuffer=much\n"}, "a.socket:5: "),
    "a number that is none": ({"a.socket": f"{GOOD_SOCKET}Backlog=-1\n"}, "a.socket:3: "),
    "a boolean that is none": ({"a.socket": f"{GOOD_SOCKET}Accept=maybe\n"}, "a.socket:3: "),
    "a name with a colon": ({"a.socket": f"{GOOD_SOCKET}FileDescriptorName=a:b\n"}, "a.socket:3: "),
    "datagrams to accept": ({"a.socket": "[Socket]\nAccept=yes\nListenDatagram=/a\n"}, "a.socket:3: "),
    "symlinks to two": ({"a.socket": f"{GOOD_SOCKET}ListenStream=/b\nSymlinks=/c\n"}, "a.socket:4: "),
    "a specifier that is none": ({"a.socket": "[Socket]\nListenStream=/%~/%Q\n"}, "a.socket:2: "),
    "a drop-in": ({"a.socket": GOOD_SOCKET, "a.socket.d/x.conf": "[Socket]\nSocketMode=x\n"}, "a.socket.d/x.conf:2: "),
    "no command": (of_service("[Service]\n"), "a.service: "),
    "two commands": (of_service(f"{GOOD_SERVICE}ExecStart=true\n"), "a.service:3: "),
    "an open quotation": (of_service("[Service]\nExecStart=true 'a\n"), "a.service:2: "),
    "a relative program": (of_service("[Service]\nExecStart=a/b\n"), "a.service:2: "),
    "a type that is none": (of_service(f"{GOOD_SERVICE}Type=nonsense\n"), "a.service:3: "),
    "a type not done": (of_service(f"{GOOD_SERVICE}Type=forking\n"), "a.service:3: "),
    "a time that is none": (of_service(f"{GOOD_SERVICE}RestartSec=soon\n"), "a.service:3: "),
    "a signal that is none": (of_service(f"{GOOD_SERVICE}KillSignal=HARD\n"), "a.service:3: "),
    "a variable that is none": (of_service(f"{GOOD_SERVICE}Environment=1=2\n"), "a.service:3: "),
    "a folder that is none": (of_service(f"{GOOD_SERVICE}WorkingDirectory=a\n"), "a.service:3: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_unit_is_an_error_with_its_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    files, where = BAD[name]
    for file, text in files.items():
        Path(file).parent.mkdir(exist_ok=True)
        Path(file).write_bytes(text if isinstance(text, bytes) else text.encode())
    before = sorted(tmp_path.rglob("*"))
    assert socket_activate.main(["a.socket"]) == 1
    errors = [line for line in capfd.readouterr().err.splitlines() if ": error: " in line]
    assert re.match(f"socket-activate: ({where})", errors[0]), errors[0]
    assert all(len(line) < 1000 for line in errors)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "text", ["surely/not/there.socket", "a.service", "a.socket.d", ".", "", "a@.socket", "nonsense"]
)
def test_what_is_no_socket_unit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.socket.d").mkdir()
    Path("a.socket").symlink_to("a.socket")
    assert socket_activate.main([text]) == 1
    assert f"socket-activate: {text}" in capfd.readouterr().err


def test_a_folder_in_the_place_of_a_unit_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.socket").mkdir()
    assert socket_activate.main([str(tmp_path / "a.socket")]) == 1
    assert f"{tmp_path}/a.socket: error: " in capfd.readouterr().err


@pytest.mark.parametrize(
    ("socket", "service", "words"),
    [
        ("ListenStream={0}/file/a.sk\n", "", r"a\.socket:3: .*file/a\.sk"),
        ("ListenFIFO={0}/file\n", "", r"a\.socket:3: .*/file"),
        ("ListenStream=192.0.2.1:80\n", "", r"a\.socket:3: .*192\.0\.2\.1:80"),
        ("SocketUser=surely-nobody\n", "", "SocketUser= is 'surely-nobody': there is no such user"),
        (
            "ListenFIFO={0}/fifo\n",
            "StandardInput=socket\n",
            r"a\.service:4: error: a standard stream can be one socket, not 2",
        ),
        ("", "User=surely-nobody\n", "User= is 'surely-nobody': there is no such user"),
        ("", "Group=surely-nobody\n", "Group= is 'surely-nobody': there is no such group"),
    ],
)
def test_what_cannot_be_made_is_told_and_the_rest_of_it_is_removed(
    tmp_path: Path, socket: str, service: str, words: str
) -> None:
    (tmp_path / "file").touch()
    done = run(SOCKET_ACTIVATE, write(tmp_path, socket=socket.format(tmp_path), service=service))
    assert done.returncode == 1
    assert re.search(words, done.stderr.decode())
    assert b"Traceback" not in done.stderr
    assert nodes(tmp_path) == {"file"}


def test_a_program_that_is_not_there_is_told_and_its_clients_wait_for_the_limit(tmp_path: Path) -> None:
    unit = write(tmp_path, unit="StartLimitBurst=3\n")
    (tmp_path / "a.service").write_text("[Service]\nExecStart=/surely/not/there\nStartLimitBurst=3\n")
    with running(SOCKET_ACTIVATE, unit, until=b"listening", status=1) as process, connect(tmp_path / "a.sk"):
        text = said(process, b"given up")
        assert process.wait(LIMIT) == 1
    assert text.count(b"cannot execute /surely/not/there: No such file or directory") == 3
    assert nodes(tmp_path) == set()
