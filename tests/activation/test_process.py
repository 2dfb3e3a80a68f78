from __future__ import annotations

import ast
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import activation
from activation._files import File
from activation._moves import SPARE, plan_moves
from tests.children import inode, no_leak, open_descriptors, output, tcp_listener, udp_socket
from tests.commands import LIMIT

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SHOW = """
import json, os
numbers = []
for number in range(1 << 11):
    try:
        os.fstat(number)
        numbers.append(number)
    except OSError:
        pass
print(json.dumps({
    "pid": os.getpid(),
    "numbers": numbers,
    "inodes": [os.fstat(number).st_ino for number in numbers if number > 2],
    "env": {name: value for name, value in os.environ.items() if name.startswith("LISTEN")},
    "home": os.environ.get("HOME"),
}))
"""
SHOW_COMMAND = [sys.executable, "-S", "-c", SHOW]


async def shown_by(command: Sequence[str], files: Any, **options: Any) -> dict[str, Any]:
    """What a program says of itself that open_process() has started."""
    process = await activation.open_process(command, files, stdout=subprocess.PIPE, **options)
    assert isinstance(process, trio.Process)
    assert process.stdout
    said = b""
    async for data in process.stdout:
        said += data
    assert await process.wait() == 0
    await process.stdout.aclose()
    shown: dict[str, Any] = json.loads(said)
    assert shown["pid"] == process.pid
    return shown


@pytest.fixture
def many_open() -> Iterator[list[int]]:
    """A thousand pipes' ends and more, some of them inheritable."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    numbers = [number for _ in range(600) for number in os.pipe()]
    for number in numbers[::7]:
        os.set_inheritable(number, True)
    yield numbers
    for number in numbers:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@given(st.lists(st.integers(3, 14), max_size=12))
def test_every_plan_brings_every_descriptor_to_its_place(sources: list[int]) -> None:
    table = {number: f"file {number}" for number in range(3, 30)}
    wanted = [table[source] for source in sources]
    for source, target in plan_moves(sources):
        table[target] = table[source]
    assert [table[number] for number in range(3, 3 + len(sources))] == wanted
    untouched = range(3 + len(sources), 30)
    assert all(table[number] == f"file {number}" for number in untouched)


def test_a_plan_makes_a_copy_only_for_a_cycle() -> None:
    assert plan_moves([3, 4, 5]) == [(3, 3), (4, 4), (5, 5)]
    assert sorted(plan_moves([9, 8])) == [(8, 4), (9, 3)]
    assert [target for _, target in plan_moves([4, 5, 6])] == [3, 4, 5]
    assert [target for _, target in plan_moves([4, 3])].count(SPARE) == 1
    assert [target for _, target in plan_moves([4, 3, 6, 5])].count(SPARE) == 2
    assert plan_moves([]) == []


async def test_a_child_finds_its_descriptors_and_the_variables_that_say_so() -> None:
    with no_leak(), tcp_listener() as tcp, udp_socket() as udp:
        shown = await shown_by(SHOW_COMMAND, [("web", tcp), ("dns", udp.fileno())])
        assert shown["numbers"] == [0, 1, 2, 3, 4]
        assert shown["inodes"] == [inode(tcp), inode(udp)]
        env = shown["env"]
        assert env.pop("LISTEN_PIDFDID", None) is not None or os.uname().release < "6.9"
        assert env == {"LISTEN_PID": str(shown["pid"]), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:dns"}


async def test_files_in_a_child_returns_what_was_passed() -> None:
    code = """
import activation, json, os
print(json.dumps({"pid": os.getpid(), "names": [file.name for file in activation.files()]}))
"""
    with tcp_listener() as tcp:
        file = File(tcp.fileno(), "web")
        shown = await shown_by([sys.executable, "-c", code], [file, ("again", tcp), file])
        assert shown["names"] == ["web", "again", "web"]
        assert file.fileno() == tcp.fileno()


async def test_descriptors_that_sit_at_the_targets_in_another_order_change_places(many_open: list[int]) -> None:
    low = [number for number in many_open if number < 60]
    assert len(low) > 10, "this process has so many descriptors open that the test cannot have the low ones"
    chosen = random.Random(1)
    for turn in range(20):
        numbers = chosen.choices(low, k=len(low)) if turn % 2 else chosen.sample(low, len(low))
        with no_leak():
            shown = await shown_by(SHOW_COMMAND, [(f"n{number}", number) for number in numbers])
        assert shown["inodes"] == [inode(number) for number in numbers]
        assert shown["numbers"] == list(range(3 + len(numbers)))
        assert shown["env"]["LISTEN_FDNAMES"] == ":".join(f"n{number}" for number in numbers)


async def test_nothing_else_reaches_the_child(many_open: list[int]) -> None:
    shown = await shown_by(SHOW_COMMAND, [("one", many_open[500])])
    assert shown["numbers"] == [0, 1, 2, 3]
    shown = await shown_by(SHOW_COMMAND, [])
    assert shown["numbers"] == [0, 1, 2]
    assert shown["env"] == {}


async def test_a_hundred_descriptors_with_repeats_are_passed_in_order(many_open: list[int]) -> None:
    numbers = random.Random(2).choices(many_open, k=1000)
    shown = await shown_by(SHOW_COMMAND, [("x", number) for number in numbers])
    assert shown["inodes"] == [inode(number) for number in numbers]


CHURN = """
import os, sys, threading
import activation, trio

