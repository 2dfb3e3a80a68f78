"""Everything that listens, for all units of a run: made before anything is started, and before an event loop is loaded.

To load the event loop takes longer than to make a hundred sockets. Clients that come meanwhile wait in the sockets.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from activation_cmd.common.stdio import reason, say

from .making import MadeSockets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from activation_cmd.socket_activate.units.model import Pair

    from .making import Made
    from .nodes import Announce


class Group(NamedTuple):
    """The units that start one service, and their sockets, which are closed together.

    Attributes:
        pairs: those whose sockets could be made.
    """

    pairs: list[Pair]
    sockets: MadeSockets


class Listening:
    """The sockets of all units. Leaving the block closes them and removes what they have in the file system.

    Args:
        announce: see :class:`MadeSockets`.
        as_units: the units come from files, and one that fails does not keep the others from listening, as under
            systemd. Otherwise there is one, of a command line, and its error is raised.

    Attributes:
        groups: one for each service, and one for each unit with Accept=yes.
        made: what was made, by the name of the socket unit.
        addresses: on how many of them something listens.
        failed: a unit failed; that has been said.
    """

    def __init__(self, announce: Announce, *, as_units: bool) -> None:
        self.groups: list[Group] = []
        self.made: dict[str, list[Made]] = {}
        self.addresses = 0
        self.failed = False
        self._announce = announce
        self._as_units = as_units
        self._end = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def make(self, pairs: Sequence[Pair]) -> None:
        """Make the sockets of the pairs, in order.

        Raises:
            OSError, ValueError: those of a command line cannot be made.
        """
        groups: dict[int, Group] = {}
        for pair in pairs:
            key = id(pair if pair.socket.accept else pair.service)
            if key not in groups:
                groups[key] = Group([], self._end.enter_context(MadeSockets(self._announce)))
            with self.alone(pair):
                self.made[pair.socket.name] = groups[key].sockets.make(pair.socket)
                groups[key].pairs.append(pair)
                for listen in pair.socket.listen:
                    say("socket-activate", f"listening on {listen.text}")
                self.addresses += len(pair.socket.listen)
        self.groups = [group for group in groups.values() if group.pairs]

    @contextmanager
    def alone(self, pair: Pair) -> Iterator[None]:
        """In this block, an error fails the unit of a file and no other."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not self._as_units:
                raise
            say("socket-activate", f"{pair.socket.name} failed: {reason(error)}")
            self.failed = True
