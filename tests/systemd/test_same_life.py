"""The same little daemon under a real systemd and under socket-activate: what happens to it is the same.

Each tells what it sees in a journal of its own, a line for each event; so do its clients. Times are compared nowhere.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import activation
from tests.commands import LIMIT, SOCKET_ACTIVATE, connect, eventually, receive

from .manager import Manager, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

# What each daemon begins with. Its only argument is its journal; ``first`` tells whether this is its first start.
PRELUDE = """
import array, os, select, signal, socket, subprocess, sys, time

FOLDER = os.path.dirname(sys.argv[1])
NAMES = os.environ.get("LISTEN_FDNAMES", "").split(":")

def note(*words):
    with open(sys.argv[1], "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def notify(*assignments, fds=()):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0", 1))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        manager.sendmsg(["\\n".join(assignments).encode()], rights)

def barrier():
    reader, writer = os.pipe()
    notify("BARRIER=1", fds=[writer])
    os.close(writer)
    assert os.read(reader, 1) == b""

def store(name, content=b"", *more):
    number = os.memfd_create(name)
    os.write(number, content)
    notify("FDSTORE=1", f"FDNAME={name}", *more, fds=[number])
    return number

def accept():
    return socket.socket(fileno=os.dup(3)).accept()[0]

def on(number, action=lambda: None):
    def handle(number, frame):
        # Whoever ends at it notes it once: what is left of a service is signalled again when the main process ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        note(signal.Signals(number).name)
        action()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    signal.signal(number, handle)

def child(action):
    pid = os.fork()
    if not pid:
        action()
        os._exit(0)
    os.waitpid(pid, 0)

def wait():
    while True:
        signal.sigtimedwait([], 0.05)

first = not os.path.exists(sys.argv[1])
if not sys.argv[2:]:
    note("start", *sorted(NAMES[1:]))
"""


class World(NamedTuple):
    """One of the two, and the daemon in it.

    Attributes:
        folder: the daemon's own.
        reload: lets it be reloaded.
        stop: stops it, and all there is.
    """

    folder: Path
    reload: Callable[[], object]
    stop: Callable[[], object]

    @property
    def path(self) -> Path:
        return self.folder / "a.sk"

    @property
    def seen(self) -> list[str]:
        journal = self.folder / "journal"
        return journal.read_text().splitlines() if journal.exists() else []

    def note(self, line: str) -> None:
        with open(self.folder / "journal", "a") as journal:
            journal.write(f"{line}\n")

    def until(self, line: str, times: int = 1) -> None:
        """Wait until the journal has the line so often."""
        eventually(lambda: self.seen.count(line) >= times, f"{line!r} was seen {times} times")


# What clients do.


def client(world: World) -> None:
    """Come, and go when the daemon closes the connection or ends."""
    with connect(world.path) as sock:
        assert receive(sock, 1) == b""


def clients(number: int) -> Callable[[World], None]:
    """Come one after another."""

    def come(world: World) -> None:
        for _ in range(number):
            client(world)

    return come


def until_refused(world: World) -> None:
    """Come, until nobody listens any more."""

    def refused() -> bool:
        try:
            with connect(world.path) as sock:
                sock.settimeout(0.05)
                sock.recv(1)
        except (TimeoutError, ConnectionResetError):
            return False
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        return False

    eventually(refused, "clients are refused")
    world.note("refused")


def client_and_stop_and_go(world: World) -> None:
    """Stop it, and tell what is left of it that it may go."""
    client_and_stop(world)
    (world.folder / "go").touch()


def two_clients_and_another(world: World) -> None:
    """Two come at once; one more when the service has ended."""
    with connect(world.path) as first, connect(world.path):
        world.until("start")
        assert receive(first, 1) == b""

    def started_again() -> bool:
        with connect(world.path) as sock, suppress(TimeoutError):
            sock.settimeout(0.2)
            sock.recv(1)
        return world.seen.count("start") == 2

    eventually(started_again, "another client has started it again")


def client_and_stop(world: World) -> None:
    """Stop it when it has told how it lives."""
    with connect(world.path):
        world.until("ready")
        world.stop()
    world.note("stopped")


def client_and_another(world: World) -> None:
    """The second one does not wait for an answer."""
    client(world)
    connect(world.path).close()


def client_and_reloads(world: World) -> None:
    """Reload it twice."""
    with connect(world.path):
        for number in (1, 2):
            world.until("ready")
            world.reload()
            world.until("reloaded", number)


def client_and_long_reload(world: World) -> None:
    """Reload it and stay until it ends."""
    with connect(world.path) as sock:
        world.until("ready")
        world.reload()
        assert receive(sock, 1) == b""


def until_started(world: World) -> None:
    """Come, and stay until the daemon has begun."""
    with connect(world.path):
        eventually(lambda: any(line.startswith("start") for line in world.seen), "it has started")


class Life(NamedTuple):
    """A daemon, its units, and what its clients and its operator do.

    Attributes:
        sees: its journal, when it is stopped.
    """

    sees: list[str]
    code: str
    service: str = ""
    play: Callable[[World], object] = client
    socket: str = ""
    unit: str = ""


# Within what a unit says in seconds, a daemon has to start or to do something, on a slow machine, too. What it says in
# milliseconds ends a daemon that only waits.
STORE = "FileDescriptorStoreMax=5\nRestart=on-failure\nRestartSec=10ms\n"
READY = "Type=notify\n"
AGAIN = "Restart=always\nRestartSec=10ms\n"
OFTEN = "StartLimitIntervalSec=0\n"
LIBRARY = str(Path(activation.__file__).parents[1])

LIVES = {
    # the store
    "what is stored comes back after the sockets, and duplicates are dropped": Life(
        ["start", "start one two", "[b'1', b'2']"],
        """
