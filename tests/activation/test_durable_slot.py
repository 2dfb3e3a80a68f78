"""A slot against a model, with a kill between any two of its steps: what it promises holds whatever comes."""

from __future__ import annotations

import os
import random
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation._durable_memory import Memory
from activation._durable_options import Durable
from tests.children import no_leak

SMALL = Durable(connections=3, input=300, output=2000, state=400)


class Connection:
    """A client, the slot that its connection has, and what must be true of both."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.client, self.server = socket.socketpair()
        self.client.setblocking(False)
        self.server.setblocking(False)
        self.slot = memory.prepare()
        self.slot.begin(self.server.fileno(), bytes(8))
        self.said = self.dealt_with = 0  # bytes that the client sent, and those that were committed as consumed
        self.answers = self.received = b""
        self.state = b""
        self.commits = 0

    def close(self) -> None:
        self.client.close()
        self.server.close()

    def say(self, size: int) -> None:
        try:
            self.said += self.client.send(bytes((self.said + index) % 251 for index in range(size)))
        except BlockingIOError:
            pass

    def check(self) -> None:
        """What is there to be received is what was said and not dealt with."""
        pending = self.slot.input()
        assert pending == bytes((self.dealt_with + index) % 251 for index in range(len(pending)))
        assert self.dealt_with + len(pending) <= self.said
        assert self.slot.state() == self.state
        assert self.slot.commits == self.commits
        try:
            self.received += self.client.recv(1 << 20)
        except BlockingIOError:
            pass
        assert self.answers.startswith(self.received)
        assert self.slot.due or self.received == self.answers

    def kill(self) -> None:
        """Go on in another process, as it were: with nothing but the memory."""
        fd = os.dup(self.memory.fd)
        self.memory.close()
        self.memory = Memory(fd, SMALL)
        (self.slot,) = self.memory.taken()
        self.slot.resume()
        self.slot.fd = self.server.fileno()


STEPS = st.one_of(
    st.tuples(st.just("say"), st.integers(1, 700)),
    st.tuples(st.just("receive"), st.just(0)),
    st.tuples(st.just("commit"), st.integers(0, 1 << 30)),
    st.tuples(st.just("send"), st.just(0)),
    st.tuples(st.just("kill"), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_input_output_and_state_are_as_the_last_commit_left_them(steps: list[tuple[str, int]]) -> None:
    with no_leak():
        connection = Connection(Memory.create(SMALL))
        try:
            for step, number in steps:
                slot, chance = connection.slot, random.Random(number)
                if step == "say":
                    connection.say(number)
                elif step == "receive" and len(slot.input()) < SMALL.input:
                    slot.receive()
                elif step == "commit" and not slot.due:
                    consumed = chance.randint(0, len(slot.input()))
                    output = chance.randbytes(chance.choice((0, 1, 1024, 1025, 2000)))
                    state = chance.choice((None, b"", b"x", chance.randbytes(256), chance.randbytes(257)))
                    slot.commit(consumed, output, state)
                    connection.dealt_with += consumed
                    connection.answers += output
                    connection.state = connection.state if state is None else state
                    connection.commits += 1
                elif step == "send" and slot.due:
                    slot.send()
                elif step == "kill":
                    connection.kill()
                connection.check()
        finally:
            connection.close()
            connection.memory.close()


def test_what_came_before_a_reset_is_received() -> None:
    memory = Memory.create(SMALL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server:
        client.sendall(b"last words")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        slot = memory.prepare()
        slot.begin(server.fileno(), bytes(8))
        assert slot.receive() == b"last words"
        assert slot.receive() == b""
    memory.close()


def test_a_reset_that_nothing_came_before_is_an_error() -> None:
    memory = Memory.create(SMALL)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with server:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        slot = memory.prepare()
        slot.begin(server.fileno(), bytes(8))
        with pytest.raises(ConnectionResetError):
            slot.receive()
    memory.close()
