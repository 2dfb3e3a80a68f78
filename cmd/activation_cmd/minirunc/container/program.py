"""The container's program and the home of its user, as the container's own files have them."""

from __future__ import annotations

import errno
import os
import stat

from activation_cmd.minirunc.bundle.values import BundleError

from . import inside, syscalls

_DEFAULT_PATH = "/bin:/usr/bin"  # execvp(3), where there is no PATH
_MOST_INTERPRETERS = 5  # of interpreters, as in the kernel, execve(2)
_FIRST_LINE = 256
_MOST_USERS = 1 << 20  # bytes of /etc/passwd that are looked at


def find_program(name: str, path: str | None) -> str:
    """The path of the program, which must not be minirunc's own interpreter.

    ``/proc/self/exe`` leads there until the exec: as the program, or as the interpreter of a script, it would run the
    machine's file, and could then write to it (CVE-2019-5736). Call it with all capabilities, or what may be executed
    but not read is not looked into.

    Args:
        path: PATH in the program's environment.

    Raises:
        OSError: there is no such program.
        BundleError: it is a link in /proc.
    """
    if "/" in name:
        _check(name)
        return name
    for folder in (path if path is not None else _DEFAULT_PATH).split(":"):
        program = os.path.join(folder or ".", name)
        if os.path.isfile(program) and os.access(program, os.X_OK):
            _check(program)
            return program
    raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))


def _check(program: str) -> None:
    for _ in range(_MOST_INTERPRETERS):
        try:
            os.close(syscalls.open_without_magic_links(program))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise BundleError(
                    f"{program} leads through a link in /proc, to no file of the container's; expected a program"
                ) from None
            raise
        interpreter = _interpreter(program)
        if interpreter is None:
            return
        program = interpreter


def _interpreter(program: str) -> str | None:
    """What runs the script; None if it is none, or cannot be read."""
    try:
        descriptor = os.open(program, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    line = os.read(descriptor, _FIRST_LINE) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    os.close(descriptor)
    words = line.removeprefix(b"#!").split(b"\n")[0].split()
    return os.fsdecode(words[0]) if line.startswith(b"#!") and words else None


def home(uid: int) -> str:
    """The user's home in the container's /etc/passwd, / if there is none."""
    try:
        # Whatever the container has there: a pipe would be waited for, and other files have no end.
        descriptor = inside.open_inside("/etc/passwd", os.O_RDONLY | os.O_NONBLOCK)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            users = os.read(descriptor, _MOST_USERS) if is_file else b""
        finally:
            os.close(descriptor)
    except OSError:
        return "/"
    for line in users.decode(errors="surrogateescape").split("\n"):
        fields = line.split(":")
        if len(fields) == 7 and fields[2] == str(uid):
            return fields[5] or "/"
    return "/"
