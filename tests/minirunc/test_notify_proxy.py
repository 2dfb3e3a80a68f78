"""What a container tells its service manager goes on to minirunc's, as it was told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from activation_cmd.common.journal import MOST_RECORDS

import activation
from tests import bundles
from tests.bundles import MINIRUNC, add_bundle, python
from tests.commands import LIMIT, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from activation import Notification

pytestmark = pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")

# Sends datagrams to the manager, by the standard library alone.
PRELUDE = """
import os, signal, socket
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(os.environ["NOTIFY_SOCKET"])
def tell(text, fds=()):
    socket.send_fds(sock, [text if isinstance(text, bytes) else text.encode()], fds)
def barrier():
    reading, writing = os.pipe()
    tell("BARRIER=1", [writing])
    os.close(writing)
    return os.read(reading, 1)
"""


class Told:
    """What a manager is told by a minirunc that runs, and by nobody else."""

    def __init__(self, receiver: activation.NotifyReceiver, process: subprocess.Popen[str]) -> None:
        self._receiver = receiver
        self.process = process

    async def next(self) -> Notification:
        with trio.fail_after(LIMIT):
            notification = await self._receiver.receive()
        assert notification.pid == self.process.pid
        return notification

    async def assignments(self) -> tuple[str, ...]:
        notification = await self.next()
        assert notification.fds == []
        return notification.assignments

    async def status(self) -> int:
        """The exit status; reads on, or minirunc would wait for its words to be heard."""
        with trio.fail_after(LIMIT):
            while self.process.poll() is None:
                with trio.move_on_after(0.01):
                    await self.next()
        return self.process.returncode


@contextmanager
def telling(tmp_path: Path, code: str, *, first: str = ":", **env: str) -> Iterator[Told]:
    """Run a container that tells ``code``'s messages; ``first`` is a shell's command before minirunc."""
    bundle = add_bundle(tmp_path / "bundle", python(PRELUDE + code))
    with activation.NotifyReceiver() as receiver:
        process = subprocess.Popen(
            # As a service manager starts it: with its own number in SYSTEMD_EXEC_PID.
            [
                *("sh", "-c", f'{first} && SYSTEMD_EXEC_PID=$$ exec "$@"', "sh"),
                *(MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box"),
            ],
            env={**os.environ, "NOTIFY_SOCKET": receiver.address, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield Told(receiver, process)
        finally:
            process.kill()
            process.communicate()


def container_pid(tmp_path: Path) -> int:
    import json

    state = run(MINIRUNC, "--root", str(tmp_path / "state"), "state", "box").stdout
    return int(json.loads(state)["pid"])


async def test_every_assignment_goes_on_in_order_and_ready_names_the_main_process(tmp_path: Path) -> None:
    code = """
tell("STATUS=starting")
tell("READY=1\\nSTATUS=here I am\\nX_OF_ITS_OWN=1")
tell("WATCHDOG=1")
tell("RELOADING=1\\nMONOTONIC_USEC=5")
tell("READY=1")
tell("STATUS=\\xe4\\u20ac")
tell(b"STATUS=\\xff")
tell("STOPPING=1")
signal.pause()
"""
    with telling(tmp_path, code) as told:
        assert await told.assignments() == ("STATUS=starting",)
        main, *rest = await told.assignments()
        assert main == f"MAINPID={container_pid(tmp_path)}"
        assert rest == ["READY=1", "STATUS=here I am", "X_OF_ITS_OWN=1"]
        assert await told.assignments() == ("WATCHDOG=1",)
        assert await told.assignments() == ("RELOADING=1", "MONOTONIC_USEC=5")
        assert await told.assignments() == ("READY=1",)
        assert await told.assignments() == ("STATUS=ä€",)
        assert await told.assignments() == ("STATUS=\udcff",)
        assert await told.assignments() == ("STOPPING=1",)


async def test_descriptors_go_on_with_their_message(tmp_path: Path) -> None:
    code = """
reading, writing = os.pipe()
os.write(writing, b"from inside")
tell("FDSTORE=1\\nFDNAME=pipe", [reading, writing])
tell("FDSTOREREMOVE=1\\nFDNAME=pipe")
signal.pause()
"""
    with telling(tmp_path, code) as told:
        notification = await told.next()
        assert notification.assignments == ("FDSTORE=1", "FDNAME=pipe")
        assert os.read(notification.fds[0], 100) == b"from inside"
        assert len(notification.fds) == 2
        notification.close()
        assert await told.assignments() == ("FDSTOREREMOVE=1", "FDNAME=pipe")


async def test_a_barrier_is_answered_when_the_manager_has_answered(tmp_path: Path) -> None:
    code = """
