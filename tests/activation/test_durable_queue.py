"""The queue that holds durable connections, as it fills up, fails, and is found by the next process."""

from __future__ import annotations

import errno
import os
import random
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from activation._durable_memory import Memory
from activation._durable_options import Durable
from activation._durable_queue import HoldingQueue
from tests.children import no_leak
from tests.commands import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from activation._durable_slot import Slot

SMALL = Durable(connections=2000, input=1, output=1, state=1)


class Failing(socket.socket):
    """A socket on which so many sends succeed, and no more."""

    left = 1 << 30

    def sendmsg(self, *arguments: Any) -> int:
        if not self.left:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        self.left -= 1
        return super().sendmsg(*arguments)


class Killed(BaseException):
    """What ends a process in the test's own."""


class Killing(socket.socket):
    """A socket on which so many sends and receives are the last."""

    left = 1 << 30

    def step(self) -> None:
        Killing.left -= 1
        if not Killing.left:
            raise Killed

    def sendmsg(self, *arguments: Any) -> int:
        sent = super().sendmsg(*arguments)
        self.step()
        return sent

    def recv(self, *arguments: Any) -> bytes:
        data = super().recv(*arguments)
        self.step()
        return data


class Connections:
    """Slots with connections that the queue holds."""

    def __init__(self, kind: type[Failing | Killing] = Failing) -> None:
        self.memory = Memory.create(SMALL)
        one, other = (kind(fileno=end.detach()) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self.entrance = one
        self.queue = HoldingQueue((one, other))
        self.living: dict[Slot, socket.socket] = {}

    def begin(self) -> Slot:
        sock = socket.socket(socket.AF_UNIX)
        slot = self.memory.prepare()
        slot.begin(sock.fileno(), cookie_of(sock))
        self.living[slot] = sock
        return slot

    def hold(self) -> Slot:
        slot = self.begin()
        self.queue.hold(slot)
        return slot

    def end(self, slot: Slot) -> None:
        slot.free()
        self.living.pop(slot).close()
        self.queue.release()

    def close(self) -> None:
        for sock in self.living.values():
            sock.close()
        self.queue.close()
        self.memory.close()


@pytest.fixture
def connections() -> Iterator[Connections]:
    with no_leak():
        connections = Connections()
        yield connections
        connections.close()


def cookie_of(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.SOL_SOCKET, 57, 8)


def held(queue: HoldingQueue) -> list[bytes]:
    """The SO_COOKIE of each descriptor in the queue."""
    cookies = []
    for fds in queue.contents():
        for fd in fds:
            with socket.socket(fileno=fd) as sock:
                cookies.append(cookie_of(sock))
    return cookies


def test_a_clean_that_fails_in_the_middle_leaves_nothing_in_the_queue_twice_for_good(connections: Connections) -> None:
    slots = [connections.hold() for _ in range(700)]
    queue, entrance = connections.queue, connections.entrance
    queue.clean()
    for sends in (1, 1, 2, 1, 2, 2):
        entrance.left = sends
        with pytest.raises(OSError, match="references"):
            queue.clean()
        found = held(queue)
        assert {slot.cookie for slot in slots} == set(found)
        assert len(found) <= 700 + 253
    entrance.left = 1000
    queue.clean()
    assert sorted(held(queue)) == sorted(slot.cookie for slot in slots)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_ends_and_fails_all_that_live_are_held_and_little_else(connections: Connections, seed: int) -> None:
    chance = random.Random(seed)
    queue, entrance = connections.queue, connections.entrance
    for _ in range(1500):
        if connections.living and chance.random() < (0.3 if len(connections.living) < 600 else 0.6):
            # Some are there for long.
            connections.end(chance.choice(list(connections.living)[-100:]))
        else:
            entrance.left = 1000
            queue.make_room()
            connections.hold()
        if chance.random() < 0.05:
            entrance.left = chance.randrange(4)
            try:
                queue.clean()
            except OSError:
                pass
        entrance.left = chance.randrange(4)
    found = held(queue)
    assert set(found) >= {slot.cookie for slot in connections.living}
    assert len(found) <= 2 * len(connections.living) + 3 * 253
    entrance.left = 1000
    queue.clean()
    assert sorted(held(queue)) == sorted(slot.cookie for slot in connections.living)


# Programs with a small limit, as a user of their own: the kernel counts descriptors in messages for each user.
HEAD = """
import os, random, resource, socket
from activation._durable_memory import Memory
from activation._durable_options import Durable
from activation._durable_queue import HoldingQueue
from tests.activation.test_durable_queue import Connections, Killed, Killing, cookie_of
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
if not os.geteuid():
    os.setuid(random.randrange(1 << 20, 1 << 30))
"""

FULL = """
connections = Connections()
queue = connections.queue
queue.make_room()
others = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
count = 0
try:
    while True:
        socket.send_fds(others[0], [b"."], [0])
        count += 1
except OSError as error:
    print("full:", error.strerror)
first, second = connections.begin(), connections.begin()
queue.hold(first)
for attempt in (queue.make_room, lambda: queue.hold(second)):
    try:
        attempt()
    except OSError as error:
        print("none:", error.strerror)
others[1].recv(1)
others[1].recv(1)
queue.make_room()
queue.hold(second)
print("held:", sum(map(len, queue.contents())))
"""

KILLED = """
# A process is killed after each step of a clean, and another one with the same limit goes on.
steps, done = 0, False
while not done:
    steps += 1 if steps < 8 else 31
    connections = Connections(Killing)
    queue, capacity = connections.queue, connections.queue.capacity
    slots = [connections.hold() for _ in range(capacity)]
    for slot in slots[::2]:
        connections.end(slot)
    while len(connections.living) < capacity:
        queue.make_room()
        connections.hold()
    Killing.left = steps
    try:
        queue.clean()
        done = True
    except Killed:
        pass
    Killing.left = 1 << 30
    cookies = {slot.cookie for slot in connections.living}
    while connections.living:
        connections.living.popitem()[1].close()
    again = HoldingQueue(tuple(socket.socket(fileno=end.detach()) for end in queue.ends))
    found = {}
    for message in again.contents():
        for fd in message:
            sock = socket.socket(fileno=fd)
            cookie = cookie_of(sock)
            if cookie in cookies and cookie not in found:
                found[cookie] = sock
            else:
                sock.close()
    assert found.keys() == cookies, (steps, len(found), len(cookies))
    for sock in found.values():
        sock.close()
    again.close()
    connections.memory.close()
print(steps > 2 and "all found")
"""


def program(code: str, limit: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HEAD.format(limit=limit) + code], capture_output=True, timeout=LIMIT, text=True
    )
    assert not done.returncode, done.stderr
    return done.stdout


def test_a_connection_that_was_accepted_has_a_place_in_reserve() -> None:
    assert program(FULL, 100) == (
        "full: Too many references: cannot splice\n"
        "none: Too many references: cannot splice\n"
        "none: Too many references: cannot splice\n"
        "held: 2\n"
    )


@pytest.mark.parametrize("limit", [100, 256, 400, 1024])
def test_a_process_can_open_whatever_one_that_was_killed_has_left(limit: int) -> None:
    assert program(KILLED, limit) == "all found\n"
