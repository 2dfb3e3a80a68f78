"""The example of a chain of daemons: told by what each of them says, not by how long it takes."""

from __future__ import annotations

import re
import socket
import sys
from typing import TYPE_CHECKING

from examples import parallel_start as chain
from tests.commands import LIMIT, SOCKET_ACTIVATE, run, running, said

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 5


def test_it_prints_a_line_for_each_daemon_both_ways() -> None:
    done = run(sys.executable, chain.__file__, "3")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    shown = done.stdout.decode()
    lines = re.findall(r"^ +(\d+) \|( *)(-*)(=*)(#*)\| \d+\.\d\d s$", shown, re.MULTILINE)
    assert [line[0] for line in lines] == ["1", "2", "3"] * 2
    assert {sum(map(len, line[1:])) for line in lines} == {chain.WIDTH}
    assert len(re.findall(r": all are ready after \d+\.\d\d s, \d+\.\d\d s after the first started$", shown, re.M)) == 2


def test_what_it_cannot_count_it_refuses() -> None:
    done = run(sys.executable, chain.__file__, "0")
    assert done.returncode == 1
    assert done.stderr == b"0 is no number of daemons; expected 1 or more\n"


def test_with_a_socket_of_its_own_each_starts_when_the_one_before_is_ready(tmp_path: Path) -> None:
    numbers = range(1, 4)
    times = chain.one_after_the_other(numbers, str(tmp_path))
    order = sorted(times, key=lambda event: times[event])
    assert order == [
        (number, event)
        for number in numbers
        for event in ("started", "connected", "ready")
        if (number, event) != (1, "connected")
    ]


def test_activated_each_connects_before_the_one_before_is_ready(tmp_path: Path) -> None:
    # The first of the chain waits for the test, so that none can be ready, however fast it is.
    numbers = range(2, 2 + COUNT)
    for name, text in chain.unit_files(numbers, str(tmp_path)).items():
        (tmp_path / name).write_text(text)
    units = [str(tmp_path / f"chain{number}.socket") for number in numbers]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(chain.socket_path(1, str(tmp_path)))
        listener.listen()
        listener.settimeout(LIMIT)
        to_stderr = ("sh", "-c", 'exec "$@" >&2', "sh")  # where running() lets a test read
        with running(*to_stderr, SOCKET_ACTIVATE, "--now", *units, status=0) as process:
            told = b""
            while told.count(b" connected ") < COUNT:
                told += said(process, b"\n")
            assert b" ready" not in told
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"at your service")
            while not all(b"daemon %d ready" % number in told for number in numbers):
                told += said(process, b"\n")