sources = [os.open(os.devnull, os.O_RDONLY), *os.pipe()]
stop = threading.Event()

def churn():
    while not stop.is_set():
        numbers = [*os.pipe(), os.open(os.devnull, os.O_RDONLY)]
        for number in numbers:
            os.close(number)

async def main():
    files = [(f"n{number}", number) for number in sources * 5]
    expected = [os.readlink(f"/proc/self/fd/{number}") for _, number in files]
    code = "import os; print([os.readlink(f'/proc/self/fd/{number}') for number in range(3, 18)])"
    for _ in range(30):
        process = await activation.open_process([sys.executable, "-S", "-c", code], files, stdout=-1)
        said = await process.stdout.receive_some()
        assert said.decode().strip() == str(expected), (said, expected)
        assert await process.wait() == 0
        await process.stdout.aclose()
        try:
            await activation.open_process(["/nonexistent"], files)
        except FileNotFoundError:
            continue
        raise AssertionError("the error of the exec was lost")

sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=churn) for _ in range(4)]
for thread in threads:
    thread.start()
try:
    trio.run(main)
finally:
    stop.set()
"""


def test_other_threads_may_open_and_close_descriptors_meanwhile() -> None:
    # In a process of its own, whose low numbers are free: there the pipe for the error of a failed exec may end up
    # where a descriptor is to go.
    done = subprocess.run(
        [sys.executable, "-c", CHURN], capture_output=True, text=True, timeout=20 * LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_standard_stream_can_be_passed_although_it_is_redirected() -> None:
    code = "import json, os; print(json.dumps({'pid': os.getpid(), 'inodes': [os.fstat(n).st_ino for n in (3, 4, 5)]}))"
    wanted = [os.fstat(number).st_ino for number in (0, 2, 0)]
    shown = await shown_by(
        [sys.executable, "-S", "-c", code],
        [("in", 0), ("err", 2), ("in", 0)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert shown["inodes"] == wanted


async def test_many_children_can_be_started_at_once() -> None:
    results = []

    async def start(number: int, sock: socket.socket) -> None:
        shown = await shown_by(SHOW_COMMAND, [(f"n{number}", sock)] * 3)
        results.append((shown["env"]["LISTEN_FDNAMES"], shown["inodes"]))

    socks = [udp_socket() for _ in range(30)]
    with no_leak():
        async with trio.open_nursery() as nursery:
            for number, sock in enumerate(socks):
                nursery.start_soon(start, number, sock)
    expected = [(f"n{number}:n{number}:n{number}", [inode(sock)] * 3) for number, sock in enumerate(socks)]
    assert sorted(results) == sorted(expected)
    for sock in socks:
        sock.close()


async def test_signals_under_handlers_do_not_disturb_a_start() -> None:
    caught = []
    before = signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
    main = threading.main_thread().ident
    stop = threading.Event()
    assert main

    def send() -> None:
        while not stop.wait(0.0005):
            signal.pthread_kill(main, signal.SIGUSR1)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with tcp_listener() as tcp:
            for _ in range(30):
                assert (await shown_by(SHOW_COMMAND, [("a", tcp)]))["inodes"] == [inode(tcp)]
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert caught


async def test_the_child_has_default_signal_actions_and_an_empty_mask() -> None:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    code = (
        "import json, os; lines = dict(line.split(':') for line in open('/proc/self/status') if line[:3] == 'Sig');"
        "print(json.dumps({'pid': os.getpid(), **lines}))"
    )
    try:
        with tcp_listener() as tcp:
            command = ["/bin/sh", "-c", 'exec "$0" "$@"', sys.executable, "-I", "-S", "-c", code]
            shown = await shown_by(command, [("a", tcp)])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert int(shown["SigBlk"], 16) == 0
    assert not int(shown["SigCgt"], 16) & 1 << (signal.SIGUSR1 - 1)


@pytest.mark.parametrize("env", [None, {"PATH": "/usr/bin:/bin"}])
async def test_a_program_that_does_not_exist_or_may_not_run_is_the_usual_error(
    tmp_path: Path, env: dict[str, str] | None
) -> None:
    unrunnable = tmp_path / "plain"
    unrunnable.write_text("no program")
    garbage = tmp_path / "garbage"
    garbage.write_text("no program")
    garbage.chmod(0o755)
    with tcp_listener() as tcp, no_leak():
        for command, error in [
            (["/nonexistent/program"], FileNotFoundError),
            (["surely-no-such-program"], FileNotFoundError),
            ([str(unrunnable)], PermissionError),
            ([str(tmp_path)], PermissionError),
            ([str(garbage)], OSError),
        ]:
            with pytest.raises(error):
                await activation.open_process(command, [("a", tcp), ("b", 0)], env=env)
            before = open_descriptors()
            with pytest.raises(error):
                activation.exec_process(command, [("a", tcp), ("b", 0)], env=env)
            assert open_descriptors() == before
        assert not os.get_inheritable(tcp.fileno())


async def test_the_environment_given_is_the_whole_one_and_its_path_counts(tmp_path: Path) -> None:
    program = tmp_path / "surely-only-here"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "$CODE"\n')
    program.chmod(0o755)
    env = {"PATH": f"/nonexistent:{tmp_path}", "CODE": SHOW, "LISTEN_FDNAMES": "stale", "LISTEN_FDS": "7"}
    with tcp_listener() as tcp:
        shown = await shown_by(["surely-only-here"], [("a", tcp)], env=env)
        assert shown["env"]["LISTEN_FDNAMES"] == "a"
        assert shown["env"]["LISTEN_FDS"] == "1"
        assert shown["home"] is None
        shown = await shown_by(["surely-only-here"], [("", tcp)], env={**env, "HOME": "/tmp"})
        assert "LISTEN_FDNAMES" not in shown["env"]
        assert shown["home"] == "/tmp"
        assert (await shown_by(["surely-only-here"], [], env=env))["env"] == {}


async def test_options_are_trios(tmp_path: Path) -> None:
    code = """
