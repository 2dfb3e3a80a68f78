"""The names of units, and what ``%n`` and the like stand for: "Specifiers" in systemd.unit(5)."""

from __future__ import annotations

import functools
import os
import pwd
import re
import socket
from typing import TYPE_CHECKING, Final, Self

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = re.compile(r"(?P<prefix>[A-Za-z0-9:_.\\-]+)(?:@(?P<instance>[A-Za-z0-9:_.\\@-]*))?\.(?P<type>[a-z]+)")
_LONGEST_NAME: Final = 255


@attrs.frozen
class UnitName:
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
            ValueError: it cannot be one.
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
        """All but the type."""
        return self.prefix if self.instance is None else f"{self.prefix}@{self.instance}"

    @property
    def template(self) -> Self:
        return attrs.evolve(self, instance="")

    def __str__(self) -> str:
        return f"{self.stem}.{self.type}"


def replace_specifiers(text: str, name: UnitName, file: str) -> str:
    """Replace all specifiers.

    Args:
        name: the unit that it is for.
        file: the unit file, not a drop-in.

    Raises:
        ValueError: one is not known, or there is nothing that it could stand for.
    """

    def replaced(match: re.Match[str]) -> str:
        letter = match[1]
        if letter not in _SPECIFIERS:
            raise ValueError(f"%{letter} is no specifier here; expected %% for a percent sign")
        try:
            return _SPECIFIERS[letter](name, file)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"there is nothing that %{letter} could stand for: {error}") from None

    return re.sub("%([A-Za-z0-9%])", replaced, text)


def unescape(text: str) -> str:
    r"""Undo systemd-escape(1): ``-`` is a slash, ``\x2d`` what its number says.

    Raises:
        ValueError: a backslash begins something else.
    """
    if re.search(r"\\(?!x[0-9a-fA-F]{2})|\\x00", text):
        raise ValueError(rf"{text!r} has a backslash; expected \x2d or the like")
    replaced = re.sub(rb"\\x(..)", lambda match: bytes([int(match[1], 16)]), text.replace("-", "/").encode())
    return replaced.decode("utf-8", "surrogateescape")


def _path(name: UnitName) -> str:
    text = unescape(name.instance or name.prefix)
    path = "/" if text == "/" else f"/{text}"
    if os.path.normpath(path) != path or ".." in path.split("/"):
        raise ValueError(f"{text!r} is no path; expected one as systemd-escape --path makes it")
    return path


def _variable(*names: str, default: str | None = None) -> str:
    for name in names:
        if os.environ.get(name, "").startswith("/"):
            return os.environ[name].rstrip("/") or "/"
    if default is None:
        raise ValueError(f"{names[0]} is not set; expected a path from /")
    return default


def _folder(system: str, variable: str, default: str | None, below: str = "") -> str:
    """One of systemd's folders: root's is the system's, everybody else's the user's own."""
    if os.geteuid() == 0:
        return system
    return _variable(variable, default=default and f"{_home()}/{default}") + below


def _home() -> str:
    return _variable("HOME", default=_user().pw_dir)


def _user() -> pwd.struct_passwd:
    return pwd.getpwuid(os.geteuid())


def _group() -> str:
    import grp

    return grp.getgrgid(os.getegid()).gr_name


def _first_line(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.readline().strip()


@functools.cache
def _os_release() -> dict[str, str]:
    import platform

    return platform.freedesktop_os_release()


def _architecture() -> str:
    machine = os.uname().machine
    names = {"x86_64": "x86-64", "aarch64": "arm64", "ppc64le": "ppc64-le", "aarch64_be": "arm64-be"}
    return "x86" if re.fullmatch("i[3-6]86", machine) else names.get(machine, re.sub("^armv.*", "arm", machine))


_SPECIFIERS: Final[dict[str, Callable[[UnitName, str], str]]] = {
    "%": lambda _, __: "%",
    # the unit
    "n": lambda name, _: str(name),
    "N": lambda name, _: name.stem,
    "p": lambda name, _: name.prefix,
    "P": lambda name, _: unescape(name.prefix),
    "i": lambda name, _: name.instance or "",
    "I": lambda name, _: unescape(name.instance or ""),
    "j": lambda name, _: name.prefix.rpartition("-")[2],
    "J": lambda name, _: unescape(name.prefix.rpartition("-")[2]),
    "f": lambda name, _: _path(name),
    "y": lambda _, file: os.path.realpath(file),
    "Y": lambda _, file: os.path.dirname(os.path.realpath(file)),
    # folders
    "t": lambda _, __: _folder("/run", "XDG_RUNTIME_DIR", None),
    "S": lambda _, __: _folder("/var/lib", "XDG_STATE_HOME", ".local/state"),
    "C": lambda _, __: _folder("/var/cache", "XDG_CACHE_HOME", ".cache"),
    "L": lambda _, __: _folder("/var/log", "XDG_STATE_HOME", ".local/state", "/log"),
    "E": lambda _, __: _folder("/etc", "XDG_CONFIG_HOME", ".config"),
    "D": lambda _, __: _folder("/usr/share", "XDG_DATA_HOME", ".local/share"),
    "T": lambda _, __: _variable("TMPDIR", "TEMP", "TMP", default="/tmp"),  # noqa: S108  # systemd's default
    "V": lambda _, __: _variable("TMPDIR", "TEMP", "TMP", default="/var/tmp"),  # noqa: S108
    # who runs this
    "u": lambda _, __: _user().pw_name,
    "U": lambda _, __: str(os.geteuid()),
    "g": lambda _, __: _group(),
    "G": lambda _, __: str(os.getegid()),
    "h": lambda _, __: _home(),
    "s": lambda _, __: _user().pw_shell,
    # the machine
    "H": lambda _, __: socket.gethostname(),
    "l": lambda _, __: socket.gethostname().partition(".")[0],
    "m": lambda _, __: _first_line("/etc/machine-id"),
    "b": lambda _, __: _first_line("/proc/sys/kernel/random/boot_id").replace("-", ""),
    "v": lambda _, __: os.uname().release,
    "a": lambda _, __: _architecture(),
    "o": lambda _, __: _os_release().get("ID", ""),
    "w": lambda _, __: _os_release().get("VERSION_ID", ""),
    "B": lambda _, __: _os_release().get("BUILD_ID", ""),
    "W": lambda _, __: _os_release().get("VARIANT_ID", ""),
    "M": lambda _, __: _os_release().get("IMAGE_ID", ""),
    "A": lambda _, __: _os_release().get("IMAGE_VERSION", ""),
}