if first:
    accept()
    one = store("one", b"1")
    store("two", b"2")
    notify("FDSTORE=1", "FDNAME=duplicate", fds=[one])
    barrier()
    sys.exit(1)
note(sorted(os.pread(number, 9, 0) for number in (4, 5)))
wait()
""",
        STORE,
    ),
    "what is stored without a name is named so, and several may have one name": Life(
        ["start", "start stored stored"],
        """
if first:
    accept()
    notify("FDSTORE=1", fds=[os.memfd_create("a"), os.memfd_create("b")])
    barrier()
    sys.exit(1)
wait()
""",
        STORE,
    ),
    "a full store takes no more": Life(
        ["start", "start a b"],
        """
if first:
    accept()
    for name in "abc":
        store(name)
    barrier()
    sys.exit(1)
wait()
""",
        "FileDescriptorStoreMax=2\n" + AGAIN,
    ),
    "without a maximum nothing is stored": Life(
        ["start", "start"],
        """
if first:
    accept()
    store("a")
    barrier()
    sys.exit(1)
wait()
""",
        "NotifyAccess=main\n" + AGAIN,
    ),
    "a state that the library stores is written anew, and killed in between it is still there": Life(
        ["start", "start state", "start state", "start", "None"],
        f"""
sys.path.insert(0, {LIBRARY!r})
import activation
activation.files(unset_env=False)
state = activation.stored_state("state")
if first:
    accept()
    activation.store_state("state", b"one")
    activation.store_state("state", b"two")
    os.kill(os.getpid(), signal.SIGKILL)
if state == b"two":
    activation.store_state("state", b"three")
    os.kill(os.getpid(), signal.SIGKILL)
if state == b"three":
    activation.unstore("state")
    barrier()
    sys.exit(1)
note(state)
wait()
""",
        STORE + "NotifyAccess=main\n",
        unit=OFTEN,
    ),
    "what is removed does not come back": Life(
        ["start", "start b", "start"],
        """
if first:
    accept()
    store("a"), store("b"), store("a"), store("c")
    notify("FDSTOREREMOVE=1", "FDNAME=a")
    notify("FDSTOREREMOVE=1", "FDNAME=c")
    barrier()
    sys.exit(1)
if len(NAMES) > 1:
    notify("FDSTOREREMOVE=1", "FDNAME=b")
    barrier()
    sys.exit(1)
wait()
""",
        STORE,
    ),
    "what hangs up is dropped, but with FDPOLL=0": Life(
        ["start", "start kept open peer"],
        """
