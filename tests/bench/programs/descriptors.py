"""Time files() and listeners() on what this process was passed, and both as one would write them by hand."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from statistics import median

import trio

import activation


def files_by_hand() -> list[tuple[int, str]]:
    names = os.environ["LISTEN_FDNAMES"].split(":")
    descriptors = range(3, 3 + int(os.environ["LISTEN_FDS"]))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return list(zip(descriptors, names, strict=True))


def listeners_by_hand() -> list[trio.SocketListener]:
    descriptors = range(3, 3 + int(os.environ["LISTEN_FDS"]))
    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    return [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]


def time_files() -> float:
    return seconds(lambda: activation.files(unset_env=False))


def time_files_by_hand() -> float:
    return seconds(files_by_hand)


def time_listeners() -> float:
    passed = activation.files(unset_env=False)
    found: list[trio.SocketListener | None] = []
    spent = seconds(lambda: found.extend(activation.listeners(passed)))
    for listener in found:
        assert listener is not None
        listener.socket.detach()  # stays open, for the next call
    return spent


def time_listeners_by_hand() -> float:
    found: list[trio.SocketListener] = []
    spent = seconds(lambda: found.extend(listeners_by_hand()))
    for listener in found:
        listener.socket.detach()
    return spent


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    result = call()
    spent = time.perf_counter() - begin
    del result  # not while the clock runs
    return spent


TIMERS = {
    "files()": time_files,
    "files by hand": time_files_by_hand,
    "listeners()": time_listeners,
    "listeners by hand": time_listeners_by_hand,
}

samples: dict[str, list[float]] = {name: [] for name in TIMERS}
for timer in TIMERS.values():
    timer()  # imports what it needs
for _ in range(int(sys.argv[1])):
    for name, timer in TIMERS.items():
        samples[name].append(timer())
print(json.dumps({name: [min(values), median(values)] for name, values in samples.items()}))
