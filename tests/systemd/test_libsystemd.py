"""A program that asks libsystemd, not us, what it was passed: our activator's side against the C implementation."""

from __future__ import annotations

import ctypes.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import activation
from tests.children import inode, tcp_listener, udp_socket
from tests.commands import LIMIT, SOCKET_ACTIVATE, connect, said

# Without the headers of libsystemd: they are seldom there. With an argument it takes its first client first.
SOURCE = r"""
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int sd_listen_fds_with_names(int unset_environment, char ***names);

int main(int argc, char **argv) {
    char **names = NULL;
    int count = sd_listen_fds_with_names(1, &names);
    alarm(10);
    if (argc > 1 && accept(3, NULL, NULL) < 0)
        perror("accept");
    printf("%d\n", count);
    for (int i = 0; i < count; i++) {
        struct stat status;
        int type = -1;
        socklen_t size = sizeof type;
        if (fstat(3 + i, &status) < 0 || getsockopt(3 + i, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
            perror(names[i]);
        printf("%s %llu %d\n", names[i], (unsigned long long) status.st_ino, type);
    }
    return 0;
}
"""

EXEC = """
import sys, activation
activation.exec_process(sys.argv[1:2], [(f"n{number}", int(number)) for number in sys.argv[2:]])
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    library = ctypes.util.find_library("systemd")
    if not compiler or not library:
        pytest.skip(f"there is no {'libsystemd' if compiler else 'C compiler'}")
    folder = tmp_path_factory.mktemp("libsystemd")
    source, binary = folder / "listen_fds.c", folder / "listen_fds"
    source.write_text(SOURCE)
    subprocess.run([compiler, "-Wall", "-Werror", "-o", binary, source, f"-l:{library}"], check=True, timeout=LIMIT)
    return str(binary)


def listening_inode(path: Path) -> int:
    """The inode number of the socket that listens there, as the kernel tells it."""
    found = re.search(rf" 01 +(\d+) {re.escape(str(path))}$", Path("/proc/net/unix").read_text(), re.MULTILINE)
    assert found
    return int(found[1])


async def test_open_process_passes_what_libsystemd_expects(program: str) -> None:
    with tcp_listener() as tcp, udp_socket() as udp:
        process = await activation.open_process([program], [("tcp", tcp), ("udp", udp), ("again", tcp)], stdout=-1)
        assert process.stdout
        async with process.stdout:
            printed = b"".join([chunk async for chunk in process.stdout])
        assert await process.wait() == 0
        stream = f"{inode(tcp)} {tcp.type:d}"
        assert printed.decode().splitlines() == [
            "3",
            f"tcp {stream}",
            f"udp {inode(udp)} {udp.type:d}",
            f"again {stream}",
        ]


async def test_libsystemd_sees_nothing_where_nothing_was_passed(program: str) -> None:
    process = await activation.open_process([program], [], stdout=-1)
    assert process.stdout
    async with process.stdout:
        assert b"".join([chunk async for chunk in process.stdout]) == b"0\n"
    assert await process.wait() == 0


def test_exec_process_passes_what_libsystemd_expects(program: str) -> None:
    with tcp_listener() as tcp, udp_socket() as udp:
        numbers = [udp.fileno(), tcp.fileno(), udp.fileno()]
        done = subprocess.run(
            [sys.executable, "-c", EXEC, program, *map(str, numbers)],
            pass_fds=set(numbers),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=True,
        )
        stream, datagram = f"{inode(tcp)} {tcp.type:d}", f"{inode(udp)} {udp.type:d}"
    lines = zip(numbers, [datagram, stream, datagram], strict=True)
    assert done.stdout.splitlines() == ["3", *(f"n{number} {what}" for number, what in lines)]


def test_socket_activate_passes_what_libsystemd_expects(program: str, tmp_path: Path) -> None:
    a, b = tmp_path / "a.sk", tmp_path / "b.sk"
    command = [SOCKET_ACTIVATE, "-l", str(a), "-l", str(b), "--fdname", "a:b", "--", program, "accept"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        try:
            said(process, b"b.sk")
            listening = [listening_inode(a), listening_inode(b)]
            with connect(a):
                said(process, b"the next client starts it again")
        finally:
            process.terminate()
        printed, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert printed.decode().splitlines() == ["2", f"a {listening[0]} 1", f"b {listening[1]} 1"]