if first:
    accept()
    pairs = {name: socket.socketpair() for name in ("gone", "kept", "open")}
    for name, (_, stored) in pairs.items():
        notify("FDSTORE=1", f"FDNAME={name}", f"FDPOLL={int(name != 'kept')}", fds=[stored.fileno()])
    notify("FDSTORE=1", "FDNAME=peer", fds=[pairs["open"][0].fileno()])
    barrier()
    for sock in (*pairs["gone"], *pairs["kept"]):
        sock.close()
    barrier()
    sys.exit(1)
wait()
""",
        STORE,
    ),
    "what is stored is gone when nothing restarts the service": Life(
        ["start", "start", "start"],
        """
accept()
store("a")
barrier()
""",
        "FileDescriptorStoreMax=5\n",
        clients(3),
    ),
    "a service that notifies nobody can store nothing": Life(
        ["start", "False", "start", "False"],
        """
accept()
note("NOTIFY_SOCKET" in os.environ)
""",
        "",
        clients(2),
    ),
    # the watchdog
    "a watchdog that is not fed ends the service by SIGABRT, and it is started again": Life(
        ["start", "fed", "SIGABRT", "start"],
        """
if first:
    accept()
    on(signal.SIGABRT, lambda: os._exit(0))
    notify("READY=1")
    for _ in range(6):
        time.sleep(0.5)
        notify("WATCHDOG=1")
    note("fed")
wait()
""",
        READY + "WatchdogSec=2s\nRestart=on-watchdog\nRestartSec=10ms\n",
    ),
    "a watchdog does not count before the service is ready": Life(
        ["start", "ready", "SIGABRT"],
        """
accept()
on(signal.SIGABRT, lambda: os._exit(0))
time.sleep(0.4)
note("ready")
notify("READY=1")
wait()
""",
        READY + "WatchdogSec=200ms\n",
    ),
    "WATCHDOG=trigger is as good as a missed one": Life(
        ["start", "SIGABRT", "start"],
        """
on(signal.SIGABRT, lambda: os._exit(0))
if first:
    accept()
    notify("READY=1")
    notify("WATCHDOG=trigger")
wait()
""",
        READY + "WatchdogSec=1min\nRestart=on-watchdog\nRestartSec=10ms\n",
    ),
    "WATCHDOG_USEC= changes the time": Life(
        ["start", "60000000", "SIGABRT", "start", "60000000"],
        """
note(os.environ["WATCHDOG_USEC"])
on(signal.SIGABRT, lambda: os._exit(0))
if first:
    accept()
    notify("READY=1")
    notify("WATCHDOG_USEC=200000")
wait()
""",
        READY + "WatchdogSec=1min\nRestart=on-watchdog\nRestartSec=10ms\n",
    ),
    "WATCHDOG=1 before the service is ready is a promise, too": Life(
        ["start", "SIGABRT"],
        """
accept()
on(signal.SIGABRT, lambda: os._exit(0))
notify("WATCHDOG=1")
wait()
""",
        READY + "WatchdogSec=200ms\nTimeoutStartSec=1min\n",
    ),
    "who feeds the watchdog while it stops has to go on with it": Life(
        ["start", "ready", "SIGTERM", "SIGABRT", "stopped"],
        """
on(signal.SIGTERM, lambda: notify("WATCHDOG=1"))
on(signal.SIGABRT, lambda: os._exit(0))
conn = accept()
notify("READY=1", "WATCHDOG_USEC=2000000")
for _ in range(3):
    notify("WATCHDOG=1")
note("ready")
while True:
    notify("WATCHDOG=1")
    if len(open(sys.argv[1]).read().splitlines()) > 2:
        wait()
    time.sleep(0.02)
""",
        READY + "WatchdogSec=1min\nTimeoutStopSec=1min\n",
        client_and_stop,
    ),
    "who asks for more time gets it from the watchdog, too": Life(
        ["start", "still there", "start"],
        """
if first:
    accept()
    on(signal.SIGABRT, lambda: os._exit(0))
    notify("READY=1")
    notify("EXTEND_TIMEOUT_USEC=60000000")
    time.sleep(2.5)
    note("still there")
    sys.exit(1)
