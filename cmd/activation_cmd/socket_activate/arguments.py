"""The options of socket-activate, and which of them exclude each other."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import activation
from activation_cmd.common.addresses import FORMS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .units.model import Kind

DESCRIPTION = """\
Make listening sockets, and start a program with them when the first client comes; start it again for the next client
when it has ended. The program is COMMAND, with the sockets of -l, or the services of systemd's socket units."""

EPILOG = """\
Signals: SIGTERM, SIGINT and SIGHUP end the services, by KillSignal= or SIGTERM, and remove the paths that were made; a
second signal kills them. SIGHUP reloads instead if a service says how. Signals that socket-activate was started to
ignore, as by nohup, it ignores; its services do not.

Exit status: 0 when a signal ended it; 1 if an address, a unit or a service fails; 2 for wrong usage; 126 if COMMAND may
not run, 127 if it does not exist. A unit file that fails does not end the others.

Unit files: for root, they are those of the system, for everybody else those of the user, and with --user also for root.
So %t is /run or XDG_RUNTIME_DIR, %h is root's home or HOME; the same holds for other specifiers and for
RuntimeDirectory=. The log, for StandardOutput=journal, is the standard output and error of socket-activate. A
FILE.service has the sockets of its Sockets=, and starts whenever another service that they are passed to starts.

Started with NOTIFY_SOCKET, it sends READY=1 when all sockets listen, and STOPPING=1 when it ends.

Differences from systemd-socket-activate: the environment is passed on (--clean-env: only TERM, PATH, USER and HOME),
with INVOCATION_ID, SYSTEMD_EXEC_PID, NOTIFY_SOCKET and FDSTORE. COMMAND is a child, and is started again for the next
client (--once: this process becomes COMMAND). A COMMAND that PATH does not have is looked for beside socket-activate.
Standard input is /dev/null. Addresses may have host names. Paths are removed at the end, and one that is in use is
refused. What --accept passes is named connection, and comes with REMOTE_ADDR and REMOTE_PORT. --setenv, --fdname,
--inetd, --accept, --datagram and --seqpacket are the same there."""


def parse(argv: Sequence[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace, list[str]]:
    """Read the command line; return the parser, for further errors, the options, and the unit files.

    Raises:
        SystemExit: it is wrong, which has been said; or it asks for help or the version.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    files = [] if arguments.listen else _files(parser, arguments)
    try:
        _check_usage(arguments, files)
    except ValueError as error:
        parser.error(str(error))
    return parser, arguments, files


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="socket-activate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,  # the parser's own would look up the width of the terminal at once, for which it imports a lot
        usage="%(prog)s [OPTION ...] -l ADDR [-l ADDR ...] [--] COMMAND [ARGUMENT ...]\n"
        "       %(prog)s [OPTION ...] FILE.socket ... [FILE.service ...]",
    )
    add = parser.add_argument_group("addresses").add_argument
    add("-l", "--listen", action="append", metavar="ADDR", type=_listen(None), help=f"where to listen: {FORMS}")
    others: list[tuple[str, Kind, str]] = [
        ("datagram", "datagram", "the same for a socket of datagrams, beside others"),
        ("sequential-packet", "seqpacket", "the same for a socket of sequential packets, beside others"),
        ("fifo", "fifo", "a path for a FIFO"),
    ]
    for option, kind, explanation in others:
        add(f"--listen-{option}", dest="listen", action="append", metavar="ADDR", type=_listen(kind), help=explanation)
    add("-d", "--datagram", action="store_true", help="--listen makes sockets for datagrams")
    add("--seqpacket", action="store_true", help="--listen makes sockets for sequential packets")
    add("-a", "--accept", action="store_true", help="accept, and start a COMMAND for each connection")
    add("--fdname", metavar="NAME[:NAME...]", help="the sockets' names, in order, or one for all")
    add("--inetd", action="store_true", help="pass the one socket as standard input and output")
    add("--once", action="store_true", help="this process becomes COMMAND, and nothing starts it again")
    add("rest", nargs=argparse.REMAINDER, metavar="COMMAND", help=argparse.SUPPRESS)
    add = parser.add_argument_group("addresses and unit files").add_argument
    add("--now", action="store_true", help="start at once, not when the first client comes")
    add(
        "-E", "--setenv", action="append", default=[], metavar="NAME[=VALUE]", help="set a variable for what is started"
    )
    add("--clean-env", action="store_true", help="pass on no more of the environment than systemd does")
    add(
        "--watch",
        action="append",
        default=[],
        metavar="PATH",
        help="restart what runs when PATH, or a file in it, changes",
    )
    add("--check", action="store_true", help="only say what would be done, and what is wrong")
    add("--user", action="store_true", help="read unit files as a user's manager does, also for root")
    add("-h", "--help", action="help", help="show this and exit")
    add("--version", action="version", version=f"%(prog)s {activation.__version__}")
    return parser


def _listen(kind: Kind | None) -> Callable[[str], tuple[Kind | None, str]]:
    return lambda text: (kind, text)


def _files(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[str]:
    """The unit files. Options may stand between them and after them."""
    files: list[str] = []
    while arguments.rest:
        first, *others = arguments.rest
        if first == "--":
            return [*files, *others]
        files.append(first)
        arguments.rest = []
        # What follows is parsed from the next option on, and not as often as there are files.
        while others and not others[0].startswith("-"):
            files.append(others.pop(0))
        parser.parse_args(others, arguments)
    return files


def _check_usage(arguments: argparse.Namespace, files: Sequence[str]) -> None:
    """Refuse options that exclude each other.

    Raises:
        ValueError: two of them do, or something is missing.
    """
    if not files and not arguments.listen:
        raise ValueError("expected -l ADDR and a COMMAND, or unit files")
    if files and arguments.listen:
        raise ValueError("-l goes with a COMMAND, not with unit files")
    for option in ("datagram", "seqpacket", "accept", "fdname", "inetd", "once"):
        if files and getattr(arguments, option):
            raise ValueError(f"--{option} goes with -l; unit files say that themselves")
    if arguments.datagram and arguments.seqpacket:
        raise ValueError("--datagram and --seqpacket are two kinds; expected one, or --listen-datagram=ADDR for some")
    kinds = {kind or ("datagram" if arguments.datagram else "stream") for kind, _ in arguments.listen or []}
    if arguments.accept and kinds & {"datagram", "fifo"}:
        raise ValueError("datagrams and FIFOs have no connections to --accept")
    if arguments.once and arguments.watch:
        raise ValueError("with --once there is nobody to --watch; expected one of them")
    if arguments.accept and arguments.now:
        raise ValueError("--accept starts a COMMAND for each connection, and --now for none; expected one of them")
    if arguments.user and not files:
        raise ValueError("--user goes with unit files; a COMMAND has none")
    if arguments.accept and arguments.once:
        raise ValueError("--accept starts a COMMAND for each connection, --once only one; expected one of them")
    if arguments.inetd and len(arguments.listen or []) != 1:
        raise ValueError(f"--inetd passes one socket, not {len(arguments.listen)}")
    if arguments.watch and not _is_installed("watchfiles"):
        raise ValueError("--watch needs watchfiles; install it with: pip install 'trio-activation[watch]'")
    for path in arguments.watch:
        if not os.path.exists(path):
            raise ValueError(f"--watch {path}: there is no such file")


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
