"""Why files() returned nothing, in words: loaded only where somebody has to be told."""

from __future__ import annotations

import os
import stat

from ._environment import ActivationError, environ, number

HOW_TO_START = "start the program by its socket unit, or by socket-activate or systemd-socket-activate"


def nothing_passed(pid: int, pidfd_id: int | None) -> str:
    """Say why nothing was passed to the process ``pid``, as the variables in the environment have it.

    Args:
        pid: the process that files() looked for.
        pidfd_id: the inode number of its pidfd, None where that cannot be known.
    """
    count = environ().get("LISTEN_FDS")
    try:
        meant, meant_id = number("LISTEN_PID"), number("LISTEN_PIDFDID")
    except ActivationError as error:
        return str(error)
    this = f"this process is {pid}" if pid == os.getpid() else f"files() was asked for those of process {pid}"
    if count is None:
        return _no_variables()
    count = count[:60]
    if meant is None:
        return (
            f"LISTEN_FDS is {count}, but LISTEN_PID is not set, so nobody knows whom the descriptors are meant for; "
            "whatever started this process must set it"
        )
    if meant != pid:
        return f"LISTEN_FDS is {count}, but LISTEN_PID is {meant}, which is {_relation(meant)}, and {this}; " + _remedy(
            meant
        )
    if meant_id is not None and pidfd_id not in (None, meant_id):
        return (
            f"LISTEN_FDS is {count} and LISTEN_PID is {meant}, which is right, but LISTEN_PIDFDID is {meant_id}, which "
            f"is another process's (this one's is {pidfd_id}); a wrapper that sets LISTEN_PID itself must unset "
            "LISTEN_PIDFDID, or better leave both as they are and use exec"
        )
    if count == "0":
        return f"LISTEN_FDS is {count}: whatever started this process passed no descriptors"
    if pid != os.getpid():
        return f"LISTEN_FDS is {count} and LISTEN_PID is {meant}, but there is no such process any more"
    return f"LISTEN_FDS is {count}, and files() was not called yet"


def _no_variables() -> str:
    if _is_socket(0):
        return (
            "LISTEN_FDS is not set, but standard input is a socket, as StandardInput=socket, inetd and "
            "systemd-socket-activate --inetd pass one; leave that out, or take it by "
            'activation.listeners([activation.File(0, "stdin")]), or activation.streams or activation.packet_conns'
        )
    return f"LISTEN_FDS is not set; {HOW_TO_START}"


def _is_socket(number: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False


def _relation(pid: int) -> str:
    """What another process is to this one."""
    name = f" ({command})" if (command := _command(pid)) else ""
    if pid == os.getppid():
        return f"its parent{name}"
    if pid in _ancestors():
        return f"an ancestor of it{name}"
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return "a process that does not exist (any more)"
    except OSError:
        pass
    return f"another process{name}"


def _remedy(pid: int) -> str:
    if pid == os.getppid():
        return (
            "start the program by exec, so that it becomes that process (in a shell: exec before the command); or, if "
            "the program knows that a wrapper is in between, take them by activation.files(pid=os.getppid())"
        )
    if pid in _ancestors():
        return "each wrapper in between has to start the next program by exec, so that it becomes that process"
    return f"they were left in the environment for somebody else; {HOW_TO_START}"


def _ancestors() -> list[int]:
    found, pid = [], os.getppid()
    while pid > 0 and pid not in found:
        found.append(pid)
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                # The name before the state may have spaces and parentheses in it.
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return found


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
