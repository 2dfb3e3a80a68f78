"""socket-activate: systemd's socket units without systemd, from addresses or unit files."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from activation_cmd.common.imports import put_off
from activation_cmd.common.stdio import open_missing, reason, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from .processes.executor import Executor
    from .signals import Signals
    from .sockets.listening import Listening
    from .units.model import Kind, Pair
    from .units.specifiers import Manager

PROGRAM = "socket-activate"


class _ExitError(Exception):
    """The command cannot go on, and has said why."""

    def __init__(self, status: int) -> None:
        self.status = status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    if sys.platform != "linux":
        say(PROGRAM, "it needs Linux: epoll, memfd_create and subreapers")
        return 1
    open_missing()
    try:
        # Clients are waiting for this start, perhaps. Nothing that is loaded is garbage.
        gc.disable()
        # Slow imports happen in here, where an interrupt does not become a traceback.
        from .processes.executor import Executor

        # Forked before anything large is imported, so that its own children stay small.
        with Executor() as executor:
            put_off()  # only now: what the executor's children need is loaded, and none of them has to
            return _run(argv, executor)
    except _ExitError as end:
        return end.status
    except (OSError, ValueError) as error:
        say(PROGRAM, reason(error))
        return 1
    except KeyboardInterrupt:
        return 130  # it came before the signal handlers were set
    finally:
        gc.enable()


def _run(argv: Sequence[str] | None, executor: Executor) -> int:
    from .arguments import parse

    parser, arguments, files = parse(argv)
    pairs, environment = _of_files(parser, files, arguments) if files else _of_addresses(parser, arguments)
    if arguments.check:
        from .check import describe

        print(*describe(pairs, environment), sep="\n")
        return 0
    if arguments.once:
        from . import once

        executor.close()  # COMMAND must not find a child that it did not start
        return once.run(pairs[0], environment, now=arguments.now, inetd=arguments.inetd)
    from .signals import note_signals
    from .sockets.listening import Listening

    noted = note_signals()
    _raise_open_file_limit()
    with Listening(executor.announce, as_units=bool(files)) as listening:
        listening.make(pairs)
        return _serve(executor, listening, noted, arguments, environment, as_units=bool(files))


def _serve(
    executor: Executor,
    listening: Listening,
    noted: Signals,
    arguments: argparse.Namespace,
    environment: Mapping[str, str],
    *,
    as_units: bool,
) -> int:
    import trio  # the slowest import of all, while the first clients find open sockets

    from .run import Options, run

    options = Options(
        now=arguments.now,
        environment=environment,
        directory="/" if as_units else None,
        manager=_manager(arguments),
        as_units=as_units,
        watch=arguments.watch,
    )
    try:
        return trio.run(run, executor, listening, noted, options)
    except ExceptionGroup as group:
        if known := group.subgroup((OSError, ValueError)):
            say(PROGRAM, reason(known))
            return 1
        raise


def _raise_open_file_limit() -> None:
    """Raise the soft limit of descriptors to the hard one. The executor forks services, and keeps the old limit."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _manager(arguments: argparse.Namespace) -> Manager:
    from .units.specifiers import own_manager

    return "user" if arguments.user else own_manager()


def _of_addresses(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> tuple[list[Pair], Mapping[str, str]]:
    from . import command_line

    command = arguments.rest[1:] if arguments.rest[:1] == ["--"] else arguments.rest
    usual: Kind = "datagram" if arguments.datagram else "seqpacket" if arguments.seqpacket else "stream"
    try:
        if not command:
            raise ValueError("there is no COMMAND to start")
        listens = command_line.listens([(kind or usual, text) for kind, text in arguments.listen])
        names = command_line.names(arguments.fdname, len(listens))
        environment = command_line.environment(arguments.setenv, clean=arguments.clean_env)
    except ValueError as error:
        parser.error(str(error))
    program = _program(command[0], environment.get("PATH", os.defpath))
    if program is None:
        found = os.path.exists(command[0])
        say(PROGRAM, f"{command[0]}: {'it may not run' if found else 'there is no such program'}")
        raise _ExitError(126 if found else 127)
    pair = command_line.pair(listens, names, program, command, accept=arguments.accept, inetd=arguments.inetd)
    return [pair], environment


def _program(name: str, path: str) -> str | None:
    """What to execute: the name if PATH has it, else a program beside this one, as in an environment of pipx."""
    import shutil

    if shutil.which(name, path=path):
        return name
    if "/" in name:
        return None
    beside = (sys.argv[0], os.path.realpath(sys.argv[0]), sys.executable)
    return shutil.which(name, path=os.pathsep.join(os.path.dirname(os.path.abspath(each)) for each in beside if each))


def _of_files(
    parser: argparse.ArgumentParser, files: Sequence[str], arguments: argparse.Namespace
) -> tuple[list[Pair], Mapping[str, str]]:
    from . import command_line
    from .units.load import load

    try:
        environment = command_line.unit_environment(arguments.setenv, clean=arguments.clean_env)
    except ValueError as error:
        parser.error(str(error))
    pairs, problems = load(files, _manager(arguments))
    for problem in problems:
        say(PROGRAM, f"{problem.where}: {problem.level}: {problem.message}")
    if any(problem.level == "error" for problem in problems):
        raise _ExitError(1)
    return pairs, environment
