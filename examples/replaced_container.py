"""A container is replaced by its next version in the middle of a client's TCP session, which goes on.

Run it as root: ``python examples/replaced_container.py``. It needs no systemd: socket-activate starts the service, that
is minirunc with a container, and in the container is a daemon with durable connections. systemd does the same with
these units; there ``systemctl restart counter.service`` takes the place of ``minirunc kill counter``.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = Path(sys.executable).parent
PYTHON = os.path.realpath(sys.executable)
CAP_SYS_ADMIN = 21
PATIENCE = 30.0  # seconds that an answer may take

# The program in the image. Its next version differs in one line.
DAEMON = """
import trio
import activation

VERSION = {version}

async def count(stream):
    while line := await stream.receive_until(b"\\n"):
        stream.state = b"%d" % (int(stream.state or b"0") + 1)
        await stream.send_all(b"version %d, line %s: %s" % (VERSION, stream.state, line))

async def main():
    await activation.serve(count, durable=True)

trio.run(main)
"""

SOCKET_UNIT = "[Socket]\nListenStream={}:{}\n"
SERVICE_UNIT = """\
[Unit]
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
ExecStart={minirunc} run --bundle {bundle} counter
Restart=always
FileDescriptorStoreMax=4
"""

# The kernel counts the descriptors that wait in queues for each user, up to the limit on open files. A container has no
# CAP_SYS_RESOURCE, which would exempt it, so it is a user of its own, that shares this room with nobody.
USER = 64017


def main() -> int:
    """Tell the story; return 0 if it went as it should."""
    if reason := missing():
        print(f"replaced_container.py: {reason}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="replaced-container-") as name:
        folder = Path(name)
        containers = [str(SCRIPTS / "minirunc"), "--root", f"{folder}/run"]
        for version in (1, 2):
            add_bundle(folder / f"v{version}", version)
        if reason := why_no_container_starts(folder / "v1", containers):
            print(f"replaced_container.py: minirunc cannot start a container here: {reason}", file=sys.stderr)
            return 1
        exchange(folder, 1)
        address = free_address()
        (folder / "counter.socket").write_text(SOCKET_UNIT.format(*address))
        service = SERVICE_UNIT.format(minirunc=" ".join(containers), bundle=folder / "current")
        (folder / "counter.service").write_text(service)

        note("This service's program is a container. Its bundle, `current`, is version 1.")
        show("cat counter.service")
        tell(service)
        show("socket-activate counter.socket &")
        try:
            with activated(folder / "counter.socket") as activator:
                answers = session(address, folder, activator, [*containers, "kill", "counter"])
                note("Ctrl-C at the activator: the containers are gone, with their state.")
                activator.terminate()
                assert activator.stderr
                tell(activator.stderr.read())
        except (OSError, EOFError, subprocess.CalledProcessError) as error:
            print(f"replaced_container.py: the session ended: {error}", file=sys.stderr)
            return 1
        left = subprocess.run([*containers, "list", "--quiet"], stdout=subprocess.PIPE, text=True, check=True).stdout
    expected = [
        "version 1, line 1: one",
        "version 1, line 2: two",
        "version 2, line 3: three",
        "version 2, line 4: four",
    ]
    return 0 if answers == expected and not left else 1


def session(address: tuple[str, int], folder: Path, activator: subprocess.Popen[str], kill: list[str]) -> list[str]:
    """Be a client, and replace the container between two of its lines; return the answers.

    Args:
        kill: the command that tells the container to end.
    """
    answers = []
    with socket.create_connection(address, timeout=PATIENCE) as connection, connection.makefile("rb") as received:
        note(f"A client connects to {address[0]}:{address[1]}, and the container starts.")
        for word in ("one", "two", "three", "four"):
            if word == "three":
                note("In the middle of the session the bundle is exchanged, and the container is told to end:")
                show("ln -sfn v2 current")
                exchange(folder, 2)
                show("minirunc kill counter")
                subprocess.run(kill, check=True)
                # Until it has ended, version 1 may still answer.
                assert activator.stderr
                while "starts it again" not in (line := activator.stderr.readline()):
                    if not line:
                        raise EOFError("socket-activate ended")
                tell(line)
                note("The session goes on. Version 2 answers on the same connection, and the count goes on:")
            tell(f"> {word}")
            connection.sendall(f"{word}\n".encode())
            if not (answer := received.readline()):
                raise EOFError("the connection was closed")
            answers.append(answer.decode().rstrip("\n"))
            tell(f"< {answers[-1]}")
    return answers


def missing() -> str:
    """What this needs and the machine does not have; nothing if it has everything."""
    if sys.platform != "linux":
        return f"containers are Linux's, and this is {sys.platform}"
    capabilities = Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0]
    if not int(capabilities, 16) >> CAP_SYS_ADMIN & 1:
        return "making a container takes root (CAP_SYS_ADMIN); run it with sudo"
    return ""


def add_bundle(bundle: Path, version: int) -> None:
    """Make the bundle of this version: an image with the program, to which the machine's Python is shown."""
    root = bundle / "rootfs"
    shown = ["/usr"]
    for name in ("usr", "opt", "proc", "dev", "sys", "run", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "opt" / "counterd.py").write_text(DAEMON.format(version=version))
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            (root / name).symlink_to(f"usr/{name}")
        elif os.path.isdir(f"/{name}"):
            shown.append(f"/{name}")
    packages = [path for path in sys.path if os.path.isdir(path)]
    for path in (os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix), *packages):
        if not any(Path(path).is_relative_to(other) for other in shown):
            shown.append(path)

    subprocess.run([SCRIPTS / "minirunc", "spec", "--bundle", bundle], check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"]["args"] = [PYTHON, "-S", "/opt/counterd.py"]
    config["process"]["env"] += [f"PYTHONPATH={':'.join(packages)}", f"LD_LIBRARY_PATH={sys.base_prefix}/lib"]
    config["process"]["user"] = {"uid": USER, "gid": USER}
    # trio wants a folder for temporary files, and what is shown may be below it.
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]})
    config["mounts"] += [
        {"destination": path, "type": "bind", "source": path, "options": ["rbind", "ro"]} for path in shown
    ]
    (bundle / "config.json").write_text(json.dumps(config))


