from __future__ import annotations

import socket
import subprocess

from activation_cmd.socket_activate.processes.executor import _Process


def test_a_child_that_has_not_begun_its_session_yet_is_one_to_end() -> None:
    orders, other = socket.socketpair()
    with orders, other, subprocess.Popen(["sleep", "1000"]) as child:
        executor = _Process(orders)
        executor._sessions[child.pid] = frozenset()
        try:
            assert executor._members() == {child.pid}
        finally:
            child.kill()
