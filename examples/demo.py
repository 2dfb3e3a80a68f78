"""The story that socket activation is about, on this terminal: no systemd, no root, real processes.

Run by ``make demo``. Somebody listens, nobody serves; the client comes, and only then the daemon runs. Then the daemon
is killed in the middle of a client's session, which goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

SCRIPTS = Path(sys.executable).parent


def main() -> int:
    """Tell the story; return 0 if it went as it should."""
    with tempfile.TemporaryDirectory(prefix="activation-demo-") as folder:
        path = f"{folder}/foobar.sk"
        show(f"socket-activate --listen {path} foobard &")
        activator = subprocess.Popen(
            [SCRIPTS / "socket-activate", "--listen", path, SCRIPTS / "foobard"], stderr=subprocess.PIPE, text=True
        )
        assert activator.stderr
        try:
            tell(activator.stderr.readline())

            note("The socket exists ...")
            show(f"ls -l {path}")
            subprocess.run(["ls", "-l", path], check=True)
            note("... and nobody serves it: socket-activate runs, with helpers that start programs, and no foobard.")
            before = processes(activator.pid)

            note("A client comes and says two lines.")
            show(f"printf 'hello\\nworld\\n' | client {path}")
            client = subprocess.run(
                [SCRIPTS / "client", path], input="hello\nworld\n", stdout=subprocess.PIPE, text=True, check=True
            )
            tell(client.stdout)

            note("For it, foobard was started with the socket:")
            tell(activator.stderr.readline())
            after = processes(activator.pid)

            note("Another client is in the middle of its session ...")
            outlived = killed_in_a_session(path, activator)
        finally:
            activator.terminate()
            rest = activator.communicate()[1]
        note("Ctrl-C at the activator: all are gone, and so is the socket's path.")
        tell(rest)
        fine = client.stdout == "connect success !\nhello\nworld\n" and (before, after) == (0, 1)
        return 0 if fine and outlived and not os.path.exists(path) else 1


def killed_in_a_session(path: str, activator: subprocess.Popen[str]) -> bool:
    """Kill foobard between two lines of one client; return whether the session went on with another foobard."""
    pids: list[int] = []
    lines: list[str] = []
    with subprocess.Popen(
        [SCRIPTS / "client", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin
        assert client.stdout
        show(f"client {path}")
        tell(client.stdout.readline())
        for word in ("before", "after"):
            print(f"{word}\n", end="", file=client.stdin, flush=True)
            lines.append(client.stdout.readline())
            tell(f"{word}\n{lines[-1]}")
            processes(activator.pid)
            pids.append(foobard(activator.pid))
            if word == "before":
                note("... and foobard is killed.")
                show(f"kill -9 {pids[0]}")
                os.kill(pids[0], signal.SIGKILL)
                assert activator.stderr
                while "what it stored is kept" not in (line := activator.stderr.readline()):
                    pass
                tell(line)
                note("The session goes on. The next line is answered by another process:")
        client.stdin.close()
    return lines == ["before\n", "after\n"] and pids[0] != pids[1]


def foobard(activator: int) -> int:
    """The number of the foobard that the activator has started."""
    return next(row.pid for row in table() if row.parent == activator and row.name == "foobard")


def processes(activator: int) -> int:
    """Show the activator and its processes; return how many of them are programs that it started, not its own."""
    show("ps -A -o pid,ppid,comm")
    rows = [row for row in table() if activator in (row.pid, row.parent)]
    print(f"{'PID':>7} {'PPID':>7} COMMAND")
    for row in rows:
        print(f"{row.pid:>7} {row.parent:>7} {row.name}")
    own = {row.command for row in rows if row.pid == activator}
    return sum(row.command not in own for row in rows)


class Row(NamedTuple):
    """A process: its number and its parent's, its name, and the command that it was started with."""

    pid: int
    parent: int
    name: str
    command: str


def table() -> list[Row]:
    """All processes."""
    if shutil.which("ps"):
        columns = ["-o", "pid=", "-o", "ppid=", "-o", "comm=", "-o", "args="]
        lines = subprocess.run(
            ["ps", "-A", "-ww", *columns], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.splitlines()
        fields = [line.split(None, 3) for line in lines]
        return [Row(int(pid), int(parent), name, "".join(command)) for pid, parent, name, *command in fields]
    # A slim container has no ps; what ps reads is there all the same.
    rows = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            command = (status.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            known = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except FileNotFoundError:
            continue
        rows.append(Row(int(status.parent.name), int(known["PPid"]), known["Name"].strip(), command))
    return rows


def show(command: str) -> None:
    """Print a command as it would be typed."""
    print(f"$ {command}", flush=True)


def tell(text: str) -> None:
    """Print what a command said."""
    print(text.rstrip("\n"), flush=True)


def note(text: str) -> None:
    """Print a remark on what follows."""
    print(f"\n# {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
