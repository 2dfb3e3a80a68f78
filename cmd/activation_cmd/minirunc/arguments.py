"""The command line. Not by argparse: a client waits for the container, and that alone takes 6 ms."""

from __future__ import annotations

from .bundle.unapplied import GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final


class UsageError(Exception):
    """What cannot be understood, and the command it was said to."""

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class Command:
    """What a command takes.

    Attributes:
        operands: the names of what it needs and of what, in brackets, it may be given.
        options: how each is written, the name of its value if it takes one, and what it does.
    """

    __slots__ = ("operands", "options", "purpose")

    def __init__(self, purpose: str, operands: str = "", *options: tuple[str, str, str]) -> None:
        self.purpose, self.operands, self.options = purpose, operands.split(), options


_STRICT = ("--strict", "", "refuse cgroup limits, too, which are not applied either")
_PERMISSIVE = ("--permissive", "WHAT,...", f"run without these if asked for them: {', '.join(GROUPS)}")
_BUNDLE = ("-b --bundle", "PATH", "the bundle's folder; by default this one")
GLOBAL = (
    ("--root", "PATH", "the folder of the containers' state; by default minirunc in /run or XDG_RUNTIME_DIR"),
    _STRICT,
    _PERMISSIVE,
)
HELP = ("-h --help", "", "show this")
COMMANDS: Final = {
    "run": Command(
        "create a container from a bundle, and run it to its end",
        "ID",
        _BUNDLE,
        ("--preserve-fds", "N", "pass N more descriptors, after standard streams and $LISTEN_FDS"),
        ("--pid-file", "PATH", "the file to write the number of the container's process to"),
        ("--keep", "", "keep the state when it has ended, for minirunc delete"),
        ("--no-new-keyring", "", "leave the container the session keyring of minirunc's caller"),
        _STRICT,
        _PERMISSIVE,
    ),
    "list": Command(
        "list the containers",
        "",
        ("-f --format", "FORMAT", "table, by default, or json"),
        ("-q --quiet", "", "their IDs only"),
    ),
    "state": Command("show the state of a container as JSON", "ID"),
    "kill": Command("send a signal to the container's first process; by default SIGTERM", "ID [SIGNAL]"),
    "delete": Command(
        "remove what a stopped container left",
        "ID",
        ("-f --force", "", "a running one too, by SIGKILL; and it need not be there"),
    ),
    "spec": Command(
        "write a config.json to begin with", "", _BUNDLE, ("--rootless", "", "for a user namespace made without root")
    ),
}


def parse(argv: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    """Return the command, its options by their long names, "" for a switch, and its operands; "help" for a question.

    Raises:
        UsageError: it is none.
    """
    options, rest = _options(argv, "", GLOBAL)
    if "help" in options:
        return "help", {}, []
    if not rest:
        raise UsageError(f"there is no command; expected one of {', '.join(COMMANDS)}")
    name, *rest = rest
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
    """The options that ``argv`` begins with, and the rest."""
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
        # What is said of --permissive several times is said of all.
        before = options.get(longs[name]) if name == _PERMISSIVE[0] else None
        options[longs[name]] = f"{before},{value}" if before else value
    return options, rest


def usage(command: str = "") -> str:
    """One line."""
    if not command:
        return "usage: minirunc [--root PATH] COMMAND [OPTION ...] [OPERAND ...]"
    return " ".join(["usage: minirunc", command, "[OPTION ...]", *COMMANDS[command].operands])


def help_text(command: str = "") -> str:
    """What --help prints."""
    if command:
        head, options, lines = COMMANDS[command].purpose, COMMANDS[command].options, []
    else:
        head, options = "Run containers from OCI bundles; what was passed to minirunc is passed on to them.", GLOBAL
        lines = ["", "commands:", *(f"  {name:<22}{each.purpose}" for name, each in COMMANDS.items())]
    lines += ["", "options:"]
    lines += [f"  {', '.join(names.split()) + ' ' + value:<22}{text}" for names, value, text in (*options, HELP)]
    return "\n".join([usage(command), "", head, *lines])
