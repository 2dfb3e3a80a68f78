"""Accept=yes: each connection gets a service of its own."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from activation_cmd.common.stdio import reason, say
from activation_cmd.socket_activate.sockets.options import set_options
from activation_cmd.socket_activate.units.model import ACCEPTED
from activation_cmd.socket_activate.units.results import outcome

from .limits import LimitedSay, RateLimit
from .service import Service, reloads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.sockets.making import Made, MadeSockets
    from activation_cmd.socket_activate.units.model import Pair

    from .notify_socket import NotifySockets
    from .starts import Surroundings

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)

_PAUSE = 1.0
"""Seconds until the next try, when no connection can be accepted for want of descriptors."""


@attrs.define(eq=False)
class Accepting:
    """A socket unit with Accept=yes from the making of its sockets to their end.

    Attributes:
        failed: the unit was given up, and its sockets are closed.
    """

    pair: Pair
    sockets: MadeSockets
    made: Sequence[Made]
    surroundings: Surroundings
    reaper: Reaper
    notify_sockets: NotifySockets
    failed: bool = attrs.field(default=False, init=False)
    _services: list[Service] = attrs.field(factory=list, init=False)
    _sources: Counter[str] = attrs.field(factory=Counter, init=False)
    _triggered: RateLimit = attrs.field(init=False)
    _count: int = attrs.field(default=0, init=False)
    _accept: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    _complain: LimitedSay = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        unit = self.pair.socket
        self._complain = LimitedSay(self._say)
        self._triggered = RateLimit(unit.trigger_limit_interval, unit.trigger_limit_burst)

    async def run(self, *, now: bool) -> None:  # noqa: ARG002
        """Start an instance for each connection, until stopped or given up. ``now`` has no meaning here."""
        async with trio.open_nursery() as nursery:
            with self._accept:
                async with trio.open_nursery() as accepting:
                    for made in self.made:
                        accepting.start_soon(self._accept_at, made, nursery)

    @property
    def reloads(self) -> bool:
        """Whether the template says how instances reload."""
        return reloads(self.pair.service)

    def stop(self) -> None:
        """Accept no more connections, and stop the instances."""
        self._accept.cancel()
        for service in self._services:
            if service.life:
                service.life.stop()

    def kill(self) -> None:
        """Kill all instances."""
        self.stop()
        for service in self._services:
            if service.life:
                service.life.kill()

    def reload(self) -> None:
        """Have the instances read their configuration again."""
        for service in self._services:
            if service.life:
                service.life.reload()

    def restart(self) -> None:
        """Do nothing: a connection keeps its instance, and the next one gets a new instance anyway."""

    async def _accept_at(self, made: Made, nursery: trio.Nursery) -> None:
        with socket.socket(fileno=socket.dup(made.descriptor)) as listener:
            listener.setblocking(False)  # for all who share it, but only connections are passed on
            while True:
                await trio.lowlevel.wait_readable(listener)
                if self._triggered.exhausted_until() > trio.current_time():
                    self._give_up()
                    return
                try:
                    connection, _ = listener.accept()
                except OSError as error:
                    if not isinstance(error, (BlockingIOError, ConnectionAbortedError)):
                        self._complain(f"cannot accept: {reason(error)}")
                        await trio.sleep(_PAUSE)
                    continue
                with connection:
                    self._triggered.count()
                    await self._serve(connection, made, nursery)

    async def _serve(self, connection: socket.socket, made: Made, nursery: trio.Nursery) -> None:
        source = _source(connection)
        if self._is_too_many(source):
            return
        connection.setblocking(True)
        set_options(connection, self.pair.socket)  # connections inherit not all of them
        instance = _instance_name(connection, self._count)
        self._count += 1
        assert self.pair.instance
        try:
            unit = self.pair.instance(instance)
            service = Service(
                unit,
                self.surroundings,
                self.reaper,
                self.notify_sockets,
                [(made.name or ACCEPTED, connection.fileno())],
                unit.name,
                variables=_peer(connection),
            )
        except (ValueError, OSError) as error:
            self._complain(f"a connection was dropped: {reason(error)}")
            return
        child = None
        try:
            child = await self.reaper.fork_patiently([service.start()], at_once=True)
        finally:
            if child is None:
                service.close()
        if child is None:
            return
        service.files = []
        service.say(f"a client came; started {unit.exec_start.program}, pid {child.pid}")
        service.begin(child)
        self._services.append(service)
        self._sources[source] += 1

        async def live() -> None:
            try:
                await service.live()
                assert child.status is not None
                service.say(f"pid {child.pid} {outcome(child.status)}")
            finally:
                self._services.remove(service)
                self._sources -= Counter([source])  # which also drops the hosts that have none left
                service.remove_runtime_directories(again=False)
                service.close()

        nursery.start_soon(live)

    def _is_too_many(self, source: str) -> bool:
        unit = self.pair.socket
        if len(self._services) >= unit.max_connections:
            limit = f"MaxConnections={unit.max_connections}"
        elif source and 0 < unit.max_connections_per_source <= self._sources[source]:
            limit = f"MaxConnectionsPerSource={unit.max_connections_per_source}, from {source}"
        else:
            return False
        self._complain(f"a connection was dropped: {limit}")
        return True

    def _say(self, message: str) -> None:
        say("socket-activate", f"{self.pair.socket.name}: {message}")

    def _give_up(self) -> None:
        self._say(f"clients came {self._triggered}; given up")
        self.failed = True
        self.sockets.close()
        self._accept.cancel()


def _peer(connection: socket.socket) -> dict[str, str]:
    """REMOTE_ADDR and REMOTE_PORT, systemd.exec(5); nothing for a Unix socket."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_VSOCK):
        return {}
    try:
        where = connection.getpeername()
    except OSError:
        return {}  # the client has left already
    host = f"vsock:{where[0]}" if connection.family == socket.AF_VSOCK else where[0].removeprefix("::ffff:")
    return {"REMOTE_ADDR": host, "REMOTE_PORT": str(where[1])}


def _source(connection: socket.socket) -> str:
    """What MaxConnectionsPerSource= counts by: the client's host; nothing for a Unix socket."""
    return _peer(connection).get("REMOTE_ADDR", "")


def _instance_name(connection: socket.socket, count: int) -> str:
    """What systemd puts between @ and .service: a number and the two addresses."""
    try:
        if connection.family == socket.AF_UNIX:
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(credentials)
            return f"{count}-{pid}-{uid}"
        ours, theirs = (_shown(name) for name in (connection.getsockname(), connection.getpeername()))
    except OSError:
        return str(count)
    return f"{count}-{ours}-{theirs}"


def _shown(name: tuple[str | int, ...]) -> str:
    host = str(name[0]).removeprefix("::ffff:")
    return f"{host}:{name[1]}"
