"""--check is a promise: what it finds nothing wrong with runs, and what it cannot know fails one unit alone."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import LIMIT, SOCKET_ACTIVATE, connect, receive, run, running, said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVICE = "[Service]\nExecStart=cat\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.glob("*.sk"))


def write(units: Mapping[str, str]) -> None:
    for name, text in units.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text.replace("FOLDER", os.getcwd()))


def of_socket(text: str) -> dict[str, str]:
    return {"a.socket": f"[Socket]\n{text}\n", "a.service": SERVICE}


def of_service(text: str, socket: str = "ListenStream=@FOLDER") -> dict[str, str]:
    return {"a.socket": f"[Socket]\n{socket}\n", "a.service": f"{SERVICE}{text}\n"}


TWO = "ListenStream=@FOLDER/1\nListenStream=@FOLDER/2"

# What is wrong, and where and how it is told.
WRONG = {
    "two sockets for one stream": (of_service("StandardInput=socket", TWO), "a.service:3: error: a standard stream"),
    "no socket of that name": (of_service("StandardInput=fd:none"), "a.service:3: error: no socket is passed as"),
    "a netlink family that is none": (of_socket("ListenNetlink=nosuch 1"), "a.socket:2: error: ListenNetlink= is"),
    "a netlink group that is none": (of_socket("ListenNetlink=route x"), "a.socket:2: error: ListenNetlink= is"),
    "half a size of a queue": (
        of_socket("ListenMessageQueue=/a-%b\nMessageQueueMaxMessages=3"),
        "a.socket:3: error: MessageQueueMaxMessages= and MessageQueueMessageSize= go together",
    ),
    "the other half": (
        of_socket("ListenMessageQueue=/a-%b\nMessageQueueMessageSize=3"),
        "a.socket:3: error: MessageQueueMaxMessages= and MessageQueueMessageSize= go together",
    ),
    "a path twice": (
        of_socket("ListenStream=FOLDER/a.sk\nListenDatagram=FOLDER/a.sk"),
        "a.sk is listed twice; a.socket:2 has it already",
    ),
    "a port twice": (of_socket("ListenStream=80\nListenStream=80"), "a.socket:3: error: 80 is listed twice"),
    "a symlink to itself": (
        of_socket("ListenStream=FOLDER/a.sk\nSymlinks=FOLDER/a.sk"),
        "a.socket:3: error: Symlinks= has FOLDER/a.sk, which the unit listens on",
    ),
    "a user that DynamicUser= would make": (
        of_service("DynamicUser=yes\nUser=surely-nobody"),
        "a.service:4: error: User= is 'surely-nobody': DynamicUser= would make it, which is not done here",
    ),
    "a user that there is not": (of_service("User=surely-nobody"), "a.service:3: error: User= is 'surely-nobody'"),
    "a USB function": (of_socket("ListenUSBFunction=/dev/x"), "a.socket:2: error: ListenUSBFunction= is"),
    "another network": (of_socket("ListenStream=80\nPrivateNetwork=yes"), "a.socket:3: error: PrivateNetwork="),
    "clients that are kept away": (of_socket("ListenStream=80\nIPAddressDeny=any"), "a.socket:3: error: IPAddress"),
    "a protocol that is none": (of_socket("ListenStream=80\nSocketProtocol=tcp"), "a.socket:3: error: SocketProtocol="),
    "text for input": (of_service("StandardInputText=hello"), "a.service:3: error: StandardInputText="),
    "data for input": (of_service("StandardInput=data"), "a.service:3: error: StandardInput= is 'data':"),
    "a terminal": (of_service("StandardOutput=tty"), "a.service:3: error: StandardOutput= is 'tty'"),
    "a file to open": (of_service("OpenFile=/etc/passwd"), "a.service:3: error: OpenFile="),
    "a group more": (of_service("SupplementaryGroups=surely-none"), "a.service:3: error: SupplementaryGroups="),
    "a umask that is none": (of_service("UMask=rwx"), "a.service:3: error: UMask= is 'rwx'"),
    "a folder above": (of_service("RuntimeDirectory=../a"), "a.service:3: error: RuntimeDirectory= is '../a'"),
    "a specifier not done here": (of_service("Environment=A=%d"), "%d is not done here"),
    "a value with a specifier": (
        of_socket("ListenStream=%p:80"),
        "a.socket:2: error: ListenStream= is '%p:80', which is 'a:80': expected a path",
    ),
    "a masked service": ({"a.socket": "[Socket]\nListenStream=80\n"}, "a.service: error: "),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_can_be_known_from_the_text_is_told_with_its_file_and_line(name: str) -> None:
    units, words = WRONG[name]
    write(units)
    checked, ran = (run(SOCKET_ACTIVATE, *option, "a.socket") for option in (["--check"], []))
    assert checked.returncode == ran.returncode == 1
    assert words.replace("FOLDER", os.getcwd()) in checked.stderr.decode()
    assert ran.stderr == checked.stderr
    assert b"listening" not in ran.stderr


# What a unit that is checked without an error cannot have here.
IMPOSSIBLE = {
    "a path in a file": "ListenStream=FOLDER/a.socket/a.sk",
    "an address of another machine": "ListenStream=192.0.2.1:80",
    "an interface that there is not": "ListenStream=[::1]:80%%surely-not",
    "a device that there is not": "ListenStream=80\nBindToDevice=surely-not",
    "a file that is none": "ListenSpecial=/surely/not/there",
    "a protocol that the kernel lacks": "ListenNetlink=300",
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_known_fails_one_unit_and_the_others_live_on(folder: Path, name: str) -> None:
    code = "import socket; socket.socket(fileno=3).accept()[0].sendall(b'served')"
    write(
        of_socket(IMPOSSIBLE[name])
        | {
            "b.socket": "[Socket]\nListenStream=FOLDER/b.sk\n",
            "b.service": f'[Service]\nExecStart={sys.executable} -S -c "{code}"\n',
        }
    )
    assert run(SOCKET_ACTIVATE, "--check", "a.socket", "b.socket").returncode == 0
    with running(SOCKET_ACTIVATE, "b.socket", "a.socket", until=b"a.socket failed: a.socket:2: ", status=1):
        for _ in range(2):
            with connect(folder / "b.sk") as sock:
                assert receive(sock, 6) == b"served"
    assert run(SOCKET_ACTIVATE, "a.socket").returncode == 1


def test_a_device_that_decides_nothing_of_a_path_is_no_reason_to_fail(folder: Path) -> None:
    write(of_socket("ListenStream=FOLDER/a.sk\nBindToDevice=surely-not"))
    with running(SOCKET_ACTIVATE, "a.socket", until=b"listening", status=0):
        assert (folder / "a.sk").is_socket()


def test_the_manager_that_has_started_it_hears_when_it_listens_and_when_it_stops(folder: Path) -> None:
    write({"a.socket": "[Socket]\nListenStream=FOLDER/a.sk\nListenStream=FOLDER/b.sk\n"})
    code = "import os, socket; found = os.environ.get('NOTIFY_SOCKET', 'none'); "
    code += "socket.socket(fileno=3).accept()[0].sendall(found.encode())"
    write({"a.service": f'[Service]\nExecStart={sys.executable} -S -c "{code}"\nPassEnvironment=NOTIFY_SOCKET\n'})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        manager.settimeout(LIMIT)
        address = "@" + os.fsdecode(manager.getsockname()[1:])
        environment = {**os.environ, "NOTIFY_SOCKET": address}
        with running(SOCKET_ACTIVATE, "a.socket", until=b"listening", status=0, env=environment):
            assert manager.recv(4096) == b"READY=1\nSTATUS=Listening at 2 addresses"
            with connect(folder / "b.sk"), connect(folder / "a.sk") as sock:
                assert receive(sock, 4) == b"none"
        assert manager.recv(4096) == b"STOPPING=1"
        command = (SOCKET_ACTIVATE, "-l", "./a.sk", sys.executable, "-S", "-c", code)
        with running(*command, until=b"listening", env=environment) as process:
            assert manager.recv(4096).startswith(b"READY=1\n")
            with connect(folder / "a.sk") as sock:
                assert address not in receive(sock, 1 << 10).decode()
            process.terminate()
            process.wait(LIMIT)
        assert manager.recv(4096) == b"STOPPING=1"
        once = (SOCKET_ACTIVATE, "--once", "-E", "NOTIFY_SOCKET", *command[1:])
        with running(*once, until=b"listening", status=0, env=environment) as process:
            assert manager.recv(4096).startswith(b"READY=1\n")
            with connect(folder / "a.sk") as sock:
                assert receive(sock, 4) == b"none"
            process.wait(LIMIT)
        (folder / "a.sk").unlink()


def test_a_manager_that_cannot_be_told_is_no_reason_to_fail(folder: Path) -> None:
    write(of_socket("ListenStream=FOLDER/a.sk"))
    for address in ("/surely/not/there", "nonsense"):
        environment = {**os.environ, "NOTIFY_SOCKET": address}
        with running(SOCKET_ACTIVATE, "a.socket", until=b"cannot notify", status=0, env=environment):
            assert (folder / "a.sk").is_socket()


def test_a_command_beside_socket_activate_is_found_without_a_path(folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PATH"} | {"PATH": "/surely/not/there"}
    with running(SOCKET_ACTIVATE, "-l", "./a.sk", "foobard", until=b"listening", status=0, env=environment) as process:
        with connect(folder / "a.sk") as sock:
            sock.sendall(b"word")
            assert receive(sock, 4) == b"word"
        process.send_signal(signal.SIGTERM)
        said(process, b"ending")
    with running(SOCKET_ACTIVATE, "--once", "-l", "./a.sk", "foobard", until=b"listening", env=environment) as process:
        with connect(folder / "a.sk") as sock:
            sock.sendall(b"word")
            assert receive(sock, 4) == b"word"
    (folder / "a.sk").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="for root, units are the system's")
def test_user_reads_units_as_a_users_manager_does(folder: Path) -> None:
    write(of_socket("ListenStream=%t/a.sk\nListenFIFO=%h/fifo"))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": f"{folder}/home"}
    for option, words in (
        ([], ["on /run/a.sk", "on /root/fifo"]),
        (["--user"], [f"on {folder}/a.sk", f"on {folder}/home/fifo"]),
    ):
        text = run(SOCKET_ACTIVATE, "--check", *option, "a.socket", env=environment).stdout.decode()
        assert all(word in text for word in words), text


@pytest.mark.parametrize("command", ["socket-activate", "client"])
def test_commands_tell_their_version(command: str) -> None:
    import activation

    done = run(str(Path(SOCKET_ACTIVATE).with_name(command)), "--version")
    assert (done.returncode, done.stdout.decode()) == (0, f"{command} {activation.__version__}\n")


def test_help_says_what_it_takes_itself_for() -> None:
    text = run(SOCKET_ACTIVATE, "--help").stdout.decode()
    assert "%t is /run or XDG_RUNTIME_DIR" in text
    assert "--user" in text
