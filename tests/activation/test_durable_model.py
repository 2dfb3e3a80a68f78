"""A durable stream against a model of what it promises: random schedules of what a handler does, with crashes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import activation
from activation.testing import activated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from activation import DurableStream
    from activation.testing import Daemon

    Call: TypeAlias = Callable[[DurableStream], Awaitable[object]]

LIMIT = 30.0
SMALL = activation.Durable(connections=2, input=300, output=500, state=400)
DELIMITER = b"\n"


@attrs.define
class Handler:
    """Does what the test asks it to do, in whichever process it is."""

    calls: trio.MemorySendChannel[Call] = attrs.field(init=False)
    results: trio.MemoryReceiveChannel[object] = attrs.field(init=False)
    began: trio.Event = attrs.field(factory=trio.Event)

    async def __call__(self, stream: DurableStream) -> None:
        self.calls, calls = trio.open_memory_channel[Any](1)
        results, self.results = trio.open_memory_channel[Any](1)
        self.began.set()
        async for call in calls:
            await results.send(await call(stream))

    async def begin(self, call: Call) -> None:
        await self.began.wait()
        await self.calls.send(call)

    async def do(self, call: Call) -> Any:
        await self.begin(call)
        return await self.results.receive()


@attrs.define
class Model:
    """What must be true: committed, and what becomes so with the next commit."""

    said: bytes = b""
    consumed: int = 0
    position: int = 0
    answers: bytes = b""
    staged: bytes = b""
    state: bytes = b""
    next_state: bytes = b""
    commits: int = 0
    touched: bool = False

    def commit(self) -> None:
        self.commits += self.touched
        self.consumed, self.state, self.touched = self.position, self.next_state, False
        self.answers, self.staged = self.answers + self.staged, b""

    def crash(self) -> None:
        self.position, self.next_state, self.staged, self.touched = self.consumed, self.state, b"", False

    def take(self, received: bytes) -> None:
        assert self.said[self.position :].startswith(received)
        self.position += len(received)
        self.touched = True


class Session:
    """A client of a durable daemon, its handler, and the model of both."""

    def __init__(self, daemon: Daemon, handler: Handler, client: trio.SocketStream) -> None:
        self.daemon, self.handler, self.client = daemon, handler, client
        self.model = Model()
        self.received = b""
        self.id = ""

    async def say(self, size: int) -> None:
        # At most half of the room, so that whatever is asked for fits.
        pending = len(self.model.said) - self.model.consumed
        data = bytes(ord("a") + index % 26 for index in range(min(size, 140 - pending)))
        if data:
            data = data[:-1] + (DELIMITER if size % 3 else data[-1:])
            await self.client.send_all(data)
            self.model.said += data

    async def receive(self, count: int, how: str) -> None:
        model = self.model
        calls: dict[str, Call] = {
            "until": lambda stream: stream.receive_until(DELIMITER),
            "exactly": lambda stream: stream.receive_exactly(count),
            "some": lambda stream: stream.receive_some(count),
        }
        there = model.said[model.position :]
        found = there.find(DELIMITER) + 1
        size = {"until": found, "exactly": count if len(there) >= count else 0, "some": min(1, len(there))}[how]
        if size:
            received = await self.handler.do(calls[how])
            model.commit()
            assert isinstance(received, bytes)
            assert size <= len(received) <= max(size, count if how == "some" else 0)
            model.take(received)
        else:
            # What it waits for never comes; what was before it is committed all the same.
            await self.handler.begin(calls[how])
            before, after = model.answers, model.answers + model.staged
            model.commit()
            if after != before:
                await self.hear()
            else:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await self.crash()

    async def send(self, size: int) -> None:
        size = min(size, 500 - len(self.model.staged))
        data = bytes((len(self.model.answers) + index) % 251 for index in range(size))
        await self.handler.do(lambda stream: stream.send_all(data))
        self.model.staged += data
        self.model.touched |= bool(data)

    async def set_state(self, size: int) -> None:
        async def set_state(stream: DurableStream) -> None:
            stream.state = bytes([size % 251]) * size

        await self.handler.do(set_state)
        self.model.next_state, self.model.touched = bytes([size % 251]) * size, True

    async def commit(self) -> None:
        await self.handler.do(lambda stream: stream.commit())
        self.model.commit()

    async def crash(self) -> None:
        self.handler.began = trio.Event()
        await self.daemon.crash()
        self.model.crash()

    async def restart(self) -> None:
        self.handler.began = trio.Event()
        await self.daemon.restart()
        self.model.crash()

    async def hear(self) -> None:
        while len(self.received) < len(self.model.answers):
            self.received += await self.client.receive_some()
        assert self.received == self.model.answers

    async def check(self) -> None:
        async def look(stream: DurableStream) -> tuple[bytes, int, str]:
            return stream.state, stream.commits, stream.id

        state, commits, id_ = await self.handler.do(look)
        assert (state, commits) == (self.model.next_state, self.model.commits)
        assert id_ == (self.id or id_)
        self.id = id_
        await self.hear()


STEPS = st.one_of(
    st.tuples(st.just(Session.say), st.integers(1, 140)),
    st.tuples(st.just(Session.receive), st.integers(1, 40), st.sampled_from(["until", "exactly", "some"])),
    st.tuples(st.just(Session.send), st.integers(0, 300)),
    st.tuples(st.just(Session.set_state), st.integers(0, 400)),
    st.tuples(st.just(Session.commit)),
    st.tuples(st.just(Session.crash)),
    st.tuples(st.just(Session.restart)),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=40))
async def test_whatever_a_handler_does_and_whenever_it_crashes(steps: list[Any]) -> None:
    handler = Handler()
    serve = partial(activation.serve, handler, durable=SMALL, drain_timeout=0)
    with trio.fail_after(LIMIT):
        async with activated(serve, {"main": "unix"}, store=4) as daemon:
            await daemon.ready()
            async with await daemon.connect("main") as client:
                session = Session(daemon, handler, client)
                for step, *arguments in steps:
                    await step(session, *arguments)
                    await session.check()
