"""Several workers on one socket, units/foobar-workers.*, under socket-activate."""

from __future__ import annotations

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import LIMIT, SCRIPTS, SOCKET_ACTIVATE, connect, echoed, listens, run, running, said

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

UNITS = Path(__file__).parents[2] / "units"
OFTEN = {
    "foobar-workers.socket.d/often.conf": "[Socket]\nTriggerLimitIntervalSec=0\n",
    "foobar-worker@.service.d/often.conf": "[Unit]\nStartLimitIntervalSec=0\n",
}


@contextmanager
def workers(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run both workers behind their socket, as docs/cores.md does."""
    for file in UNITS.glob("foobar-worker*"):
        (folder / file.name).write_text(file.read_text().replace("=/run/", f"={folder}/"))
    for name, text in OFTEN.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    units = [str(folder / name) for name in ("foobar-workers.socket", "foobar-worker@2.service")]
    environment = os.environ | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}"}
    with running(SOCKET_ACTIVATE, *options, *units, until=b"listening on", status=0, env=environment) as process:
        yield process, folder / "foobar-workers.sk"


def ready(process: subprocess.Popen[bytes], *numbers: int) -> dict[int, int]:
    """Wait until these workers have started and are ready; return their process numbers."""
    text = b""
    for number in numbers:
        word = b"foobar-worker@%d.service: it is ready" % number
        if word not in text:
            text += said(process, word)
    started = re.findall(rb"foobar-worker@(\d)\.service: .*started foobard, pid (\d+)", text)
    pids = {int(number): int(pid) for number, pid in started}
    assert {*pids} == {*numbers}, text.decode()
    return pids


def sockets(pid: int) -> int:
    """How many sockets a process has open."""
    folder = f"/proc/{pid}/fd"
    found = 0
    for number in os.listdir(folder):
        with suppress(FileNotFoundError):  # it has closed this one meanwhile
            found += os.readlink(f"{folder}/{number}").startswith("socket:")
    return found


def test_the_first_client_starts_both_workers_and_both_serve(tmp_path: Path) -> None:
    with workers(tmp_path) as (process, path), ExitStack() as stack:
        assert echoed(stack.enter_context(connect(path)), b"hello") == b"hello"
        pids = ready(process, 1, 2)
        assert len({*pids.values()}) == 2
        before = {pid: sockets(pid) for pid in pids.values()}
        # The kernel chooses who takes the next client, so no number of them is certain to reach both.
        for _ in range(800):
            assert echoed(stack.enter_context(connect(path)), b"hello") == b"hello"
            if all(sockets(pid) > count for pid, count in before.items()):
                return
        pytest.fail("one worker served all clients")


def test_now_starts_both_workers_without_a_client(tmp_path: Path) -> None:
    with workers(tmp_path, "--now") as (process, _):
        assert len(ready(process, 1, 2)) == 2


@contextmanager
def crowd(path: Path, *, broken: bool) -> Iterator[None]:
    """Have clients come one after another meanwhile, of whom none is refused.

    Args:
        broken: a client may lose its connection.
    """
    enough = threading.Event()

    def come() -> int:
        served = 0
        while not enough.is_set():
            with connect(path) as client:
                try:
                    answer = echoed(client, b"hello")
                except (ConnectionResetError, BrokenPipeError):
                    answer = b""
            assert answer == b"hello" or broken, answer
            served += answer == b"hello"
        return served

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(come) for _ in range(4)]
        try:
            yield
        finally:
            enough.set()
        assert all(client.result() for client in clients)


def test_workers_that_stop_one_after_the_other_lose_no_client(tmp_path: Path) -> None:
    with workers(tmp_path) as (process, path), crowd(path, broken=False):
        for _ in range(5):
            pids = ready(process, 1, 2)
            for number, pid in pids.items():
                os.kill(pid, signal.SIGTERM)
                if number == 1:
                    said(process, b"pid %d exited with status 0" % pid)
        ready(process, 1, 2)


def test_a_worker_that_is_killed_is_restarted_alone_and_no_client_is_refused(tmp_path: Path) -> None:
    with workers(tmp_path) as (process, path), crowd(path, broken=True):
        pids = ready(process, 1, 2)
        for number in [1, 2] * 3:
            os.kill(pids[number], signal.SIGKILL)
            pids |= ready(process, number)


def test_a_worker_whose_socket_cannot_be_made_fails_with_it(tmp_path: Path) -> None:
    with workers(tmp_path) as (_, path):
        units = [str(tmp_path / name) for name in ("foobar-workers.socket", "foobar-worker@2.service")]
        failed = run(SOCKET_ACTIVATE, *units)
        assert failed.returncode == 1
        assert b"foobar-worker@2.service failed: none of the sockets in its Sockets= could be made" in failed.stderr
        assert listens(path)


def test_a_worker_ends_with_the_last_service_that_could_start_it(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    (tmp_path / "a.socket").write_text(f"[Socket]\nListenStream={path}\n")
    (tmp_path / "a.service").write_text("[Service]\nExecStart=false\n")
    often = OFTEN["foobar-worker@.service.d/often.conf"]
    (tmp_path / "b.service").write_text(f"{often}[Service]\nExecStart=true\nSockets=a.socket\n")
    units = [str(tmp_path / name) for name in ("a.socket", "b.service")]
    with running(SOCKET_ACTIVATE, *units, until=b"listening on", status=1) as process, connect(path):
        said(process, b"a.service: clients started it 5 times in 10 s; given up, and its sockets are closed")
        assert process.wait(LIMIT) == 1


def test_a_service_that_nothing_starts_is_an_error(tmp_path: Path) -> None:
    unit = tmp_path / "a.service"
    for line, error in (
        ("", "a.service: error: has no Sockets="),
        ("Sockets=no.socket\n", "a.service:3: error: Sockets= names no socket that starts another service"),
    ):
        unit.write_text(f"[Service]\nExecStart=cat\n{line}")
        checked = run(SOCKET_ACTIVATE, "--check", str(unit))
        assert checked.returncode == 1
        assert error in checked.stderr.decode()


def test_both_workers_may_be_named_without_their_socket(tmp_path: Path) -> None:
    with workers(tmp_path):
        pass
    units = [str(tmp_path / f"foobar-worker@{number}.service") for number in (2, 1)]
    checked = run(SOCKET_ACTIVATE, "--check", *units)
    assert checked.returncode == 0
    assert [line for line in checked.stdout.decode().splitlines() if " starts " in line] == [
        "foobar-worker@2.service: starts when another service on its sockets does",
        "foobar-workers.socket: starts foobar-worker@1.service for the first client",
    ]
