"""RuntimeDirectory=, StateDirectory= and the others of their kind, systemd.exec(5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .specifiers import folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import ServiceUnit
    from .specifiers import Manager

# The exit status of a service whose folder cannot be made.
_STATUSES: Final = {"runtime": 233, "state": 238, "cache": 239, "logs": 240, "configuration": 241}


class Directory(NamedTuple):
    """A folder that a service is to find.

    Attributes:
        path: the folder.
        mode: its permissions.
        owned: it belongs to the service's user, and gets the mode also when it is there already.
        links: symlinks that point to it.
        status: what the service exits with if it cannot be made.
    """

    path: str
    mode: int
    owned: bool
    links: Sequence[str]
    status: int


def directories(unit: ServiceUnit, manager: Manager) -> list[Directory]:
    """All folders of a service.

    Raises:
        ValueError: XDG_RUNTIME_DIR is not set, which a user's runtime folders lie in.
    """
    found = []
    for kind, status in _STATUSES.items():
        for text in getattr(unit, f"{kind}_directory"):
            path, *links = (f"{folder(kind, manager)}/{each}" for each in text.split(":"))
            mode = getattr(unit, f"{kind}_directory_mode")
            found.append(Directory(path, mode, kind != "configuration", links, status))
    return found


def variables(unit: ServiceUnit, manager: Manager) -> dict[str, str]:
    """RUNTIME_DIRECTORY and its kin, each of the paths with colons between them."""
    found = {}
    for kind in _STATUSES:
        if texts := getattr(unit, f"{kind}_directory"):
            paths = (f"{folder(kind, manager)}/{text.partition(':')[0]}" for text in texts)
            found[f"{kind.upper()}_DIRECTORY"] = ":".join(dict.fromkeys(paths))
    return found


def runtime_paths(unit: ServiceUnit, manager: Manager) -> list[str]:
    """The runtime folders and the symlinks to them, which go when the service ends; the symlinks come first."""
    base = folder("runtime", manager) if unit.runtime_directory else ""
    texts = [text.split(":") for text in unit.runtime_directory]
    return [f"{base}/{link}" for _, *links in texts for link in links] + [f"{base}/{path}" for path, *_ in texts]