import json, os
print(json.dumps({"pid": os.getpid(), "cwd": os.getcwd(), "sid": os.getsid(0), "in": input()}))
"""
    (tmp_path / "in").write_text("a line\n")
    with tcp_listener() as tcp, (tmp_path / "in").open() as file:
        command = [sys.executable, "-c", code]
        shown = await shown_by(command, [("a", tcp)] * 9, cwd=tmp_path, start_new_session=True, stdin=file)
        assert shown["cwd"] == str(tmp_path)
        assert shown["sid"] == shown["pid"]
        assert shown["in"] == "a line"
        for options in ({"pass_fds": ()}, {"close_fds": True}, {"preexec_fn": print}):
            (option,) = options
            with pytest.raises(TypeError, match=f"cannot take {option}"):
                await activation.open_process(["true"], [], **options)


@pytest.mark.parametrize("start", ["open_process", "exec_process"])
async def test_what_cannot_be_passed_is_told_and_nothing_is_started(start: str) -> None:
    async def refused(files: Any, **options: Any) -> None:
        if start == "open_process":
            await activation.open_process(["/bin/false"], files, **options)
        else:
            activation.exec_process(["/bin/false"], files, **options)

    spent = File(tcp_listener().detach(), "spent")
    spent.close()
    with no_leak():
        with pytest.raises(activation.ActivationError, match="'spent' was given away or closed"):
            await refused([spent])
        with pytest.raises(OSError, match="descriptor 1000000, to be passed as 'a', is not open"):
            await refused([("a", 1000000)])
        with pytest.raises(OSError, match="descriptor -1"):
            await refused([("a", -1)])
        with pytest.raises(ValueError, match="'a:b' cannot be a descriptor's name"):
            await refused([("a:b", 0)])
        with pytest.raises(ValueError, match="cannot be a descriptor's name"):
            await refused([("a\0", 0)])
        with pytest.raises(OSError, match=f"descriptor {1 << 40}, to be passed as 'a', is not open"):
            await refused([("a", 1 << 40)])
        for env in ({"A=B": "c"}, {"": "c"}, {"A": "\0"}):
            with pytest.raises(ValueError, match="cannot be in an environment"):
                await refused([("a", 0)], env=env)


# exec_process() in a child of the test: it prints nothing itself, the program it becomes does.
BECOME = """
import fcntl, os, signal, socket, sys, threading
import activation
{setup}
command = [sys.executable, "-S", "-c", {show!r}]
activation.exec_process(command, files, **options)
"""


def become(setup: str) -> dict[str, Any]:
    code = BECOME.format(setup=setup, show=SHOW)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def test_a_process_becomes_the_program_with_its_descriptors_in_order() -> None:
    shown = become("""
