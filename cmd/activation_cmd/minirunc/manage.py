"""minirunc list, state, kill and delete."""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, Final

from .bundle.values import BundleError
from .processes import members, started
from .state import State, containers, find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PUBLIC: Final = ("ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner")
"""The members of what is shown, in runc's order; without annotations there is no such member."""
_COLUMNS: Final = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def show_state(root: str, identity: str) -> int:
    """Print a container's state as runc does."""
    print(json.dumps(_public(find(root, identity)) | {"owner": ""}, indent=2))
    return 0


def show_list(root: str, *, form: str, quiet: bool) -> int:
    """Print all containers: a table, JSON, or their IDs."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have any bytes
    found = list(_all_public(root))
    if quiet:
        print("".join(f"{document['id']}\n" for document in found), end="")
    elif form == "json":
        print(json.dumps(found or None, separators=(",", ":")))
    else:
        _print_table([[str(document.get(column.lower(), "")) for column in _COLUMNS] for document in found])
    return 0


def kill(root: str, identity: str, text: str = "TERM", *, everybody: bool) -> int:
    """Send the container's first process a signal, or all of its processes.

    Raises:
        BundleError: there is no such container or signal, or the container is not running. A stopped one may still be
            signalled with ``everybody``, for what it left.
    """
    number = _signal_number(text)
    document = find(root, identity).read()
    if everybody and document["status"] != "creating":
        _send_everybody(document, number)
    elif document["status"] in ("created", "running"):
        _send(document["pid"], document["start_time"], number)
    else:
        raise BundleError(f"container {identity} is {document['status']}; expected a running one to send a signal to")
    return 0


def delete(root: str, identity: str, *, force: bool) -> int:
    """Remove what a stopped container left; with ``force`` also a running one, by SIGKILL, or none at all."""
    try:
        state = find(root, identity)
        state.pin()
        document = state.read()
    except BundleError:
        if force:
            return 0
        raise
    status = document["status"]
    if status == "creating" or (status == "running" and not force):
        raise BundleError(f"container {identity} is {status}; expected a stopped one, or --force to kill it")
    if status != "stopped":
        _send(document["pid"], document["start_time"], signal.SIGKILL, wait=True)
    if document.get("has_gate"):
        _send_everybody(document, signal.SIGKILL)  # nobody else ends what its process has left
    state.wait_until_released()
    state.remove_alone()
    return 0


def _all_public(root: str) -> Iterator[dict[str, Any]]:
    for state in containers(root):
        try:
            yield _public(state)
        except BundleError:
            pass  # it has just ended


def _public(state: State) -> dict[str, Any]:
    document = state.read()
    try:
        document["owner"] = pwd.getpwuid(os.stat(state.folder).st_uid).pw_name
    except (KeyError, FileNotFoundError):
        document["owner"] = ""
    shown = {key: document.get(key, "") for key in _PUBLIC}
    return {key: value for key, value in shown.items() if value or key != "annotations"}


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _send(pid: int, start_time: str | None, number: int, *, wait: bool = False) -> None:
    """Send a signal to that very process, not to one that has its number now."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if start_time is not None and started(pid) == start_time:
            signal.pidfd_send_signal(pidfd, number)
            if wait:
                select.select([pidfd], [], [])
    except ProcessLookupError:
        pass  # it has just ended
    finally:
        os.close(pidfd)


def _send_everybody(document: dict[str, Any], number: int) -> None:
    """Send all processes of a container a signal; when it is SIGKILL, until there is none left."""
    while found := [(pid, started(pid)) for pid in members(document)]:
        for pid, start_time in found:
            _send(pid, start_time, number, wait=number == signal.SIGKILL)
        if number != signal.SIGKILL:
            break


def _signal_number(text: str) -> int:
    """By number or by name, with or without SIG."""
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) in {0, *signal.valid_signals()}:
        return int(text)
    try:
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except KeyError:
        raise BundleError(f"the signal is {text!r}; expected a number, or a name as kill -l has it") from None