notify("READY=1", "WATCHDOG_USEC=60000000")
wait()
""",
        READY + "WatchdogSec=2s\nRestart=on-failure\nRestartSec=10ms\n",
    ),
    "who does not end when aborted can still be stopped": Life(
        ["start", "SIGABRT", "ready", "SIGTERM", "stopped"],
        """
on(signal.SIGABRT, lambda: note("ready"))
on(signal.SIGTERM, lambda: os._exit(0))
conn = accept()
notify("READY=1")
wait()
""",
        READY + "WatchdogSec=100ms\nTimeoutAbortSec=1min\n",
        client_and_stop,
    ),
    # times
    "RestartSec= lies between an end and the next start": Life(
        ["start", "start", "late enough"],
        """
if first:
    accept()
    with open(f"{FOLDER}/end", "w") as file:
        file.write(str(time.monotonic()))
    sys.exit(1)
with open(f"{FOLDER}/end") as file:
    note("late enough" if time.monotonic() - float(file.read()) >= 0.3 else "early")
wait()
""",
        "Restart=always\nRestartSec=300ms\n",
    ),
    "who is not ready in time is ended, and started again": Life(
        ["start", "SIGTERM", "start", "SIGTERM", "start", "ready"],
        """
on(signal.SIGTERM, lambda: os._exit(0))
with open(sys.argv[1]) as journal:
    starts = journal.read().count("start")
if starts == 1:
    accept()
if starts == 3:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    note("ready")
    notify("READY=1")
wait()
""",
        READY + "TimeoutStartSec=2s\n" + AGAIN,
    ),
    "who asks for more time to start gets it": Life(
        ["start", "ready", "still there"],
        """
on(signal.SIGTERM, lambda: os._exit(0))
accept()
notify("EXTEND_TIMEOUT_USEC=60000000")
time.sleep(2.5)
note("ready")
notify("READY=1")
time.sleep(0.5)
note("still there")
signal.signal(signal.SIGTERM, signal.SIG_DFL)
wait()
""",
        READY + "TimeoutStartSec=2s\nTimeoutStopSec=200ms\n",
    ),
    "who does not end in time is killed": Life(
        ["start", "ready", "SIGTERM", "stopped"],
        """
on(signal.SIGTERM)
conn = accept()
note("ready")
wait()
""",
        "TimeoutStopSec=2s\n",
        client_and_stop,
    ),
    "who was stopped by a signal goes on to hear that it is to end": Life(
        ["start", "ready", "SIGTERM", "stopped"],
        """
on(signal.SIGTERM, lambda: os._exit(0))
conn = accept()
note("ready")
signal.raise_signal(signal.SIGSTOP)
wait()
""",
        "TimeoutStopSec=1min\n",
        client_and_stop,
    ),
    "more time than there is is none": Life(
        ["start", "ready", "SIGTERM", "stopped"],
        """
def end():
    notify(f"EXTEND_TIMEOUT_USEC={2**64 - 1}")
    notify(f"EXTEND_TIMEOUT_USEC={2**70}")

on(signal.SIGTERM, end)
conn = accept()
notify("READY=1")
note("ready")
wait()
""",
        READY + "TimeoutStopSec=2s\n",
        client_and_stop,
    ),
    "who asks for more time to end gets it": Life(
        ["start", "ready", "SIGTERM", "ended by itself", "stopped"],
        """
def end():
    notify("STOPPING=1")
    notify("EXTEND_TIMEOUT_USEC=60000000")
    time.sleep(2.5)
    note("ended by itself")
    os._exit(0)

on(signal.SIGTERM, end)
conn = accept()
notify("READY=1")
note("ready")
wait()
""",
        READY + "TimeoutStopSec=2s\n",
        client_and_stop,
    ),
    "who does not end in time is aborted first, if so said, and has another time for that": Life(
        ["start", "ready", "SIGTERM", "SIGQUIT", "ended by itself", "stopped"],
        """
def end():
    time.sleep(2.5)
    note("ended by itself")
    os._exit(0)

on(signal.SIGTERM)
on(signal.SIGQUIT, end)
conn = accept()
note("ready")
wait()
""",
        "TimeoutStopSec=2s\nTimeoutAbortSec=1min\nTimeoutStopFailureMode=abort\nWatchdogSignal=QUIT\n",
        client_and_stop,
    ),
    "who does not end when aborted is killed": Life(
        ["start", "fed", "SIGABRT", "start"],
        """
