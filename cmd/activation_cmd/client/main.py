"""client: connect to an echo daemon, send it standard input and print what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activation_cmd.common.imports import put_off
from activation_cmd.common.stdio import open_missing, reason, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from activation_cmd.common.addresses import Address


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 for a server that is absent or goes away, 2 for its usage."""
    status = 0
    try:
        # Slow imports happen in here, where an interrupt does not become a traceback.
        put_off()
        address = _address(argv)
        open_missing()
        import trio

        from .session import run

        trio.run(run, address)
    except* KeyboardInterrupt:
        status = 130
    except* OSError as group:
        say("client", reason(group))
        status = 1
    return status


def _address(argv: Sequence[str] | None) -> Address:
    import argparse

    import activation
    from activation_cmd.common.addresses import FORMS, parse

    parser = argparse.ArgumentParser(
        prog="client",
        description="Connect to an echo daemon, send it the lines of standard input and print what comes back.",
        epilog="Exit status: 0 at the end of input; 1 if the server is absent or goes away; 2 for wrong usage.",
    )
    parser.add_argument("address", nargs="?", default="/run/foobar.sk", metavar="ADDR", help=f"{FORMS} (%(default)s)")
    parser.add_argument("--version", action="version", version=f"%(prog)s {activation.__version__}")
    arguments = parser.parse_args(argv)
    try:
        return parse(arguments.address)
    except ValueError as error:
        parser.error(str(error))