for _ in range(600): os.pipe()
os.set_inheritable(900, True)
wanted = [7, 3, 5, 4, 4, 900, 6]
files = [(f"inode{os.fstat(number).st_ino}", number) for number in wanted]
options = {}
""")
    assert shown["numbers"] == list(range(10))
    assert shown["env"]["LISTEN_FDNAMES"] == ":".join(f"inode{number}" for number in shown["inodes"])
    assert shown["env"]["LISTEN_PID"] == str(shown["pid"])
    assert shown["env"]["LISTEN_FDS"] == "7"


def test_what_was_passed_to_a_tool_goes_on_under_its_names_to_the_pid_it_names() -> None:
    shown = become("""
os.dup2(os.pipe()[0], 3); os.dup2(os.pipe()[0], 4)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="b:a")
files = activation.files(unset_env=False)
options = {"listen_pid": 1, "env": {**os.environ, "HOME": "/container"}}
""")
    assert shown["env"] == {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "b:a"}
    assert shown["home"] == "/container"
    assert shown["numbers"] == [0, 1, 2, 3, 4]


def test_argument_0_may_be_another_than_the_program() -> None:
    code = f"""
import activation
activation.exec_process(["another", "-c", "import sys; print(sys.orig_argv[0])"], [], executable={sys.executable!r})
"""
    assert output(code) == "another"


def test_before_the_exec_the_descriptors_are_in_place_already() -> None:
    code = """
import os, activation
mine = os.pipe()[0]
def before():
    assert os.fstat(3).st_ino == inode
    os.write(1, b"waited ")
inode = os.fstat(mine).st_ino
activation.exec_process(["echo", "became"], [("a", mine), ("b", 0)], before=before)
"""
    assert output(code) == "waited became"


def test_what_is_raised_before_the_exec_leaves_everything_as_it_was() -> None:
    code = """
import os, signal, activation
def identities():
    return {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")[:-1]}
signal.signal(signal.SIGTERM, lambda *_: None)
pipe, handler = os.pipe(), signal.getsignal(signal.SIGTERM)
before = identities()
try:
    activation.exec_process(["true"], [("a", pipe[1])], before=lambda: 1 / 0)
except ZeroDivisionError:
    print(identities() == before, signal.getsignal(signal.SIGTERM) is handler)
"""
    assert output(code) == "True True"


def test_extra_descriptors_follow_and_no_variable_tells_of_them() -> None:
    shown = become("""
wanted = [7, 3]
files = [("web", 5)]
options = {"extra": wanted, "listen_pid": 7}
for _ in range(5): os.pipe()
""")
    assert shown["numbers"] == [0, 1, 2, 3, 4, 5]
    assert shown["env"] == {"LISTEN_PID": "7", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    shown = become("""
files = []
options = {"extra": [os.pipe()[0]]}
""")
    assert shown["numbers"] == [0, 1, 2, 3]
    assert shown["env"] == {}


def test_whoever_names_the_process_gets_no_pidfd_number() -> None:
    shown = become("""
files = [("web", 0)]
options = {"listen_pid": os.getpid()}
""")
    assert shown["env"] == {"LISTEN_PID": str(shown["pid"]), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}


def test_files_after_an_exec_finds_its_own_pidfd_number() -> None:
    code = """
import os, sys, activation
if len(sys.argv) < 2:
    activation.exec_process([sys.executable, sys.argv[0] or "-c", *sys.orig_argv[2:], "again"], [("a", 0)])
print([file.name for file in activation.files()])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    # argv[0] is "-c" under -c, so the program becomes itself with one more argument.
    assert (done.stdout.strip(), done.stderr) == ("['a']", "")


def test_a_failed_exec_gives_everything_back() -> None:
    with tcp_listener() as tcp:
        code = """
import os, signal, sys, activation
signal.signal(signal.SIGUSR1, print)
pipe = os.pipe()
os.set_inheritable(pipe[0], True)
def state():
    numbers = [number for number in range(99) if os.path.lexists(f"/proc/self/fd/{number}")]
    return [(number, os.readlink(f"/proc/self/fd/{number}"), os.get_inheritable(number)) for number in numbers]
before = state()
for files in ([("a", pipe[1]), ("b", pipe[0]), ("c", 0), ("d", 1)], [], [("x", pipe[0])] * 40):
    try:
        activation.exec_process(["/nonexistent"], files)
    except FileNotFoundError:
        pass
    assert state() == before, (before, state())
    assert signal.getsignal(signal.SIGUSR1) is print
    assert "LISTEN_FDS" not in os.environ
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            pass_fds=[tcp.fileno()],
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_exec_process_needs_no_proc_and_works_in_any_thread() -> None:
    # Unmounting /proc takes root; a listing that fails stands in for a container that has none.
    shown = become("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
def no_proc(path): raise FileNotFoundError(path)
os.listdir = no_proc
os.set_inheritable(os.dup(0), True)
files, options = [("a", 0)], {}
run = activation.exec_process
def in_thread(*args, **kwargs):
    thread = threading.Thread(target=run, args=args, kwargs=kwargs); thread.start(); thread.join()
activation.exec_process = in_thread
""")
    assert shown["numbers"] == [0, 1, 2, 3]