if first:
    accept()
    on(signal.SIGABRT)
    notify("READY=1")
    note("fed")
wait()
""",
        READY + "WatchdogSec=2s\nTimeoutAbortSec=2s\nTimeoutStopSec=1h\nRestart=on-watchdog\nRestartSec=10ms\n",
    ),
    "who is not ready in time is killed, if so said": Life(
        ["start", "start", "ready"],
        """
on(signal.SIGTERM)
if first:
    accept()
else:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    note("ready")
    notify("READY=1")
wait()
""",
        READY + "TimeoutStartSec=2s\nTimeoutStartFailureMode=kill\n" + AGAIN,
    ),
    "who is not ready in time is aborted, if so said": Life(
        ["start", "SIGABRT", "start"],
        """
on(signal.SIGABRT, lambda: os._exit(0))
if first:
    accept()
else:
    notify("READY=1")
wait()
""",
        READY + "TimeoutStartSec=2s\nTimeoutStartFailureMode=abort\nRestart=on-abnormal\nRestartSec=10ms\n",
    ),
    "who has run for too long is ended, which is a failure": Life(
        ["start", "ready", "SIGTERM", "start"],
        """
on(signal.SIGTERM, lambda: os._exit(0))
if first:
    accept()
    time.sleep(0.3)
    note("ready")
    notify("READY=1")
    wait()
signal.signal(signal.SIGTERM, signal.SIG_DFL)
wait()
""",
        READY + "TimeoutStartSec=1min\nRuntimeMaxSec=200ms\nRestart=on-failure\nRestartSec=10ms\n",
    ),
    "who is allowed to runs for longer": Life(
        ["start", "still there", "start"],
        """
on(signal.SIGTERM, lambda: os._exit(0))
if first:
    accept()
    notify("READY=1", "EXTEND_TIMEOUT_USEC=5000000")
    time.sleep(0.5)
    note("still there")
    sys.exit(1)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
notify("READY=1", "EXTEND_TIMEOUT_USEC=5000000")
wait()
""",
        READY + "RuntimeMaxSec=200ms\nRuntimeRandomizedExtraSec=10ms\n" + AGAIN,
    ),
    "KillSignal= is the signal, for children too": Life(
        ["start", "ready", "SIGUSR1", "SIGUSR1", "stopped"],
        """
on(signal.SIGUSR1, lambda: os._exit(0))
conn = accept()
reader, writer = os.pipe()
if not os.fork():
    os.setsid()
    os.write(writer, b".")
    wait()
os.read(reader, 1)
note("ready")
wait()
""",
        "KillSignal=SIGUSR1\n",
        client_and_stop,
    ),
    "what a service leaves behind is ended when it ends": Life(
        ["start", "SIGTERM", "start", "SIGTERM"],
        """
conn = accept()
reader, writer = os.pipe()
if not os.fork():
    if not os.fork():
        os.setsid()
        on(signal.SIGTERM, lambda: os._exit(0))
        conn.close()
        os.write(writer, b".")
        wait()
    os._exit(0)
os.read(reader, 1)
""",
        "",
        clients(2),
    ),
    "KillMode=mixed asks only the main process, and kills the others": Life(
        ["start", "ready", "SIGTERM", "stopped"],
        """
def end():
    time.sleep(0.2)
    os._exit(0)

conn = accept()
reader, writer = os.pipe()
if not os.fork():
    on(signal.SIGTERM)
    os.write(writer, b".")
    wait()
on(signal.SIGTERM, end)
os.read(reader, 1)
note("ready")
wait()
""",
        "KillMode=mixed\n",
        client_and_stop,
    ),
    "KillMode=mixed kills everything after TimeoutStopSec=": Life(
        ["start", "ready", "SIGTERM", "stopped"],
        """
on(signal.SIGTERM)
conn = accept()
if not os.fork():
    wait()
note("ready")
wait()
""",
        "KillMode=mixed\nTimeoutStopSec=2s\n",
        client_and_stop,
    ),
    "KillMode=process leaves what the main process has started": Life(
        ["start", "ready", "SIGTERM", "stopped", "left"],
        """
