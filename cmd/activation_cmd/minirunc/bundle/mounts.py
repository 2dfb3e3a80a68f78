"""One of the ``mounts`` of config.json."""

from __future__ import annotations

import os

from .mount_options import ATTRIBUTES, BIND, COPY_UP, NOT_APPLIED, PROPAGATION, RDONLY, SUPER, WITHOUT_EFFECT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .unapplied import Unapplied
    from .values import Value


class Mount:
    """What to mount, where, and how.

    Attributes:
        path: where config.json says so.
        destination: an absolute path in the container.
        kind: the file system's type; "bind" for a bind.
        recursive: whether a bind takes along what is mounted below its source.
        attributes: the mount's attributes for mount_setattr(2), and those to clear first.
        attributes_below: the same for the mount and for all that is mounted below it, by options such as rro.
        super_options: options of the file system itself, such as ro and sync.
        data: the options of this type of file system, as its own manual page has them.
        copies_up: whether to copy into a tmpfs what it covers.
        propagation: MS_ flags in the order to apply them, each with whether it holds for what is below, too.
    """

    __slots__ = (
        *("attributes", "attributes_below", "data", "destination", "is_bind", "kind", "path", "propagation"),
        *("copies_up", "recursive", "source", "super_options"),
    )

    def __init__(self, value: Value, unapplied: Unapplied) -> None:
        self.path = value.path
        self.destination = os.path.normpath("/" + value["destination"].absolute_path().lstrip("/"))
        if self.destination == "/":
            raise value["destination"].wrong("a path below the root; root.path is what is there")
        for key in ("uidMappings", "gidMappings"):
            if value[key].raw:
                unapplied.add("idmap", value[key].path)
        self.is_bind = self.recursive = self.copies_up = False
        self.attributes = self.attributes_below = 0, 0
        self.super_options, self.data = list[str](), list[str]()
        self.propagation = list[tuple[int, bool]]()
        for option in value["options"].array():
            if not self._take(word := option.string()):
                if word == COPY_UP:
                    self.copies_up = True
                elif word in NOT_APPLIED:
                    unapplied.add(NOT_APPLIED[word], f"{option.path} ({word})")
                elif word not in WITHOUT_EFFECT:
                    # Several in one are taken apart, if there is no doubt where one ends.
                    self.data += [word] if set(word) & {'"', "\\"} else word.split(",")
        kind = value["type"]
        self.kind = kind.string("bind" if self.is_bind else None, "a file system's type")
        if self.kind in BIND:
            self._take(self.kind)
        if self.is_bind:
            self.kind = "bind"
            if self.data:
                raise value["options"].wrong(f"none of a file system for a bind, as {self.data[0]!r} would be")
        if self.copies_up and self.kind != "tmpfs":
            raise value["options"].wrong(f"{COPY_UP} for a tmpfs only")
        self.source = value["source"].string(None if self.is_bind else self.kind)

    @property
    def is_readonly(self) -> bool:
        return bool(self.attributes[0] & RDONLY)

    def _take(self, word: str) -> bool:
        """Note what an option says that is the same for all file systems; return whether it says such a thing."""
        if word in BIND:
            self.is_bind, self.recursive = True, self.recursive or BIND[word]
        elif word in PROPAGATION:
            self.propagation.append((PROPAGATION[word], False))
        elif word in ATTRIBUTES:
            self.attributes = _changed(self.attributes, word)
        elif word[:1] == "r" and word[1:] in PROPAGATION:
            self.propagation.append((PROPAGATION[word[1:]], True))
        elif word[:1] == "r" and word[1:] in ATTRIBUTES:
            self.attributes_below = _changed(self.attributes_below, word[1:])
        elif word not in SUPER and word not in SUPER.values():
            return False
        if word in SUPER:
            self.super_options.append(word)
        else:
            self.super_options = [each for each in self.super_options if SUPER[each] != word]
        return True


def _changed(attributes: tuple[int, int], word: str) -> tuple[int, int]:
    (before, cleared), (added, removed) = attributes, ATTRIBUTES[word]
    return before & ~removed | added, (cleared | removed) & ~added | (removed & added)
