"""From socket units to open descriptors, as systemd.socket(5) has it; names of hosts are looked up before."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self

from activation_cmd.common.addresses import find, parse
from activation_cmd.common.stdio import reason

from .descriptors import OPENERS, TYPES
from .nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from activation_cmd.socket_activate.units.model import Kind, Listen, SocketUnit

    from .nodes import Announce


class Made(NamedTuple):
    """An open descriptor of a socket unit.

    Attributes:
        listen: the line that it comes from.
        descriptor: close-on-exec, and blocking, as a service finds it under systemd. A service may change that for all
            who share it: ``os.set_blocking(made.descriptor, True)`` before the next one starts.
        name: for LISTEN_FDNAMES; "" for none.
        accept: its connections are accepted and passed one by one.
    """

    listen: Listen
    descriptor: int
    name: str
    accept: bool

    @property
    def kind(self) -> Kind:
        return self.listen.kind

    def fileno(self) -> int:
        return self.descriptor


def _nobody(_kind: str, _path: str, _identity: str) -> None:
    pass


class MadeSockets:
    """The sockets of units. Leaving the block closes them and removes what they have in the file system.

    Args:
        announce: called as ``announce(kind, path, "")`` before something is made in the file system and as
            ``announce(kind, path, identity)`` after it: what to give to ``leftovers.remove_stale``, the last one first,
            if this process dies and cannot do it itself. Units with RemoveOnStop=no have nothing to announce.
    """

    def __init__(self, announce: Announce = _nobody) -> None:
        self._announce = announce
        self._end = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove and close everything that was made so far."""
        self._end.close()

    def make(self, unit: SocketUnit) -> list[Made]:
        """Make everything that a unit listens on, in the order of its lines: all of it or nothing.

        Raises:
            OSError: one cannot be made; the message tells where it is asked for, what and the reason.
            ValueError: a line says what cannot be; the message tells what was expected.
        """
        names = [*unit.descriptor_names, *[""] * len(unit.listen)]
        made = []
        # Paths are removed before their sockets are closed: until then, no other file can get the same inode number.
        with ExitStack() as closing, ExitStack() as removal:
            nodes = Nodes(unit, self._announce if unit.remove_on_stop else _nobody, removal)
            for listen, name in zip(unit.listen, names, strict=False):
                with _told(listen):
                    descriptor = OPENERS[listen.kind](unit, listen, nodes)
                closing.callback(os.close, descriptor)
                made.append(Made(listen, descriptor, name, unit.accept and listen.kind in ("stream", "seqpacket")))
            nodes.link()
            self._end.enter_context(closing.pop_all())
            kept = removal.pop_all()
            if unit.remove_on_stop:
                self._end.enter_context(kept)
        return made


def resolve(listen: Listen) -> Listen:
    """Replace a host's name by its address. Only a command line may have names. This may take long.

    Raises:
        OSError: there is no such host.
        ValueError: it is no address.
    """
    if listen.kind not in TYPES:
        return listen
    with _told(listen):
        address = parse(listen.text)
        if address.family != socket.AF_UNSPEC or not address.where[0]:
            return listen
        family, where = find(address, TYPES[listen.kind])
    if family == socket.AF_INET:
        return listen._replace(text=f"{where[0]}:{where[1]}")
    interface = f"%{socket.if_indextoname(where[3])}" if where[3] else ""
    return listen._replace(text=f"[{where[0]}]:{where[1]}{interface}")


@contextmanager
def _told(listen: Listen) -> Iterator[None]:
    where = f"{listen.where}: " if listen.where else ""
    try:
        if "\0" in listen.text:
            raise ValueError(f"{listen.text!r} has a null character, which no name can have")
        yield
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error
    except OSError as error:
        why = error.strerror if error.filename == listen.text else reason(error)
        raise OSError(error.errno, f"{where}cannot listen on {listen.text}: {why}") from error