conn = accept()
reader, writer = os.pipe()
if not os.fork():
    conn.close()
    on(signal.SIGTERM)
    os.write(writer, b".")
    while not os.path.exists(f"{FOLDER}/go"):
        time.sleep(0.01)
    note("left")
    os._exit(0)
on(signal.SIGTERM, lambda: os._exit(0))
os.read(reader, 1)
note("ready")
wait()
""",
        "KillMode=process\n",
        client_and_stop_and_go,
    ),
    # what comes before
    "ExecStartPre= runs before, without sockets": Life(
        ["pre False True", "pre again False True", "start"],
        """
if sys.argv[2:]:
    note(*sys.argv[2:], "LISTEN_FDS" in os.environ, os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid()))
    sys.exit(bool(sys.argv[3:]))
wait()
""",
        "ExecStartPre=DAEMON pre\nExecStartPre=-DAEMON pre again\n",
        until_started,
    ),
    "an ExecStartPre= that fails is the end of the start": Life(
        ["pre", "pre", "start"],
        """
if sys.argv[2:]:
    note("pre")
    with open(sys.argv[1]) as journal:
        sys.exit(journal.read().count("pre") < 2)
wait()
""",
        f"ExecStartPre=DAEMON pre\n{AGAIN}",
        until_started,
    ),
    "an ExecStartPre= that a signal ends fails by that": Life(
        ["pre", "pre", "start"],
        """
if sys.argv[2:]:
    note("pre")
    with open(sys.argv[1]) as journal:
        if journal.read().count("pre") < 2:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.exit()
wait()
""",
        "ExecStartPre=DAEMON pre\nRestart=on-abnormal\nRestartSec=10ms\n",
        until_started,
    ),
    "an ExecStartPre= has the time to start": Life(
        ["pre", "SIGTERM", "pre", "start"],
        """
if sys.argv[2:]:
    on(signal.SIGTERM, lambda: os._exit(1))
    note("pre")
    with open(sys.argv[1]) as journal:
        if journal.read().count("pre") < 2:
            wait()
    sys.exit()
wait()
""",
        f"ExecStartPre=DAEMON pre\nTimeoutStartSec=2s\n{AGAIN}",
        until_started,
    ),
    "a service that is stopped while ExecStartPre= runs ends": Life(
        ["ready", "SIGTERM", "stopped"],
        """
if sys.argv[2:]:
    on(signal.SIGTERM, lambda: os._exit(1))
    note("ready")
    wait()
wait()
""",
        "ExecStartPre=DAEMON pre\n",
        client_and_stop,
    ),
    "ExecStartPre= may notify where NotifyAccess= lets it": Life(
        ["pre True", "start"],
        """
if sys.argv[2:]:
    note("pre", "NOTIFY_SOCKET" in os.environ)
    barrier()
    sys.exit()
wait()
""",
        "ExecStartPre=DAEMON pre\nNotifyAccess=exec\nFileDescriptorStoreMax=3\n",
        until_started,
    ),
    # what clients have sent
    "FlushPending= forgets the clients that a service has not accepted": Life(
        ["start", "start"],
        """
if not first:
    wait()
accept()
select.select([3], [], [], 30)
""",
        "",
        two_clients_and_another,
        "FlushPending=yes\n",
        OFTEN,
    ),
    "without FlushPending= they start it again": Life(
        ["start", "end", "start", "end"],
        """
accept()
note("end")
""",
        "",
        clients(2),
        "FlushPending=no\n",
        OFTEN,
    ),
    "a service that never accepts is started once where FlushPending= is said": Life(
        ["start"],
        "",
        "",
        client,
        "FlushPending=yes\n",
        OFTEN,
    ),
    # the limits
    "too many restarts are the end": Life(
        ["start"] * 3 + ["refused"],
        "sys.exit(1)",
        AGAIN,
        until_refused,
        "",
        "StartLimitIntervalSec=1min\nStartLimitBurst=3\n",
    ),
    "too many starts by clients are the end": Life(
        ["start"] * 4 + ["refused"],
        "accept()",
        "",
        until_refused,
        "",
        "StartLimitIntervalSec=1min\nStartLimitBurst=4\n",
    ),
    "a service that leaves its clients waiting is given up": Life(
        ["start"] * 5 + ["refused"],
        "sys.exit()",
        "",
        until_refused,
        "TriggerLimitIntervalSec=1min\nTriggerLimitBurst=5\n",
        OFTEN,
    ),
    # the protocol
    "MAINPID= names the main process, whose end counts": Life(
        ["start", "the first has ended", "start"],
        """
