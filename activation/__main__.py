"""python -m activation: prints the version, what was passed to this process, and where its notifications go.

Put it in the place of a daemon that does not find its sockets.
"""

from __future__ import annotations

import os
import socket
import stat
import sys

import activation

from ._environment import environ

KINDS = {stat.S_IFREG: "file", stat.S_IFIFO: "FIFO", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device"}


def main() -> int:
    """Print it; return the exit status: 0, or 1 where a variable cannot be right."""
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"activation {activation.__version__}, Python {python}, process {os.getpid()}")
    try:
        passed = activation.files()
        watchdog = activation.watchdog_enabled()
    except activation.ActivationError as error:
        print(error, file=sys.stderr)
        return 1
    if passed:
        print(f"{len(passed)} descriptors were passed:" if len(passed) > 1 else "1 descriptor was passed:")
        for file in passed:
            print(f"  {file.fileno()}  {file.name}  {describe(file.fileno())}")
    else:
        print(f"no descriptors were passed: {activation.why_nothing_was_passed()}")
    address = environ().get("NOTIFY_SOCKET")
    print(f"notifications go to {address}" if address else "notifications go nowhere: NOTIFY_SOCKET is not set")
    if watchdog is not None:
        print(f"the service manager expects WATCHDOG=1 every {watchdog:g} seconds")
    return 0


def describe(descriptor: int) -> str:
    """What a descriptor is, in words."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISSOCK(mode):
        try:
            path = " " + os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            path = ""
        return KINDS.get(stat.S_IFMT(mode), "file of an unusual kind") + path
    sock = socket.socket(fileno=descriptor)
    try:
        return f"{_state(sock)} {_name(sock.family)} {_name(sock.type)} at {_address(sock.getsockname())}"
    finally:
        sock.detach()


def _state(sock: socket.socket) -> str:
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "listening"
        sock.getpeername()
    except OSError:
        return "unconnected"
    return "connected"


def _name(number: int) -> str:
    return str(getattr(number, "name", number))


def _address(address: object) -> str:
    if isinstance(address, bytes):
        return "@" + os.fsdecode(address[1:])
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return str(address) or "no address"


if __name__ == "__main__":
    sys.exit(main())