def test_names_that_were_only_numbers_do_not_travel() -> None:
    shown = become(
        """
for number in (3, 4, 5): os.dup2(0, number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES=names)
files, options = activation.files()[1:], {}
""".replace("names", "'a'")
    )
    assert shown["env"]["LISTEN_FDS"] == "2"
    assert "LISTEN_FDNAMES" not in shown["env"]


def test_what_python_ignores_is_not_ignored_by_the_program() -> None:
    code = """
import activation
activation.exec_process(["/bin/grep", "SigIgn", "/proc/self/status"], [])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert int(done.stdout.split()[1], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


@pytest.mark.parametrize("limit", range(20, 28))
def test_nothing_leaks_where_there_are_hardly_any_descriptors_left(limit: int) -> None:
    code = f"""
import os, resource, activation
numbers = []
while (number := os.dup(0)) < 18:
    numbers.append(number)
os.close(number)
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
before = sorted(os.listdir("/proc/self/fd"))
try:
    activation.exec_process(["/nonexistent"], [("a", 4), ("b", 3), ("c", 6), ("d", 5)])
except OSError as error:
    print(type(error).__name__)
assert sorted(os.listdir("/proc/self/fd")) == before
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() in ("OSError", "FileNotFoundError")


async def test_a_command_that_is_none_is_told() -> None:
    commands: list[Any] = ["true", b"true", []]
    for command in commands:
        with pytest.raises(TypeError, match=r"command is .*; expected a sequence"):
            activation.exec_process(command, [])
    with pytest.raises(TypeError, match=r"command is .*; expected a program"):
        await activation.open_process([], [("a", 0)])
    with pytest.raises(OSError, match="descriptor 99999, to be stdin, is not open"):
        await activation.open_process(["true"], [("a", 0)], stdin=99999)


def test_exec_process_loads_neither_trio_nor_attrs() -> None:
    code = """
import sys, activation
try:
    activation.exec_process(["/nonexistent"], [("a", 0)])
except OSError:
    print({"trio", "attr", "attrs"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


def test_a_signal_that_comes_during_an_exec_is_not_lost() -> None:
    code = """
import os, signal, sys, activation
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"handled"))
os.write(1, b"!")
activation.exec_process(["/bin/sleep", "60"], [("a", 0)] * 30)
"""
    chosen = random.Random(3)
    for _ in range(40):
        process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, bufsize=0)
        assert process.stdout
        assert process.stdout.read(1) == b"!"
        threading.Event().wait(chosen.uniform(0, 0.004))
        process.send_signal(signal.SIGTERM)
        # Whenever it comes, either the handler has it or it ends the process: the output's end is the process's.
        assert select.select([process.stdout], [], [], 30)[0]
        handled = process.stdout.read(7)
        if handled:
            process.kill()
        assert process.wait(LIMIT) == -(signal.SIGKILL if handled else signal.SIGTERM)
        process.stdout.close()


@pytest.mark.parametrize("passed_on", [False, True])
async def test_a_child_speaks_to_the_manager_only_where_it_is_given_the_environment(
    monkeypatch: pytest.MonkeyPatch, *, passed_on: bool
) -> None:
    variables = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "FDSTORE": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    env = os.environ if passed_on else None
    code = f"import os; print({{name: os.environ.get(name) for name in {list(variables)}}})"
    process = await activation.open_process([sys.executable, "-c", code], [], env=env, stdout=subprocess.PIPE)
    assert process.stdout
    said = b""
    async for data in process.stdout:
        said += data
    await process.wait()
    assert ast.literal_eval(said.decode()) == (variables if passed_on else dict.fromkeys(variables))