if first:
    conn = accept()
    reader, writer = os.pipe()
    main = os.fork()
    if main:
        notify("READY=1", f"MAINPID={main}")
        barrier()
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    note("the first has ended")
    time.sleep(0.2)
    os._exit(1)
wait()
""",
        READY + "Restart=on-failure\nRestartSec=10ms\n",
    ),
    "of READY=1, RELOADING=1 and STOPPING=1 in one notification, the last one counts": Life(
        ["start", "SIGTERM", "start"],
        """
if first:
    on(signal.SIGTERM, lambda: os._exit(0))
    accept()
    notify("READY=1", "STATUS=at work", "RELOADING=1")
    wait()
notify("RELOADING=1", "STOPPING=1", "READY=1")
wait()
""",
        READY + "TimeoutStartSec=2s\n" + AGAIN,
    ),
    "who stops before it is ready has the time to start": Life(
        ["start", "ready", "start"],
        """
if first:
    accept()
    notify("STOPPING=1")
    time.sleep(0.5)
    note("ready")
    sys.exit(1)
notify("READY=1")
wait()
""",
        READY + "TimeoutStartSec=1min\nTimeoutStopSec=100ms\n" + AGAIN,
    ),
    "MAINPID= of a process that is none of it is ignored": Life(
        ["start", "start"],
        """
if first:
    conn = accept()
    notify("READY=1")
    notify("MAINPID=1")
    barrier()
    os._exit(1)
wait()
""",
        READY + "Restart=on-failure\nRestartSec=10ms\n",
    ),
    "STOPPING=1 begins the time to stop, after which it is killed": Life(
        ["start", "start"],
        """
accept()
if first:
    on(signal.SIGTERM)
    notify("READY=1")
    notify("STOPPING=1")
wait()
""",
        READY + "TimeoutStopSec=200ms\nRestart=no\n",
        client_and_another,
    ),
    "who ends after STOPPING=1 is started again where always is said": Life(
        ["start", "start"],
        """
if first:
    accept()
    notify("READY=1")
    notify("STOPPING=1")
    sys.exit()
wait()
""",
        READY + AGAIN,
    ),
    "ExecReload= knows the main process, and reloads": Life(
        ["start", "ready", "SIGHUP", "reloaded", "SIGHUP", "reloaded"],
        """
def reload():
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
    note("reloaded")
    notify("READY=1")

on(signal.SIGHUP, reload)
conn = accept()
note("ready")
notify("READY=1")
wait()
""",
        READY + "ExecReload=kill -HUP $MAINPID\n",
        client_and_reloads,
    ),
    "ExecReload= has its time, of which more can be asked for, and nothing else ends it": Life(
        ["start", "ready", "reload", "SIGUSR1", "reloaded", "SIGTERM", "start"],
        """
if sys.argv[2:]:
    note("reload")
    os.kill(int(sys.argv[2]), signal.SIGUSR1)
    time.sleep(4.5)
    note("reloaded")
    sys.exit()

def extend():
    notify("EXTEND_TIMEOUT_USEC=60000000")

on(signal.SIGUSR1, extend)
on(signal.SIGTERM, lambda: os._exit(1))
if not first:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    notify("READY=1")
    wait()
conn = accept()
notify("READY=1")
note("ready")
wait()
""",
        READY + "TimeoutStartSec=2s\nRuntimeMaxSec=4s\nRestart=on-failure\nRestartSec=10ms\n"
        "ExecReload=DAEMON $MAINPID\n",
        client_and_long_reload,
    ),
    "a notification of a thousand lines is taken as a whole": Life(
        ["start", "start a"],
        """
if first:
    accept()
    notify(*["X_LINE=1"] * 300, "FDSTORE=1", "FDNAME=a", fds=[os.memfd_create("a")])
    barrier()
    sys.exit(1)
