"""The names of units, systemd.unit(5)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

_NAME = re.compile(r"(?P<prefix>[A-Za-z0-9:_.\\-]+)(?:@(?P<instance>[A-Za-z0-9:_.\\@-]*))?\.(?P<type>[a-z]+)")
_LONGEST_NAME: Final = 255


class UnitName(NamedTuple):
    """The name of a unit, ``prefix@instance.type``.

    Attributes:
        instance: None without an @; "" for a template.
        type: ``service`` or ``socket``.
    """

    prefix: str
    instance: str | None
    type: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a name apart.

        Raises:
            ValueError: no unit can have this name.
        """
        match = _NAME.fullmatch(text)
        if not match or len(text) > _LONGEST_NAME:
            raise ValueError(
                rf"expected a unit's name: letters, digits and :-_.\ with one @ at most before an instance, "
                f"and a type such as .service; {_LONGEST_NAME} characters at most"
            )
        return cls(match["prefix"], match["instance"], match["type"])

    @property
    def stem(self) -> str:
        """The name without its type."""
        return self.prefix if self.instance is None else f"{self.prefix}@{self.instance}"

    @property
    def template(self) -> Self:
        """The name of the template that an instance is made of."""
        return self._replace(instance="")

    def __str__(self) -> str:
        return f"{self.stem}.{self.type}"
