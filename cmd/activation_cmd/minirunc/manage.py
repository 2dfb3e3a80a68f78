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
from .state import State, containers, started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PRIVATE: Final = ("start_time", "keep")
_COLUMNS: Final = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def show_state(root: str, identity: str) -> int:
    """Print a container's state as the specification has it."""
    print(json.dumps(_public(_find(root, identity)), indent=2))
    return 0


def show_list(root: str, *, form: str, quiet: bool) -> int:
    """Print all containers: a table, JSON, or their IDs."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may have any bytes
    found = list(_all_public(root))
    if quiet:
        print("".join(f"{document['id']}\n" for document in found), end="")
    elif form == "json":
        print(json.dumps(found or None))
    else:
        _print_table([[str(document.get(column.lower(), "")) for column in _COLUMNS] for document in found])
    return 0


def kill(root: str, identity: str, text: str) -> int:
    """Send the container's first process a signal."""
    number = _signal_number(text)
    document = _find(root, identity).read()
    if document["status"] != "running":
        raise BundleError(f"container {identity} is {document['status']}; expected a running one to send a signal to")
    _send(document, number)
    return 0


def delete(root: str, identity: str, *, force: bool) -> int:
    """Remove what a stopped container left; with ``force`` also a running one, by SIGKILL, or none at all."""
    try:
        state = _find(root, identity)
        state.pin()
        document = state.read()
    except BundleError:
        if force:
            return 0
        raise
    if document["status"] != "stopped":
        if not force or document["status"] == "creating":
            raise BundleError(
                f"container {identity} is {document['status']}; expected a stopped one, or --force to kill it"
            )
        _send(document, signal.SIGKILL, wait=True)
    state.wait_until_released()
    state.remove_alone()
    return 0


def _find(root: str, identity: str) -> State:
    wanted = State(root, identity)
    for state in containers(root):
        if state.identity == identity:
            return state
    raise BundleError(f"there is no container {identity} in {wanted.root}")


def _all_public(root: str) -> Iterator[dict[str, Any]]:
    for state in containers(root):
        try:
            yield _public(state)
        except BundleError:
            pass  # it has just ended


def _public(state: State) -> dict[str, Any]:
    document = state.read()
    shown = {"ociVersion": "", "id": "", "pid": 0, "status": ""} | document
    try:
        shown["owner"] = pwd.getpwuid(os.stat(state.folder).st_uid).pw_name
    except (KeyError, FileNotFoundError):
        shown["owner"] = ""
    return {key: value for key, value in shown.items() if key not in _PRIVATE}


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _send(document: dict[str, Any], number: int, *, wait: bool = False) -> None:
    """Send a signal to that very process, not to one that has its number now."""
    try:
        pidfd = os.pidfd_open(document["pid"])
    except ProcessLookupError:
        return
    try:
        if document["start_time"] is not None and started(document["pid"]) == document["start_time"]:
            signal.pidfd_send_signal(pidfd, number)
            if wait:
                select.select([pidfd], [], [])
    except ProcessLookupError:
        pass  # it has just ended
    finally:
        os.close(pidfd)


def _signal_number(text: str) -> int:
    """By number or by name, with or without SIG."""
    if text.isascii() and text.isdigit() and len(text) < 4 and int(text) in {0, *signal.valid_signals()}:
        return int(text)
    try:
        return signal.Signals["SIG" + text.upper().removeprefix("SIG")]
    except KeyError:
        raise BundleError(f"the signal is {text!r}; expected a number, or a name as kill -l has it") from None