wait()
""",
        STORE,
    ),
}

# Who may store, with NotifyAccess=: the main process, one that it started, and what ExecReload= runs.
ACCESS = """
if sys.argv[2:]:
    if "NOTIFY_SOCKET" in os.environ:
        store("control")
        barrier()
        note("it may notify")
    note("reloaded")
    sys.exit()
if first:
    conn = accept()
    store("main")
    child(lambda: [store("child"), barrier()])
    note("ready")
    conn.recv(1)
    sys.exit(1)
wait()
"""


def client_and_reload(world: World) -> None:
    with connect(world.path) as sock:
        world.until("ready")
        world.reload()
        world.until("reloaded")
        sock.send(b".")
        assert receive(sock, 1) == b""


LIVES |= {
    f"NotifyAccess={access}": Life(
        ["start", "ready", *["it may notify"] * ("control" in names), "reloaded", f"start {names}"],
        ACCESS,
        f"{STORE}NotifyAccess={access}\nExecReload=DAEMON reload\n",
        client_and_reload,
    )
    for access, names in {"none": "main", "main": "main", "exec": "control main", "all": "child control main"}.items()
}


def units(life: Life, folder: Path) -> tuple[str, str]:
    """The socket unit and the service of a daemon that lives in the folder."""
    daemon = f"{sys.executable} -S -E {folder}/daemon {folder}/journal"
    socket = f"[Socket]\nListenStream={folder}/a.sk\n{life.socket}"
    service = f"[Unit]\n{life.unit}\n[Service]\nExecStart=DAEMON\n{life.service}"
    return socket, service.replace("DAEMON", daemon)


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """Has the units of all lives; the same with other folders are in files next to those."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("lives") / "manager"
    texts: dict[str, str] = {}
    for number, life in enumerate(LIVES.values()):
        for side in ("theirs", "ours"):
            own = folder / f"{side}{number}"
            own.mkdir(parents=True)
            (own / "daemon").write_text(PRELUDE + life.code)
            socket, service = units(life, own)
            if side == "ours":
                (own / "a.socket").write_text(socket)
                (own / "a.service").write_text(service)
            else:
                texts |= {f"life{number}.socket": socket, f"life{number}.service": service}
    with Manager(folder, texts) as running:
        yield running


@contextmanager
def systemd(manager: Manager, number: int) -> Iterator[World]:
    unit = f"life{number}"
    manager.systemctl("start", f"{unit}.socket")

    def stop() -> None:
        manager.systemctl("stop", f"{unit}.socket", f"{unit}.service")

    yield World(manager.folder / f"theirs{number}", lambda: manager.systemctl("reload", f"{unit}.service"), stop)
    stop()


@contextmanager
def socket_activate(manager: Manager, number: int) -> Iterator[World]:
    folder = manager.folder / f"ours{number}"
    with running(folder / "log", folder / "a.socket") as process:

        def stop() -> None:
            process.terminate()
            process.wait(LIMIT)

        yield World(folder, lambda: process.send_signal(signal.SIGHUP), stop)
    print((folder / "log").read_text())


@contextmanager
def running(log: Path, *files: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run socket-activate with unit files meanwhile, and end it by SIGTERM."""
    with open(log, "wb") as output:
        process = subprocess.Popen([SOCKET_ACTIVATE, "--clean-env", *files], stdout=output, stderr=output)
    try:
        eventually(
            lambda: log.read_text().count("listening on") == len(files) or process.poll() is not None, "it listens"
        )
        yield process
        process.terminate()
        process.wait(LIMIT)
    finally:
        process.kill()
        process.wait()


def lived(life: Life, start: Callable[[Manager, int], AbstractContextManager[World]], manager: Manager) -> list[str]:
    """The journal of a daemon's life."""
    number = list(LIVES.values()).index(life)
    with start(manager, number) as world:
        life.play(world)
        with suppress(AssertionError):  # what there is tells more
            eventually(lambda: len(world.seen) >= len(life.sees), "all is seen")
    return world.seen


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_the_same_is_seen_under_both(manager: Manager, life: Life) -> None:
    with ThreadPoolExecutor(2) as pool:
        theirs, ours = (pool.submit(lived, life, start, manager) for start in (systemd, socket_activate))
    assert theirs.result() == life.sees
    assert ours.result() == life.sees