tell("READY=1")
barrier()
tell("STATUS=after the barrier")
signal.pause()
"""
    with telling(tmp_path, code) as told:
        await told.assignments()
        barrier = await told.next()
        assert barrier.is_barrier
        assert len(barrier.fds) == 1
        with trio.move_on_after(0.2):
            pytest.fail(f"it went on before the answer: {await told.next()}")
        barrier.close()
        assert await told.assignments() == ("STATUS=after the barrier",)


async def test_the_main_process_is_not_the_containers_to_choose(tmp_path: Path) -> None:
    with telling(tmp_path, 'tell("MAINPID=7\\nSTATUS=a")\ntell("MAINPID=1")\ntell("STATUS=b")\nsignal.pause()') as told:
        assert await told.assignments() == ("STATUS=a",)
        assert await told.assignments() == ("STATUS=b",)


async def test_messages_that_are_none_do_not_end_it(tmp_path: Path) -> None:
    code = """
tell(b"")
tell("nonsense\\n=nothing\\nSTATUS=in between\\n\\n")
tell("STATUS=" + 10000 * "x")
tell(b"STATUS=a\\0b")
tell("READY=1\\nSTATUS=" + (4096 - 15) * "x")
signal.pause()
"""
    with telling(tmp_path, code) as told:
        assert await told.assignments() == ("STATUS=in between",)
        # As long as a message may be: there is no room for the main process.
        assert await told.assignments() == ("READY=1", "STATUS=" + (4096 - 15) * "x")
        assert await told.assignments() == (f"MAINPID={container_pid(tmp_path)}",)


async def test_the_manager_learns_how_the_container_ended(tmp_path: Path) -> None:
    with telling(tmp_path, 'tell("READY=1")\ntell("STATUS=last words")\nos._exit(7)') as told:
        assert (await told.assignments())[1:] == ("READY=1",)
        assert await told.assignments() == ("STATUS=last words",)
        # It looks at minirunc again, whose exit status is the container's.
        assert await told.assignments() == (f"MAINPID={told.process.pid}",)
        # To a manager that reads this when minirunc has ended, there would be no main process.
        barrier = await told.next()
        assert barrier.is_barrier
        assert told.process.poll() is None
        barrier.close()
        assert await told.status() == 7
    assert os.listdir(tmp_path / "state") == []


async def test_a_manager_that_does_not_read_holds_up_no_signal(tmp_path: Path) -> None:
    code = "import _thread\n_thread.start_new_thread(lambda: [tell('STATUS=more') for _ in range(2000)], ())\n"
    code += "signal.signal(signal.SIGTERM, lambda *_: os._exit(3)); print('ready', flush=True)\n"
    code += "while True: signal.sigtimedwait([], 0.05)"
    with telling(tmp_path, code) as told:
        assert told.process.stdout
        assert await trio.to_thread.run_sync(told.process.stdout.readline) == "ready\n"
        told.process.terminate()
        assert await trio.to_thread.run_sync(told.process.wait, LIMIT) == 3


async def test_a_manager_that_is_gone_is_said_once(tmp_path: Path) -> None:
    code = "for _ in range(5): tell('STATUS=anybody?')\nos._exit(0)"
    with telling(tmp_path, code, NOTIFY_SOCKET=str(tmp_path / "nobody")) as told:
        _, error = await trio.to_thread.run_sync(told.process.communicate)
        assert (told.process.returncode, error.count("\n")) == (0, 1)
        assert "cannot tell the service manager" in error or "nobody: No such file" in error


async def test_a_signal_of_the_manager_is_not_sent_twice(tmp_path: Path) -> None:
    # Once it knows the main process, it sends that its signals; this test is minirunc's parent, as the manager is.
    code = """
def count(*_):
    tell("STATUS=hung up")
signal.signal(signal.SIGHUP, count)
tell("READY=1")
barrier()
while True:
    signal.sigtimedwait([], 0.05)
"""
    with telling(tmp_path, code) as told:
        await told.assignments()
        (await told.next()).close()
        pid = container_pid(tmp_path)
        told.process.send_signal(signal.SIGHUP)
        os.kill(pid, signal.SIGHUP)
        assert await told.assignments() == ("STATUS=hung up",)
        with trio.move_on_after(0.2):
            pytest.fail(f"once more: {await told.next()}")
        # Anybody else's goes on.
        run("sh", "-c", f"kill -HUP {told.process.pid}")
        assert await told.assignments() == ("STATUS=hung up",)


async def test_what_cannot_go_on_is_said_and_holds_up_nothing_though_nobody_reads_it(tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
for _ in range(3000):
    tell(b"X=\\0a")
tell("READY=1")
while True:
    signal.sigtimedwait([], 0.05)
"""
    with telling(tmp_path, code) as told:
        assert "READY=1" in await told.assignments()
        os.kill(container_pid(tmp_path), signal.SIGTERM)  # as a manager does that knows it
        assert await told.status() == 3
        assert told.process.stderr
        first = told.process.stderr.readline()
    assert first.startswith("minirunc: a notification of pid ")
    assert first.endswith(" was dropped: it has a null character inside\n")


