"""A service: what it keeps from one start to the next, and the one life that it has at a time."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

import activation
from activation_cmd.common.stdio import say
from activation_cmd.socket_activate.processes.start import IDENTITY
from activation_cmd.socket_activate.units.directories import runtime_paths

from .life import Life
from .limits import LimitedSay
from .starts import Starts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from activation_cmd.socket_activate.processes.launch import Child
    from activation_cmd.socket_activate.processes.reaper import Reaper
    from activation_cmd.socket_activate.processes.start import Start
    from activation_cmd.socket_activate.units.model import ServiceUnit
    from activation_cmd.socket_activate.units.results import End

    from .notify_socket import NotifySocket, NotifySockets
    from .starts import Surroundings


@attrs.define(eq=False)
class Service:
    """A service and what it is passed. Only one start of it lives at a time.

    Attributes:
        name: for messages.
        files: its sockets, with their names.
        variables: what is to be in its environment before all that its unit says.
    """

    unit: ServiceUnit
    surroundings: Surroundings
    reaper: Reaper
    notify_sockets: NotifySockets
    files: Sequence[tuple[str, int]]
    name: str
    variables: Mapping[str, str] = attrs.field(factory=dict)
    store: activation.DescriptorStore = attrs.field(init=False)
    life: Life | None = attrs.field(default=None, init=False)
    _notify: NotifySocket | None = attrs.field(init=False)
    _starts: Starts = attrs.field(init=False)
    _say_status: LimitedSay = attrs.field(init=False)
    _complain: LimitedSay = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._starts = Starts.of(self.unit, self.surroundings, self.variables)
        self._say_status, self._complain = LimitedSay(self.say), LimitedSay(self.say)
        self._notify = None
        if self.unit.notify_access != "none":
            self._notify = self.notify_sockets.make(self._starts.uid)
        self.store = activation.DescriptorStore(self.unit.store_maximum)

    def close(self) -> None:
        """Close the store and the notify socket. The files belong to whoever made them."""
        self.store.close()
        if self._notify:
            self._notify.close()

    def say(self, message: str) -> None:
        """Print a line about this service."""
        say("socket-activate", f"{self.name}: {message}")

    def start(self, triggers: Sequence[int] = ()) -> Start:
        """Describe the next start.

        Args:
            triggers: the descriptors whose clients it waits for; none to start at once.
        """
        blocking = "socket" in self._starts.streams or not self.unit.non_blocking
        for _, number in self.files:
            os.set_blocking(number, blocking)  # the last run may have changed what all share
        return self._starts.main(self.files, self.store.files(), triggers, self._notify_address)

    @property
    def _notify_address(self) -> str | None:
        return self._notify.address if self._notify else None

    def begin(self, child: Child) -> Life:
        """Begin a life, whose first process is the child; :meth:`live` has to follow."""
        assert child.start
        identity = f"{IDENTITY}={child.start.environment[IDENTITY]}".encode()
        self.life = Life(
            unit=self.unit,
            child=child,
            identity=identity,
            reaper=self.reaper,
            receiver=self._notify.receiver if self._notify else None,
            store=self.store,
            control=self._reload_starts,
            say=self.say,
            say_status=self._say_status,
            complain=self._complain,
        )
        return self.life

    async def live(self) -> End:
        """Follow the life that began, to its end."""
        assert self.life
        try:
            return await self.life.run()
        finally:
            self.life = None

    def _reload_starts(self, main: int) -> list[Start]:
        identity = os.fsdecode(self.life.identity).partition("=")[2] if self.life else secrets.token_hex(16)
        return [
            self._starts.control(command, identity, self._notify_address, {"MAINPID": str(main)})
            for command in self.unit.exec_reload
        ]

    def remove_runtime_directories(self, *, again: bool) -> None:
        """Remove the folders of RuntimeDirectory= when it has ended, as RuntimeDirectoryPreserve= says.

        Args:
            again: it is started again by itself.
        """
        import shutil

        preserve = self.unit.runtime_directory_preserve
        if preserve == "yes" or (preserve == "restart" and again):
            return
        for path in runtime_paths(self.unit, self.surroundings.manager):
            with suppress(OSError):
                if os.path.islink(path):
                    os.unlink(path)
                else:
                    shutil.rmtree(path)

    def release_store(self, *, again: bool) -> None:
        """Close what is stored when it has ended, as FileDescriptorStorePreserve= says."""
        preserve = self.unit.store_preserve
        if preserve == "no" or (preserve == "restart" and not again):
            self.store.clear()


def reloads(unit: ServiceUnit) -> bool:
    """Whether the unit says how the service reloads its configuration."""
    return unit.type == "notify-reload" or bool(unit.exec_reload)