def why_no_container_starts(bundle: Path, containers: list[str]) -> str:
    """What minirunc says where a container like this one fails; nothing if it runs. The service would try for ever."""
    config = json.loads((bundle / "config.json").read_text())
    config["root"]["path"] = str(bundle / "rootfs")
    config["process"]["args"] = [PYTHON, "-S", "-c", "import trio, activation"]
    trial = bundle.with_name("trial")
    trial.mkdir()
    (trial / "config.json").write_text(json.dumps(config))
    command = [*containers, "run", "--bundle", str(trial), "trial"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"status {done.returncode}"


def exchange(folder: Path, version: int) -> None:
    """Let `current` be this version, in one step: a start sees the one or the other."""
    (folder / "next").symlink_to(f"v{version}")
    (folder / "next").rename(folder / "current")


def free_address() -> tuple[str, int]:
    """An address of this machine that nobody uses: a port that is free, and a loopback address by chance."""
    with socket.socket() as sock:
        sock.bind((f"127.7.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}", 0))
        host, port = sock.getsockname()
    return host, port


@contextmanager
def activated(unit: Path) -> Iterator[subprocess.Popen[str]]:
    """Run socket-activate with this socket unit meanwhile, from when it listens."""
    with subprocess.Popen([SCRIPTS / "socket-activate", unit], stderr=subprocess.PIPE, text=True) as activator:
        try:
            assert activator.stderr
            tell(activator.stderr.readline())
            yield activator
        except BaseException:
            activator.terminate()
            tell(activator.communicate()[1][-4000:])
            raise


def show(command: str) -> None:
    """Print a command as it would be typed."""
    print(f"$ {command}", flush=True)


def tell(text: str) -> None:
    """Print what a command said."""
    print(text.rstrip("\n"), flush=True)


def note(text: str) -> None:
    """Print a remark on what follows."""
    print(f"\n# {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