async def test_where_no_thread_can_be_started_it_is_told_nevertheless(tmp_path: Path) -> None:
    # A thread's stack has the size of the limit, and here (in KiB) that is more than there are addresses.
    with telling(tmp_path, 'tell("READY=1")\n', first=f"ulimit -s {2**40}") as told:
        assert "READY=1" in await told.assignments()
        assert await told.status() == 0


@pytest.mark.parametrize("message", ["MAINPID=1", "X=\\0a", 5000 * "x", ""], ids=["ours", "null", "long", "empty"])
async def test_a_flood_holds_up_neither_signals_nor_the_end(tmp_path: Path, message: str) -> None:
    # Every processor has somebody who sends without a pause.
    code = f"""
for _ in range(max(4, 2 * os.cpu_count())):
    if not os.fork():
        while True:
            tell("{message}")
signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
tell("READY=1")
while True:
    signal.sigtimedwait([], 0.05)
"""
    with telling(tmp_path, code) as told:
        while "READY=1" not in (await told.next()).assignments:
            pass
        run("sh", "-c", f"kill -TERM {told.process.pid}")  # which no manager has sent
        assert await told.status() == 3


async def test_of_a_flood_a_limited_number_of_lines_tells(tmp_path: Path) -> None:
    code = "for _ in range(3000): tell(b'X=\\0a')\ntell('READY=1')\nos._exit(0)\n"
    with telling(tmp_path, code) as told:
        assert told.process.stderr
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(told.process.stderr or ()))
        reader.start()
        assert await told.status() == 0
        await trio.to_thread.run_sync(reader.join)
    assert 1 <= len(lines) <= 2 * MOST_RECORDS  # it may take longer than one interval


def test_a_folder_that_runc_has_left_is_no_hindrance(tmp_path: Path) -> None:
    bundle = add_bundle(
        tmp_path / "bundle", python("import os, stat; print(stat.S_ISSOCK(os.stat('/run/notify').st_mode))")
    )
    (bundle / "rootfs" / "run" / "notify").mkdir()
    with activation.NotifyReceiver() as receiver:
        command = (MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box")
        done = run(*command, env=os.environ | {"NOTIFY_SOCKET": receiver.address})
    assert (done.stdout, done.stderr) == (b"True\n", b"")


@pytest.mark.parametrize("readonly", [True, False])
def test_the_containers_socket_is_its_own(tmp_path: Path, readonly: bool) -> None:
    code = "import os, stat; path = os.environ['NOTIFY_SOCKET']; print(path, stat.S_ISSOCK(os.stat(path).st_mode))"
    bundle = add_bundle(tmp_path / "bundle", python(code), lambda config: config["root"].update(readonly=readonly))
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box"]
    with activation.NotifyReceiver() as receiver:
        done = run(*command, env={**os.environ, "NOTIFY_SOCKET": receiver.address})
    assert done.stdout == b"/run/notify True\n"
    assert os.listdir(tmp_path / "state") == []


def test_without_a_manager_there_is_no_socket(tmp_path: Path) -> None:
    code = "import os; print(os.environ.get('NOTIFY_SOCKET'), os.path.exists('/run/notify'))"
    bundle = add_bundle(tmp_path / "bundle", python(code))
    env = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    done = run(MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box", env=env)
    assert done.stdout == b"None False\n"


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_the_watchdog_is_the_containers_if_it_is_minirunc_s(tmp_path: Path, whose: str) -> None:
    code = "import os; print(os.environ.get('WATCHDOG_USEC'), os.environ.get('WATCHDOG_PID'))"
    bundle = add_bundle(tmp_path / "bundle", python(code))
    command = [MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(bundle), "box"]
    become = "import os, sys; os.environ['WATCHDOG_PID'] = os.environ['WATCHDOG_PID'] or str(os.getpid())\n"
    become += "os.execv(sys.argv[1], sys.argv[1:])"
    with activation.NotifyReceiver() as receiver:
        env = {
            "NOTIFY_SOCKET": receiver.address,
            "WATCHDOG_USEC": "5000",
            "WATCHDOG_PID": "" if whose == "its own" else "1",
        }
        done = run(sys.executable, "-c", become, *command, env={**os.environ, **env})
    assert done.stdout == (b"5000 1\n" if whose == "its own" else b"None None\n")
