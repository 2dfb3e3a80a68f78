"""What ``%n`` and the like stand for: "Specifiers" in systemd.unit(5)."""

from __future__ import annotations

import functools
import os
import pwd
import re
import socket
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from .names import UnitName

Manager = Literal["system", "user"]


def own_manager() -> Manager:
    """Which manager's place this process takes by default: the system's for root, a user's for everybody else."""
    return "system" if os.geteuid() == 0 else "user"


class Unit(NamedTuple):
    """What the specifiers of a unit depend on.

    Attributes:
        name: the unit's.
        file: its unit file, also where a drop-in has the specifier.
        manager: whose units these are, which decides where the folders are.
    """

    name: UnitName
    file: str
    manager: Manager


def replace_specifiers(text: str, unit: Unit) -> str:
    """Replace all specifiers.

    Raises:
        ValueError: one is not known or not done here, or there is nothing that it could stand for.
    """

    def replaced(match: re.Match[str]) -> str:
        letter = match[1]
        if letter in _NOT_DONE:
            raise ValueError(f"%{letter} is not done here: it is {_NOT_DONE[letter]}")
        if letter not in _SPECIFIERS:
            raise ValueError(f"%{letter} is no specifier; expected %% for a percent sign")
        try:
            return _SPECIFIERS[letter](unit)
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"there is nothing that %{letter} could stand for: {error}") from None

    return re.sub("%([A-Za-z0-9%])", replaced, text)


def unescape(text: str) -> str:
    r"""Undo systemd-escape(1): ``-`` stands for a slash, ``\x2d`` for the character of that number.

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
    if path.startswith("//") or os.path.normpath(path) != path or ".." in path.split("/"):
        raise ValueError(f"{text!r} is no path; expected one as systemd-escape --path makes it")
    return path


def _variable(*names: str, default: str | None = None) -> str:
    for name in names:
        if os.environ.get(name, "").startswith("/"):
            return os.environ[name].rstrip("/") or "/"
    if default is None:
        raise ValueError(f"{names[0]} is not set; expected a path from /")
    return default


# The folders of a system, and where a user has them: the variable, its default below the home, and what follows it.
_FOLDERS: Final = {
    "runtime": ("/run", "XDG_RUNTIME_DIR", None, ""),
    "state": ("/var/lib", "XDG_STATE_HOME", ".local/state", ""),
    "cache": ("/var/cache", "XDG_CACHE_HOME", ".cache", ""),
    "logs": ("/var/log", "XDG_STATE_HOME", ".local/state", "/log"),
    "configuration": ("/etc", "XDG_CONFIG_HOME", ".config", ""),
    "data": ("/usr/share", "XDG_DATA_HOME", ".local/share", ""),
}


def folder(kind: str, manager: Manager) -> str:
    """The folder in which services have theirs, of one of the kinds in ``_FOLDERS``.

    Raises:
        ValueError: a user's runtime folder is asked for, and XDG_RUNTIME_DIR is not set.
    """
    system, variable, default, below = _FOLDERS[kind]
    if manager == "system":
        return system
    return _variable(variable, default=default and f"{_home()}/{default}") + below


def _home(manager: Manager = "user") -> str:
    # The manager of the system has no HOME of its own, whatever that of the terminal is.
    return _user().pw_dir if manager == "system" else _variable("HOME", default=_user().pw_dir)


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ValueError(f"there is no user {os.geteuid()}; expected one of /etc/passwd") from None


def _group() -> str:
    import grp

    return grp.getgrgid(os.getegid()).gr_name


def _first_line(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.readline().strip()


def _pretty_hostname() -> str:
    try:
        with open("/etc/machine-info", encoding="utf-8", errors="surrogateescape") as file:
            found = re.findall(r"^PRETTY_HOSTNAME=(.*)$", file.read(), re.MULTILINE)
    except OSError:
        found = []
    return (found[-1].strip().strip("\"'") if found else "") or socket.gethostname()


@functools.cache
def _os_release() -> dict[str, str]:
    import platform

    return platform.freedesktop_os_release()


def _architecture() -> str:
    machine = os.uname().machine
    names = {"x86_64": "x86-64", "aarch64": "arm64", "ppc64le": "ppc64-le", "aarch64_be": "arm64-be"}
    return "x86" if re.fullmatch("i[3-6]86", machine) else names.get(machine, re.sub("^armv.*", "arm", machine))


_NOT_DONE: Final = {
    "d": "the folder of LoadCredential=",
    "c": "a control group",
    "r": "a control group",
    "R": "a control group",
}
_SPECIFIERS: Final[dict[str, Callable[[Unit], str]]] = {
    "%": lambda _: "%",
    # the unit
    "n": lambda unit: str(unit.name),
    "N": lambda unit: unit.name.stem,
    "p": lambda unit: unit.name.prefix,
    "P": lambda unit: unescape(unit.name.prefix),
    "i": lambda unit: unit.name.instance or "",
    "I": lambda unit: unescape(unit.name.instance or ""),
    "j": lambda unit: unit.name.prefix.rpartition("-")[2],
    "J": lambda unit: unescape(unit.name.prefix.rpartition("-")[2]),
    "f": lambda unit: _path(unit.name),
    "y": lambda unit: os.path.realpath(unit.file),
    "Y": lambda unit: os.path.dirname(os.path.realpath(unit.file)),
    # folders
    "t": lambda unit: folder("runtime", unit.manager),
    "S": lambda unit: folder("state", unit.manager),
    "C": lambda unit: folder("cache", unit.manager),
    "L": lambda unit: folder("logs", unit.manager),
    "E": lambda unit: folder("configuration", unit.manager),
    "D": lambda unit: folder("data", unit.manager),
    "T": lambda _: _variable("TMPDIR", "TEMP", "TMP", default="/tmp"),  # noqa: S108  # systemd's default
    "V": lambda _: _variable("TMPDIR", "TEMP", "TMP", default="/var/tmp"),  # noqa: S108
    # who runs this
    "u": lambda _: _user().pw_name,
    "U": lambda _: str(os.geteuid()),
    "g": lambda _: _group(),
    "G": lambda _: str(os.getegid()),
    "h": lambda unit: _home(unit.manager),
    "s": lambda _: _user().pw_shell,
    # the machine
    "H": lambda _: socket.gethostname(),
    "q": lambda _: _pretty_hostname(),
    "l": lambda _: socket.gethostname().partition(".")[0],
    "m": lambda _: _first_line("/etc/machine-id"),
    "b": lambda _: _first_line("/proc/sys/kernel/random/boot_id").replace("-", ""),
    "v": lambda _: os.uname().release,
    "a": lambda _: _architecture(),
    "o": lambda _: _os_release().get("ID", ""),
    "w": lambda _: _os_release().get("VERSION_ID", ""),
    "B": lambda _: _os_release().get("BUILD_ID", ""),
    "W": lambda _: _os_release().get("VARIANT_ID", ""),
    "M": lambda _: _os_release().get("IMAGE_ID", ""),
    "A": lambda _: _os_release().get("IMAGE_VERSION", ""),
}
