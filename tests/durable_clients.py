"""Clients of a daemon that counts lines, for each connection: whatever happens to it, each line is answered once.

A client sends ``number\n`` and expects ``count number\n``, where the count is how many lines this connection has sent.
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.commands import LIMIT, connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COUNTER = """
import sys, trio, activation
from functools import partial

async def count(stream):
    while line := await stream.receive_until(b"\\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        {pause}
        await stream.send_all(stream.state + b" " + line)

trio.run(partial(activation.serve, count, durable=True))
"""


class Client:
    """One connection after another to one address."""

    def __init__(self, crowd: Crowd, address: object, chance: random.Random) -> None:
        self.crowd, self.address, self.chance = crowd, address, chance
        self.begin()

    def begin(self) -> None:
        self.sock = connect(self.address)
        self.sock.setblocking(False)
        self.sent = self.answered = 0
        self.buffer = b""
        self.lines = self.chance.randint(1, 30) if self.crowd.come_and_go else 1 << 60
        self.at_once = self.chance.choice((1, 1, 5))
        self.half_closed = False
        self.crowd.selector.register(self.sock, selectors.EVENT_READ, self)
        self.say()

    def say(self) -> None:
        count = min(self.at_once, self.lines - self.sent)
        text = b"".join(b"%d\n" % (self.sent + number) for number in range(count))
        self.sent += count
        self.asked = time.monotonic()
        assert self.sock.send(text) == len(text)
        if self.sent == self.lines:
            self.leave()

    def leave(self) -> None:
        """End this half, reset, or wait for the answers and close."""
        how = self.chance.choice(("half", "reset", "close"))
        if how == "half":
            self.sock.shutdown(socket.SHUT_WR)
            self.half_closed = True
        elif how == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.end()

    def end(self) -> None:
        self.crowd.selector.unregister(self.sock)
        self.sock.close()
        self.crowd.ended += 1
        if not self.crowd.over.is_set():
            self.begin()

    def hear(self) -> None:
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            if not (self.half_closed and self.answered == self.lines):
                # Between the accept and the hold, a client that has no answer may be reset.
                assert not self.answered, f"the connection ended after {self.answered} of {self.lines} answers"
                self.crowd.unheard += 1
            self.end()
            return
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            expected = b"%d %d" % (self.answered + 1, self.answered)
            assert line == expected, f"the answer is {line!r} instead of {expected!r}"
            self.answered += 1
            self.crowd.answers += 1
        if self.answered == self.sent:
            self.crowd.longest = max(self.crowd.longest, time.monotonic() - self.asked)
            if self.sent < self.lines:
                self.say()
            elif not self.half_closed:
                self.end()


class Crowd:
    """Many clients, in one thread.

    Attributes:
        come_and_go: whether each connection ends some time: by its half's end, by a reset, by a close.
        answers: how many there were.
        ended: how many connections came to their end.
        unheard: how many ended before they had any answer, by the daemon.
        longest: seconds that an answer took.
    """

    def __init__(self, addresses: Sequence[object], count: int, *, come_and_go: bool = False) -> None:
        self.come_and_go = come_and_go
        self.answers = self.ended = self.unheard = 0
        self.longest = 0.0
        self.selector = selectors.DefaultSelector()
        self.over = threading.Event()
        self.clients = [
            Client(self, addresses[number % len(addresses)], random.Random(number)) for number in range(count)
        ]
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self.over.is_set():
                for key, _ in self.selector.select(0.05):
                    key.data.hear()
        except BaseException as error:
            self._failure = error

    def until_answers(self, count: int) -> None:
        """Wait for that many more answers."""
        goal, deadline = self.answers + count, time.monotonic() + LIMIT
        while self.answers < goal:
            self.check()
            assert time.monotonic() < deadline, f"only {self.answers} of {goal} answers came"
            time.sleep(0.001)

    def until_all_are_answered(self) -> None:
        """Wait until each client has one more answer than now, or another connection."""
        before = [(client.sock, client.answered) for client in self.clients]
        deadline = time.monotonic() + LIMIT
        for client, (sock, answered) in zip(self.clients, before, strict=True):
            while client.sock is sock and client.answered == answered:
                self.check()
                assert time.monotonic() < deadline, "a client waits for its answer"
                time.sleep(0.001)

    def check(self) -> None:
        if self._failure:
            raise self._failure

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self.over.set()
        self._thread.join()
        for client in self.clients:
            client.sock.close()
        self.selector.close()
        self.check()


@contextmanager
def crowd(addresses: Sequence[object], count: int, **options: Any) -> Iterator[Crowd]:
    """Clients, half of them at each address where there are two, for the length of the block."""
    clients = Crowd(addresses, count, **options)
    clients.begin()
    try:
        yield clients
        clients.until_all_are_answered()
    finally:
        clients.end()
