"""The command line. It is parsed without argparse: loading that takes 6 ms, and a client waits for the container."""

from __future__ import annotations

from .bundle.unapplied import GROUPS
from .bundle.values import BundleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final


class UsageError(Exception):
    """The command line is wrong.

    Attributes:
        command: the command whose usage to show, "" for minirunc's own.
    """

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class Command:
    """One of minirunc's commands.

    Attributes:
        operands: their names; those in brackets may be left out.
        options: for each option its spellings, the name of its value ("" for a switch), and what it does.
    """

    __slots__ = ("operands", "options", "purpose")

    def __init__(self, purpose: str, operands: str = "", *options: tuple[str, str, str]) -> None:
        self.purpose, self.operands, self.options = purpose, operands.split(), options


_STRICT = ("--strict", "", "make cgroup limits an error, too: they are not applied")
_PERMISSIVE = ("--permissive", "WHAT,...", f"do without some of these: {', '.join(GROUPS)}")
_START = (
    ("-b --bundle", "PATH", "the bundle's folder; by default the current one"),
    ("--preserve-fds", "N", "pass N more descriptors, after those of $LISTEN_FDS"),
    ("--pid-file", "PATH", "the file to write the number of the container's process to"),
    ("--no-new-keyring", "", "let the container share the caller's session keyring"),
    _STRICT,
    _PERMISSIVE,
)
GLOBAL = (
    ("--root", "PATH", "the folder of the containers' state; by default minirunc in /run or XDG_RUNTIME_DIR"),
    ("--log", "PATH", "log remarks to this file instead of standard error, and errors to both"),
    ("--log-format", "FORMAT", "of that file: text, by default, or json"),
    ("--debug", "", "also log what minirunc does"),
    ("--systemd-cgroup", "", "has no effect, because minirunc makes no cgroups"),
    _STRICT,
    _PERMISSIVE,
    ("--version", "", "show the version"),
)
HELP = ("-h --help", "", "show this")
COMMANDS: Final = {
    "run": Command(
        "create a container from a bundle and run it to its end",
        "ID",
        *_START,
        ("--keep", "", "keep the state when the container ends, until minirunc delete"),
    ),
    "create": Command(
        "create a container from a bundle, for minirunc start",
        "ID",
        *_START,
        ("--console-socket", "PATH", "is refused, because minirunc makes no pseudoterminals"),
    ),
    "start": Command("start the process of a created container", "ID"),
    "list": Command(
        "list the containers",
        "",
        ("-f --format", "FORMAT", "table, by default, or json"),
        ("-q --quiet", "", "print only their IDs"),
    ),
    "state": Command("show the state of a container as JSON", "ID"),
    "kill": Command(
        "send a signal to the container's first process; by default SIGTERM",
        "ID [SIGNAL]",
        ("-a --all", "", "to all its processes"),
    ),
    "delete": Command(
        "remove what a stopped container left",
        "ID",
        ("-f --force", "", "kill it if it is running; no error if it does not exist"),
    ),
    "spec": Command(
        "write a config.json to start from", "", _START[0], ("--rootless", "", "for a user namespace made without root")
    ),
}

NOT_DONE: Final = {
    "exec": "run the command in a container of its own, or enter this one's namespaces by nsenter(1)",
    **dict.fromkeys(("checkpoint", "restore"), "it has no connection to CRIU"),
    **dict.fromkeys(("pause", "resume", "update", "events", "ps"), "it makes no cgroup for the container"),
}
"""Commands that runc has and minirunc does not, with the reason or another way."""


def parse(argv: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the command, its options by their long names, "" for a switch, and its operands.

    The command is "help" or "version" where that is asked for.

    Raises:
        UsageError: it is none.
        BundleError: it is one of NOT_DONE.
    """
    options, rest = _options(argv, "", GLOBAL)
    for question in ("help", "version"):
        if question in options:
            return question, {}, []
    if not rest:
        raise UsageError(f"there is no command; expected one of {', '.join(COMMANDS)}")
    name, *rest = rest
    if name in NOT_DONE:
        raise BundleError(f"minirunc does not do {name}: {NOT_DONE[name]}")
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name!r}; expected one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    operands: list[str] = []
    while rest:
        found, rest = _options(rest, name, command.options)
        options |= found
        operands += rest[:1]
        rest = rest[1:]
    if "help" in options:
        return "help", {}, [name]
    needed = [operand for operand in command.operands if not operand.startswith("[")]
    if not len(needed) <= len(operands) <= len(command.operands):
        expected = " ".join(command.operands) or "none"
        raise UsageError(f"{name} was given {' '.join(operands) or 'no operand'}; expected {expected}", name)
    return name, options, operands


def _options(
    argv: Sequence[str], command: str, known: Sequence[tuple[str, str, str]]
) -> tuple[dict[str, str], list[str]]:
    """Return the options that ``argv`` begins with, and the rest."""
    options: dict[str, str] = {}
    rest = list(argv)
    values = {name: value for names, value, _ in (*known, HELP) for name in names.split()}
    longs = {name: names.split()[-1][2:] for names, _, _ in (*known, HELP) for name in names.split()}
    while rest and rest[0].startswith("-") and rest[0] != "-":
        argument = rest.pop(0)
        if argument == "--":
            break
        name, equals, value = argument.partition("=")
        if name not in longs:
            raise UsageError(f"there is no option {name}", command)
        if not values[name] and equals:
            raise UsageError(f"{name} takes no value; found {value!r}", command)
        if values[name] and not equals:
            if not rest:
                raise UsageError(f"{name} lacks its value; expected {values[name]} after it", command)
            value = rest.pop(0)
        # --permissive may be given several times, and means all of it.
        before = options.get(longs[name]) if name == _PERMISSIVE[0] else None
        options[longs[name]] = f"{before},{value}" if before else value
    return options, rest


def usage(command: str = "") -> str:
    """Return the usage, one line."""
    if not command:
        return "usage: minirunc [--root PATH] COMMAND [OPTION ...] [OPERAND ...]"
    return " ".join(["usage: minirunc", command, "[OPTION ...]", *COMMANDS[command].operands])


def help_text(command: str = "") -> str:
    """Return what --help prints."""
    if command:
        head, options, lines = COMMANDS[command].purpose, COMMANDS[command].options, []
    else:
        head, options = (
            "Run containers from OCI bundles, and pass the descriptors of a socket activation on to them.",
            GLOBAL,
        )
        lines = ["", "commands:", *(f"  {name:<22}{each.purpose}" for name, each in COMMANDS.items())]
    lines += ["", "options:"]
    lines += [f"  {', '.join(names.split()) + ' ' + value:<22}{text}" for names, value, text in (*options, HELP)]
    return "\n".join([usage(command), "", head, *lines])
