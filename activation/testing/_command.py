"""A daemon that is a command: a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import trio

from activation import open_process

from ._run import REACTION, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from activation import Notification
    from activation._types import HasFileno, StrOrBytesPath

LAST_OUTPUT = 1.0
"""Seconds to read on after the process has ended. Another process may keep the pipe open."""


@attrs.define(eq=False)
class CommandRun(Run):
    """One process of the command."""

    process: trio.Process | None = None
    left: list[str] = attrs.field(factory=list)

    async def start(
        self,
        command: Sequence[StrOrBytesPath],
        files: Sequence[tuple[str, int | HasFileno]],
        env: Mapping[str, str],
    ) -> None:
        """Start the process, in a process group of its own."""
        self.process = await open_process(
            command,
            files,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )

    async def live(self) -> None:
        assert self.process
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read_output)
                await self.process.wait()
                nursery.cancel_scope.deadline = trio.current_time() + LAST_OUTPUT
        finally:
            with trio.CancelScope(shield=True):
                self.process.kill()
                self.status = await self.process.wait()
                self._kill_children()
                assert self.process.stdout
                await self.process.stdout.aclose()

    async def _read_output(self) -> None:
        assert self.process
        assert self.process.stdout
        unfinished = b""
        async for data in self.process.stdout:
            *lines, unfinished = (unfinished + data).split(b"\n")
            self._write(lines)
        self._write([unfinished] if unfinished else [])

    def _write(self, lines: list[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="backslashreplace")
            self.output.append(text)
            print(text, file=sys.stderr)  # pytest shows it if the test fails

    def send_signal(self, number: int) -> None:
        assert self.process
        self.see_own_paths()
        self.process.send_signal(number)

    def sockets(self) -> set[int]:
        assert self.process
        folder = f"/proc/{self.process.pid}/fd"
        inodes = set()
        try:
            for number in os.listdir(folder):
                kind, _, inode = os.readlink(f"{folder}/{number}").partition(":[")
                if kind == "socket":
                    inodes.add(int(inode[:-1]))
        except OSError:
            pass  # the process has ended
        return inodes

    def _kill_children(self) -> None:
        """Kill the processes that it started and left, as KillMode=control-group of systemd.kill(5) does."""
        assert self.process
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.left.append("a process that it started (now killed)")

    async def react(self) -> None:
        before = self.status_text
        with trio.move_on_after(REACTION):
            while before is not None and self.status_text == before and not self.over:
                await self.changed.park()

    def leftovers(self) -> list[str]:
        return self.left

    def accepts(self, notification: Notification) -> bool:
        return self.process is None or notification.pid == self.process.pid
