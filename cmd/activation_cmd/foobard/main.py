"""foobard: an echo daemon behind foobar.socket."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import activation
from activation_cmd.common.imports import put_off
from activation_cmd.common.stdio import open_missing, reason, say

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 1 for a failure, 2 for wrong usage or nothing to serve."""
    argv = sys.argv[1:] if argv is None else argv
    addresses: list[Any] = []
    options: dict[str, Any] = {}
    status = 0
    try:
        # A client is waiting for this start. Nothing that is loaded is garbage, so nothing is looked through for it
        # until run() has begun.
        gc.disable()
        put_off()
        # Started by its unit it mostly has no arguments, and reading none would take 2 ms.
        if argv:
            from .arguments import parse

            addresses, options = parse(argv)
        open_missing()
        import trio

        from .echo import run

        status = trio.run(run, addresses, options)
    except* KeyboardInterrupt:
        status = 130
    except* (OSError, activation.ActivationError) as group:
        say("foobard", reason(group))
        status = 1
    return status
