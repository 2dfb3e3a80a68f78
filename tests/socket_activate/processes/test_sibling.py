from __future__ import annotations

import subprocess
import sys

import pytest

# The parent adopts, as socket-activate does; its child forks what is to be the parent's.
PROGRAM = """
import ctypes, os, sys
from activation_cmd.socket_activate.processes import sibling

if sys.argv[1] == "twice":
    sibling._OTHER_NUMBERS = ("",)  # as if no architecture had the call
else:
    sibling._fork_twice = None
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
told, tell = os.pipe()
middle = os.fork()
if not middle:
    before = len(os.listdir("/proc/self/fd"))
    pid = sibling.fork_sibling()
    if not pid:
        inner = os.fork()  # as a child of the executor does for ExecStartPre=
        if not inner:
            os._exit(3)
        os._exit(7 if os.waitpid(inner, 0)[1] == 3 << 8 else 1)
    os.write(tell, str(pid).encode())
    os._exit(len(os.listdir("/proc/self/fd")) - before)
os.close(tell)
assert os.waitpid(middle, 0)[1] == 0, "descriptors are left"
pid = int(os.read(told, 100))
print(os.waitpid(pid, 0) == (pid, 7 << 8))
"""


@pytest.mark.parametrize("way", ["clone3", "twice"])
def test_the_child_is_one_of_the_parents(way: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, way], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


LIMITED = """
import os, resource, sys
from activation_cmd.socket_activate.processes import sibling

if os.getuid() == 0:
    os.setuid(64321)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
before = os.listdir("/proc/self/fd")
try:
    sibling.fork_sibling()
except BlockingIOError as error:
    print(error.strerror, before == os.listdir("/proc/self/fd"))
"""


def test_too_many_processes_are_an_error_and_leave_nothing_open() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=False)
    assert done.stdout == "Resource temporarily unavailable True\n", done.stderr
