"""minirunc: a small OCI runtime that passes on the descriptors of an activation, under their names.

It demonstrates how a container runtime does that. It is not a sandbox for hostile code.
"""

from __future__ import annotations

import gc
import os
import sys

import activation
from activation_cmd.common.stdio import open_missing, reason

from .arguments import UsageError, help_text, parse, usage
from .bundle.unapplied import GROUPS
from .bundle.values import BundleError
from .starting import Order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit status: that of the container for ``run``, 1 for a failure, 2 for wrong usage.
    """
    # A client waits for this start, and what is loaded here is no garbage: do not search it for any.
    gc.disable()
    open_missing()
    try:
        name, options, operands = parse(sys.argv[1:] if argv is None else argv)
        if name == "help":
            print(help_text(*operands))
            return 0
        if name == "version":
            from .bundle.spec import VERSION

            print(f"minirunc version {activation.__version__}\nspec: {VERSION}")
            return 0
        return _run(name, options, operands)
    except UsageError as error:
        if sys.stderr is not None:
            print(usage(error.command), file=sys.stderr)
        _report(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except (OSError, BundleError, activation.ActivationError) as error:
        _report(" ".join(reason(error).splitlines()))
        return 1


def _run(name: str, options: dict[str, str], operands: list[str]) -> int:
    if "log" in options or "log-format" in options or "debug" in options:
        from . import reports

        form = options.get("log-format", "text")
        if form not in reports.FORMATS:
            raise UsageError(f"--log-format is {form!r}; expected {' or '.join(reports.FORMATS)}", name)
        reports.use(options.get("log", ""), form, is_debug="debug" in options)
        reports.debug(" ".join([name, *operands]))
    # Each command loads its own modules only.
    if name == "spec":
        from .bundle import spec

        return spec.write(options.get("bundle", "."), rootless="rootless" in options)
    from .state import default_root

    root = options["root"] if "root" in options else default_root()
    if not root:
        raise UsageError("--root is ''; expected a folder", name)
    if name == "run":
        from .run import run

        return run(_order(root, name, options, operands))
    if name in ("create", "start"):
        from . import create

        if name == "start":
            return create.start(root, operands[0])
        return create.create(_order(root, name, options, operands))
    from . import manage

    if name == "list":
        form = options.get("format", "table")
        if form not in ("table", "json"):
            raise UsageError(f"--format is {form!r}; expected table or json", name)
        return manage.show_list(root, form=form, quiet="quiet" in options)
    if name == "state":
        return manage.show_state(root, operands[0])
    if name == "kill":
        return manage.kill(root, *operands, everybody="all" in options)
    return manage.delete(root, operands[0], force="force" in options)


def _report(message: str) -> None:
    from . import reports

    reports.error(message)


def _order(root: str, name: str, options: dict[str, str], operands: list[str]) -> Order:
    if "console-socket" in options:
        raise BundleError(
            "--console-socket asks for a pseudoterminal, and minirunc makes none; expected a container without one: "
            "process.terminal false, podman without -t"
        )
    return Order(
        root,
        operands[0],
        bundle=options.get("bundle", "."),
        preserve_fds=_count(options.get("preserve-fds", "0"), name),
        pid_file=options.get("pid-file", ""),
        keep="keep" in options,
        strict="strict" in options,
        permissive=_groups(options.get("permissive", ""), name),
        new_keyring="no-new-keyring" not in options,
    )


def _count(text: str, command: str) -> int:
    most = os.sysconf("SC_OPEN_MAX")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= most):
        raise UsageError(f"--preserve-fds is {text!r}; expected a number up to {most}", command)
    return int(text)


def _groups(text: str, command: str) -> list[str]:
    groups = [group for group in text.split(",") if group]
    for group in groups:
        if group not in GROUPS:
            raise UsageError(f"--permissive has {group!r}; expected some of {', '.join(GROUPS)}", command)
    return groups
