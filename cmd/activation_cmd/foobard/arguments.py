"""foobard's command line. It is a module of its own, because a unit starts foobard without arguments."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import activation
from activation_cmd.common import addresses as _addresses

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse(argv: Sequence[str]) -> tuple[list[_addresses.Address], dict[str, Any]]:
    """Read the arguments; return the addresses to listen on and the options of ``activation.serve``."""
    parser = argparse.ArgumentParser(
        prog="foobard",
        description="Echo on the sockets that were passed by socket activation, or on the one that is standard input: "
        "streams and datagrams.",
        epilog="SIGTERM and SIGINT let open connections finish; a second one ends foobard at once. Exit status: 0; 1 "
        "for a failure; 2 for wrong usage or nothing to serve.",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="ADDR",
        help=f"make a listening socket here, as without activation; may be repeated; {_addresses.FORMS}",
    )
    parser.add_argument(
        "--idle-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="exit after so long without a connection; the socket unit starts it again for the next client",
    )
    parser.add_argument(
        "--drain-timeout",
        type=_seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long open connections may take to finish after SIGTERM (%(default)g)",
    )
    parser.add_argument(
        "--max-connections",
        type=_count,
        metavar="COUNT",
        help="above that many connections, clients wait in the kernel's queue",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {activation.__version__}")
    options = vars(parser.parse_args(argv))
    try:
        addresses = [_addresses.parse(text) for text in options.pop("listen")]
    except ValueError as error:
        parser.error(str(error))
    return addresses, options


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; expected seconds, 0 or more")
    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no count; expected a number of 1 or more")
    return int(text)
