"""A service that its sockets start: for a client, again by Restart=, until it is stopped or given up."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.socket_activate.sockets.flushing import flush
from activation_cmd.socket_activate.units.results import outcome

from .ends import Delay, following
from .limits import RateLimit
from .service import reloads

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from activation_cmd.socket_activate.processes.launch import Child
    from activation_cmd.socket_activate.processes.spare import Spare
    from activation_cmd.socket_activate.processes.start import Start
    from activation_cmd.socket_activate.sockets.making import MadeSockets
    from activation_cmd.socket_activate.units.model import SocketUnit
    from activation_cmd.socket_activate.units.results import End

    from .life import Life
    from .service import Service


@attrs.define(eq=False)
class OnDemand:
    """One service from the making of its sockets to their end.

    Attributes:
        triggers: the descriptors whose clients start it. Without any, it starts whenever one of its rivals does.
        patient: this is a COMMAND, which no unit has limits for. One that fails is started more and more slowly, and
            only starts that leave a client waiting count as too many.
        flushed: the descriptors whose clients do not outlast the service, FlushPending=.
        rivals: by descriptor, the other services that it is passed to, Sockets=. While one of them runs, clients of
            that descriptor start nothing: they may be its own.
        failed: the service was given up, and its sockets are closed.
    """

    service: Service
    socket: SocketUnit
    sockets: MadeSockets
    triggers: Sequence[int]
    spare: Spare
    patient: bool
    flushed: Sequence[int] = ()
    rivals: dict[int, list[OnDemand]] = attrs.field(factory=dict, init=False)
    failed: bool = attrs.field(default=False, init=False)
    _delay: Delay = attrs.field(factory=Delay, init=False)
    _triggered: RateLimit = attrs.field(init=False)
    _started: RateLimit = attrs.field(init=False)
    _stopping: bool = attrs.field(default=False, init=False)
    _killing: bool = attrs.field(default=False, init=False)
    _again: bool = attrs.field(default=False, init=False)
    _reload_wanted: bool = attrs.field(default=False, init=False)
    """A reload was asked for after a client had started the service, and before its life was followed."""
    _pause: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _change: trio.Event = attrs.field(factory=trio.Event, init=False)
    _wanted: trio.Event = attrs.field(factory=trio.Event, init=False)
    """A rival has started since this service ended, or this one has lost its sockets."""
    _offered: Start | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        unit = self.service.unit
        self._triggered = RateLimit(self.socket.trigger_limit_interval, self.socket.trigger_limit_burst)
        self._started = RateLimit(unit.start_limit_interval, unit.start_limit_burst)

    async def run(self, *, now: bool) -> None:
        """Start the service ``now`` or for the first client, and again, until it is stopped or given up."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.service.store.watch)
            while not self._stopping:
                if not now and not self.triggers:
                    now = await self._is_wanted()
                    if not now:
                        break
                child = await self._started_now() if now else await self._started_by_client()
                if child is None:
                    break
                self._started.count()
                self._delay.begin()
                self._catch_up(self.service.begin(child))
                self._tell_rivals()
                child.begun.set()
                for rival in self._all_rivals():
                    rival._wanted.set()  # noqa: SLF001
                end = await self.service.live()
                self._wanted = trio.Event()
                self._tell_rivals()
                flush(self.flushed)
                now = await self._rest(child, end)
            nursery.cancel_scope.cancel()

    @property
    def reloads(self) -> bool:
        """Whether its unit says how it reloads."""
        return reloads(self.service.unit)

    def stop(self) -> None:
        """Stop the service, and do not start it again."""
        self._stopping = True
        self._pause.cancel()
        if self.service.life:
            # There is no next start. A service that knows lets its clients finish, where it would suspend them.
            self.service.life.give_up_store()
            self.service.life.stop()

    def kill(self) -> None:
        """Kill the service."""
        self._killing = True
        self.stop()
        if self.service.life:
            self.service.life.kill()

    def _catch_up(self, life: Life) -> None:
        """Do what was asked for just as the client came."""
        if self._killing:
            life.kill()
        elif self._stopping:
            life.stop()
        elif self._reload_wanted:
            life.reload()

    def reload(self) -> None:
        """Have the service read its configuration again, if it runs."""
        if self.service.life:
            self.service.life.reload()
        elif self._offered:
            # A client starts the service without this process, which may learn of it later than the service is ready.
            self._reload_wanted = self.spare.has_come(self._offered)

    def restart(self) -> None:
        """Stop the service and start it again, if it runs. Its clients wait meanwhile."""
        if self.service.life:
            self._again = True
            self._started.reset()  # a restart that was asked for does not count
            self.service.life.stop()

    async def _started_now(self) -> Child | None:
        if self._started.exhausted_until() > trio.current_time():
            self._give_up(f"it was started {self._started}")
            return None
        child = None
        with trio.CancelScope() as self._pause:
            child = await self.service.reaper.fork_patiently([self.service.start()], at_once=True)
        if child:
            self.service.say(f"started {self.service.unit.exec_start.program}, pid {child.pid}")
        return child

    async def _started_by_client(self) -> Child | None:
        limit = max(self._triggered, self._started, key=RateLimit.exhausted_until)
        if limit.exhausted_until() > trio.current_time():
            with trio.CancelScope(deadline=limit.exhausted_until()) as self._pause:
                await self._readable()
                self._give_up(f"clients started it {limit}")
        if self.failed or self._stopping:
            return None
        child = await self._client_comes()
        if child:
            self._triggered.count()
            self.service.say(f"a client came; started {self.service.unit.exec_start.program}, pid {child.pid}")
        return child

    async def _client_comes(self) -> Child | None:
        """Wait for a client of a descriptor that no other service has now."""
        while True:
            self._change = trio.Event()
            if free := [number for number in self.triggers if not self._is_taken(number)]:
                self._offered, self._reload_wanted = self.service.start(free), False
                child = await self.spare.client_comes(self._offered)
                self._offered = None
                if child or not self._change.is_set():
                    return child
            else:
                with trio.CancelScope() as self._pause:
                    await self._change.wait()
                if self._stopping:
                    return None

    async def _is_wanted(self) -> bool:
        """Wait until a rival starts; return False if none does any more."""
        if self.service.files:
            with trio.CancelScope() as self._pause:
                await self._wanted.wait()
        return bool(self.service.files) and not self._stopping

    def _is_taken(self, number: int) -> bool:
        return any(rival.service.life for rival in self.rivals.get(number, ()))

    def _tell_rivals(self) -> None:
        for rival in self._all_rivals():
            rival._change.set()  # noqa: SLF001
            if rival._offered:  # noqa: SLF001
                self.spare.withdraw(rival._offered)  # noqa: SLF001

    def _all_rivals(self) -> Iterable[OnDemand]:
        return {id(rival): rival for rivals in self.rivals.values() for rival in rivals}.values()

    async def _readable(self) -> None:
        async with trio.open_nursery() as nursery:

            async def watch(number: int) -> None:
                await trio.lowlevel.wait_readable(number)
                nursery.cancel_scope.cancel()

            for number in self.triggers:
                nursery.start_soon(watch, number)

    def _give_up(self, why: str) -> None:
        self.service.say(f"{why}; given up{', and its sockets are closed' if self.triggers else ''}")
        self.failed = True
        for rivals in self.rivals.values():
            for rival in rivals:
                rival.service.files = [each for each in rival.service.files if each[1] not in self.triggers]
                if not rival.service.files:
                    rival._wanted.set()  # noqa: SLF001
        self.sockets.close()

    async def _rest(self, child: Child, end: End) -> bool:
        """Do what has to be done between an end and the next start; return whether that needs no client."""
        assert child.status is not None
        ended = f"pid {child.pid} {outcome(child.status)}"
        if end.result not in ("success", "exit-code", "signal"):
            ended += f" ({end.result})"
        if self._stopping:
            self.service.remove_runtime_directories(again=False)
            self.service.say(ended)
            return False
        waits = self._client_waits()
        then = following(
            self.service.unit,
            end,
            asked=self._again,
            stored=len(self.service.store) > 0,
            delay=self._delay if self.patient else None,
            by_client=bool(self.triggers),
            waits=waits,
        )
        self._again = False
        self.service.remove_runtime_directories(again=then.now)
        self.service.release_store(again=then.now)
        if self.patient and not then.now and not waits:
            self._triggered.reset()
        self.service.say(f"{ended}; {then.words}")
        with trio.CancelScope(deadline=trio.current_time() + then.pause) as self._pause:
            await trio.sleep_forever()
        return then.now

    def _client_waits(self) -> bool:
        poll = select.poll()
        for number in self.triggers:
            poll.register(number, select.POLLIN)
        return bool(poll.poll(0))
