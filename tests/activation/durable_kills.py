"""Kill a durable daemon at each n-th byte code of the library, and be its manager and its client.

``python -m tests.activation.durable_kills unix first 40`` kills a daemon for Unix clients in its first life at every
40th byte code, one run for each; ``tcp recovery 1`` kills the one that goes on after a kill at every single one. It
prints how many points there were, how many clients were reset before they had any answer, and what went wrong.

``tcp reset 40`` lets the daemon live, and resets its client at every 40th byte code: the next client is served, and
nothing is left of the one that is gone.
"""

from __future__ import annotations

import fcntl
import gc
import json
import mmap
import os
import select
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

import activation
from tests.commands import LIMIT

if TYPE_CHECKING:
    from types import FrameType

    from activation import DurableStream

LIBRARY = str(Path(activation.__file__).parent)
LINES = 4
CONNECTIONS = 8
TABLE = 4096
"""Where the memory says which slots are taken, a byte for each."""


async def count(stream: DurableStream) -> None:
    while line := await stream.receive_until(b"\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(stream.state + b" " + line)
        if line == b"bye\n":
            return


class PausedError(Exception):
    """The daemon has come to the byte code of that number, and waits."""


class Daemon:
    """One life of the daemon, in a forked child, which dies at the byte code of that number."""

    def __init__(
        self,
        files: list[tuple[str, int]],
        notify: str,
        counter: mmap.mmap,
        dies_at: int,
        pauses: tuple[int, int] | None,
    ) -> None:
        self.pid = os.fork()
        if not self.pid:
            try:
                self._live(files, notify, counter, dies_at, pauses)
            finally:
                os._exit(1)
        self.pidfd = os.pidfd_open(self.pid)

    def _live(
        self,
        files: list[tuple[str, int]],
        notify: str,
        counter: mmap.mmap,
        dies_at: int,
        pauses: tuple[int, int] | None,
    ) -> None:
        copies = [os.dup(number) for _, number in files]
        os.environ |= {
            "NOTIFY_SOCKET": notify,
            "LISTEN_PID": str(os.getpid()),
            "LISTEN_FDS": str(len(files)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in files),
        }
        high = [os.dup2(copy, 200 + index) for index, copy in enumerate(copies)]
        os.closerange(3, 200)
        for target, number in enumerate(high, 3):
            os.dup2(number, target)
        os.closerange(200, 300)
        seen = 0

        def on_call(frame: FrameType, event: str, argument: Any) -> Any:
            name = frame.f_code.co_filename
            if name.startswith(LIBRARY) and ("_durable" in name or "_connections" in name or "_accepting" in name):
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
                return on_code
            return None

        def on_code(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal seen
            if event == "opcode":
                seen += 1
                if seen == dies_at and pauses:
                    os.write(pauses[0], b".")
                    os.read(pauses[1], 1)
                elif seen == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                struct.pack_into("I", counter, 0, seen)
            return on_code

        sys._getframe().f_trace_opcodes = True  # Python 3.12 traces byte codes only if a frame wants it by now
        sys.settrace(on_call)
        trio.run(partial(activation.serve, count, durable=activation.Durable(connections=CONNECTIONS)))
        os._exit(0)

    def close(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.waitpid(self.pid, 0)
        os.close(self.pidfd)


class Run:
    """A manager with its store, a daemon that dies once or twice, and a client."""

    def __init__(
        self, family: str, folder: str, counter: mmap.mmap, deaths: list[int], *, pauses: bool = False
    ) -> None:
        self.counter, self.deaths, self.starts = counter, deaths, 0
        # The daemon's ends, above the numbers that it closes, and ours.
        (self.paused, told), (waits, self.goes_on) = os.pipe(), os.pipe()
        self.pauses = (
            (fcntl.fcntl(told, fcntl.F_DUPFD, 300), fcntl.fcntl(waits, fcntl.F_DUPFD, 300)) if pauses else None
        )
        os.close(told)
        os.close(waits)
        if family == "tcp":
            self.listener = socket.create_server(("127.0.0.1", 0))
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(f"{folder}/{time.monotonic_ns()}.sk")
            self.listener.listen()
        self.receiver = activation.NotifyReceiver()
        self.store = activation.DescriptorStore(8)
        self.connect()
        self.start()

    def connect(self) -> None:
        self.client = socket.socket(self.listener.family)
        self.client.connect(self.listener.getsockname())

    def start(self) -> None:
        dies_at = self.deaths[self.starts] if self.starts < len(self.deaths) else 0
        self.starts += 1
        files = [("main", self.listener.fileno()), *self.store.files()]
        self.daemon = Daemon(files, self.receiver.address, self.counter, dies_at, self.pauses)

    def close(self) -> None:
        self.daemon.close()
        for fd in (self.paused, self.goes_on, *(self.pauses or ())):
            os.close(fd)
        self.client.close()
        self.listener.close()
        self.store.close()
        self.receiver.close()

    def hear(self) -> None:
        while notification := self.receiver.receive_nowait():
            if not self.store.take(notification):
                notification.close()

    def until_client_hears(self) -> bytes:
        deadline = time.monotonic() + LIMIT
        while True:
            poll = select.poll()
            for fd in (self.client.fileno(), self.daemon.pidfd, self.receiver.fileno(), self.paused):
                poll.register(fd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(1000)]
            assert time.monotonic() < deadline, "the client waits for its answer"
            self.hear()
            if self.daemon.pidfd in ready:
                self.daemon.close()
                self.hear()
                self.start()
            if self.pauses and self.paused in ready:
                raise PausedError
            if self.client.fileno() in ready:
                try:
                    return self.client.recv(1000)
                except ConnectionResetError:
                    return b""

    def live(self, kill_after: int | None) -> bool:
        """Be the client to its end; return whether it was served, and not reset before it had any answer."""
        for number in range(LINES + 1):
            word = b"%d\n" % number if number < LINES else b"bye\n"
            try:
                self.client.sendall(word)
            except (BrokenPipeError, ConnectionResetError):
                pass
            answer = b""
            while not answer.endswith(b"\n"):
                heard = self.until_client_hears()
                if not heard:
                    assert not number, f"the connection ended after {number} answers"
                    assert not answer, f"the connection ended within the answer {answer!r}"
                    return False
                answer += heard
            assert answer == b"%d %s" % (number + 1, word), f"the answer to {word!r} is {answer!r}"
            if number == kill_after:
                os.kill(self.daemon.pid, signal.SIGKILL)
        rest = self.until_client_hears()
        assert not rest, f"after the end there is {rest!r}"
        return True

    def reset(self) -> None:
        """Reset the client, wherever the daemon is, and be another one; nothing is left of both."""
        try:
            self.live(None)
            return  # the daemon has not come that far this time
        except PausedError:
            os.read(self.paused, 1)
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()
        os.write(self.goes_on, b".")
        self.connect()
        assert self.live(None), "the next client was not served"
        (memfd,) = (fd for _, fd in self.store.files() if stat.S_ISREG(os.fstat(fd).st_mode))
        deadline = time.monotonic() + LIMIT
        while any(os.pread(memfd, CONNECTIONS, TABLE)):
            assert time.monotonic() < deadline, "the slot of the client that is gone stays taken"
            time.sleep(0.001)


def main() -> None:
    family, life, every = sys.argv[1], sys.argv[2], int(sys.argv[3])
    gc.disable()
    counter = mmap.mmap(-1, 4096)
    kill_after = 1 if life == "recovery" else None

    def run(point: int) -> bool:
        # In the recovery's case the first life is ended from outside.
        deaths = [0, point] if kill_after is not None else [point]
        one = Run(family, folder, counter, deaths, pauses=life == "reset")
        try:
            if life == "reset" and point:
                one.reset()
                return True
            return one.live(kill_after)
        finally:
            one.close()

    with tempfile.TemporaryDirectory() as folder:
        assert run(0)
        (codes,) = struct.unpack_from("I", counter, 0)
        points = list(range(1, codes + 1, every))
        unheard, failures = [], []
        for point in points:
            try:
                if not run(point):
                    unheard.append(point)
            except AssertionError as error:
                failures.append(f"killed at {point}: {error}")
    print(json.dumps({"codes": codes, "points": len(points), "unheard": unheard, "failures": failures}))


if __name__ == "__main__":
    main()
