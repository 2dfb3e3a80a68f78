"""The same pair of unit files under a real systemd and under socket-activate: what the service and its clients see.

Both run in the same namespaces, one after the other, with all pairs side by side, so the files are the same to the
letter.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.commands import LIMIT, children, connect, free_port, receive

from .manager import Manager, missing

if TYPE_CHECKING:
    from pathlib import Path

# What is seen is seen once, by one worker.
pytestmark = pytest.mark.xdist_group("pairs")

# Where the sockets of all pairs are, inside.
TOP = "/run/pairs"

# The service: it reports what it finds, tells it is ready, serves one client and stays, or ends with its connection.
PROBE = """
import fcntl, json, os, signal, socket, stat

OPTIONS = {
    "REUSEADDR": (1, 2), "TYPE": (1, 3), "BROADCAST": (1, 6), "SNDBUF": (1, 7), "RCVBUF": (1, 8), "KEEPALIVE": (1, 9),
    "PRIORITY": (1, 12), "REUSEPORT": (1, 15), "PASSCRED": (1, 16), "TIMESTAMP": (1, 29), "ACCEPTCONN": (1, 30),
    "PASSSEC": (1, 34), "TIMESTAMPNS": (1, 35), "MARK": (1, 36), "PROTOCOL": (1, 38), "DOMAIN": (1, 39),
    "TOS": (0, 1), "TTL": (0, 2), "PKTINFO": (0, 8), "FREEBIND": (0, 15), "TRANSPARENT": (0, 19),
    "HOPS": (41, 16), "V6ONLY": (41, 26), "RECVPKTINFO": (41, 49), "IPV6_TRANSPARENT": (41, 75),
    "IPV6_FREEBIND": (41, 78), "NETLINK_PKTINFO": (270, 3),
    "NODELAY": (6, 1), "KEEPIDLE": (6, 4), "KEEPINTVL": (6, 5), "KEEPCNT": (6, 6), "DEFER_ACCEPT": (6, 9),
}
TEXTS = {"CONGESTION": (6, 13), "BINDTODEVICE": (1, 25)}
TCP_INFO, BACKLOG = 11, 28  # unix(7) has no way to ask for it
TYPES = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "fifo", stat.S_IFREG: "file", stat.S_IFCHR: "device"}

def option(sock, level, number, *size):
    try:
        found = sock.getsockopt(level, number, *size)
    except OSError:
        return None
    return found.strip(b"\\0").decode() if size else found

def described(number):
    mode = os.fstat(number).st_mode
    seen = {
        "type": TYPES[stat.S_IFMT(mode)],
        "mode": oct(stat.S_IMODE(mode)),
        "status flags": oct(fcntl.fcntl(number, fcntl.F_GETFL)),
        "descriptor flags": fcntl.fcntl(number, fcntl.F_GETFD),
    }
    if not stat.S_ISSOCK(mode):
        seen["link"] = os.readlink(f"/proc/self/fd/{number}")
        if seen["type"] == "fifo":
            seen["size"] = fcntl.fcntl(number, fcntl.F_GETPIPE_SZ)
        return seen
    with socket.socket(fileno=os.dup(number)) as sock:
        seen |= {name: option(sock, *where) for name, where in OPTIONS.items()}
        seen |= {name: option(sock, *where, 16) for name, where in TEXTS.items()}
        seen["name"] = str(sock.getsockname()) if sock.family != socket.AF_NETLINK else str(sock.getsockname()[1])
        if sock.family in (socket.AF_INET, socket.AF_INET6) and option(sock, 1, 30) and sock.type == 1:
            seen["backlog"] = int.from_bytes(sock.getsockopt(6, TCP_INFO, 32)[BACKLOG:], "little")
        try:
            seen["peer"] = sock.getpeername()[:1]
        except OSError:
            pass
    return seen

def descriptors():
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            yield int(name), described(int(name))
        except OSError:
            pass  # the listing's own

def variable(name, value):
    if name in ("LISTEN_PID", "SYSTEMD_EXEC_PID", "WATCHDOG_PID"):
        return "self" if value == str(os.getpid()) else "another"
    if name == "INVOCATION_ID":
        return len(bytes.fromhex(value))
    if name == "REMOTE_PORT":
        return value == port
    return "an address" if name == "NOTIFY_SOCKET" else value

def is_socket(number):
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False

def peers_port():
    for number in (3, 0):
        if is_socket(number):
            with socket.socket(fileno=os.dup(number)) as sock:
                try:
                    return str((sock.getpeername() or ("", "none"))[1])
                except OSError:
                    pass
    return "none"

port = peers_port()
umask = os.umask(0)
os.umask(umask)
with open("/proc/self/environ") as file:
    environment = [entry.split("=", 1) for entry in file.read().split("\\0")[:-1]]
report = {
    "arguments": [argument.replace(port, "PEER") for argument in sys.argv[2:]],
    "folder": os.getcwd(),
    "environment": {name: variable(name, value) for name, value in environment},
    "descriptors": dict(descriptors()),
    "user": os.getresuid(),
    "group": os.getresgid(),
    "groups": sorted(os.getgroups()),
    "leads its session": os.getsid(0) == os.getpid(),
    "leads its group": os.getpgid(0) == os.getpid(),
    "umask": oct(umask),
    "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "nice": os.nice(0),
    "folders": {
        path: [oct(stat.S_IMODE(os.stat(path).st_mode)), os.stat(path).st_uid, os.stat(path).st_gid]
        for name, value in environment if name.endswith("_DIRECTORY")
        for path in value.split(":")
    },
}
path = os.path.join({reports!r}, sys.argv[1].partition("@")[0])
with open(path + ".new", "w") as file:
    json.dump(report, file)
os.rename(path + ".new", path)
if address := os.environ.get("NOTIFY_SOCKET"):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", address.replace("@", "\\0", 1))
for number in filter(is_socket, (3, 0, 1)):
    sock = socket.socket(fileno=number)
    if sock.type != socket.SOCK_DGRAM and sock.family != socket.AF_NETLINK:
        accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        conn = sock.accept()[0] if accepts else sock
        conn.sendall(b"served")
        conn.recv(1)
        if not accepts:
            sys.exit()
        conn.close()
while True:
    signal.pause()
"""

# Sends to a message queue, for which Python has no functions.
SEND = """
import ctypes
libc = ctypes.CDLL(None)
queue = libc.mq_open(sys.argv[1].encode(), 1)
sys.exit(queue < 0 or libc.mq_send(queue, b"message", 7, 0))
"""

PATIENCE = 30.0
"""Seconds for each pair, of which one or the other may fail."""

CREDENTIALS = struct.Struct("3i")


class Place(NamedTuple):
    """Where a client finds its server: the pair's folder and port, and the process that activates."""

    manager: Manager
    folder: Path
    port: int
    activator: int


Client = Callable[[Place], object]
"""What clients do, and what they see of it."""


def answer(sock: socket.socket, address: object) -> str:
    """All that is said to a client that says nothing itself."""
    with sock:
        sock.settimeout(PATIENCE)
        sock.connect(address)  # type: ignore[arg-type]
        first = receive(sock, 6)
        sock.shutdown(socket.SHUT_WR)
        return (first + receive(sock, 1)).decode()


def path(name: str, kind: int = socket.SOCK_STREAM) -> Client:
    def client(place: Place) -> object:
        with socket.socket(socket.AF_UNIX, kind) as sock:
            said = answer(sock.dup(), str(place.folder / name))
            # Of whoever called listen(), unix(7).
            pid, *ids = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
        return said, ids, pid == place.activator

    return client


def abstract(place: Place) -> object:
    return answer(socket.socket(socket.AF_UNIX), f"\0pairs-{place.port}")


def tcp(host: str = "127.0.0.1") -> Client:
    return lambda place: answer(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET), (host, place.port))


def tcp_first_word(place: Place) -> object:
    """Nobody is told of a client before it says something."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(("::1", place.port))
        sock.send(b".")
        return receive(sock, 6).decode()


def udp(place: Place) -> object:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"datagram", ("127.0.0.1", place.port))


def datagram(place: Place) -> object:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"datagram", str(place.folder / "d.sk"))


def write(place: Place) -> object:
    return (place.folder / "fifo").write_bytes(b"line\n")


def multicast(place: Place) -> object:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_USERSOCK) as sock:
        with suppress(ConnectionRefusedError):  # by the kernel, whose address it is too
            sock.sendto(b"message", (0, GROUP))
    return None


def message(place: Place) -> object:
    place.manager.run("nsenter", "-t", "1", "-i", "--", "send-message", f"/pairs-{place.port}")
    return None


def nothing(place: Place) -> object:
    return None


def two_at_once(place: Place) -> object:
    """The second is not served as long as the first one is there."""
    with connect(place.folder / "a.sk") as first:
        said = receive(first, 6)
        with connect(place.folder / "a.sk") as second:
            try:
                refused = second.recv(1)
            except ConnectionResetError:
                refused = b""
            return said.decode(), refused.decode()


def two_of_a_path(place: Place) -> object:
    with connect(place.folder / "a.sk") as first:
        said = receive(first, 6)
        with connect(place.folder / "a.sk") as second:
            return said, receive(second, 6)


def two_sources(place: Place) -> object:
    """The second one of the same host is not served, one of another is."""

    def come(source: str) -> bytes:
        sock = stack.enter_context(socket.socket())
        sock.settimeout(PATIENCE)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", place.port))
        try:
            return receive(sock, 6)
        except ConnectionResetError:
            return b""

    with ExitStack() as stack:
        return [come(source) for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3")]


GROUP = 1 << os.getpid() % 31


class Pair(NamedTuple):
    """A pair of units. FOLDER and PORT stand for the pair's own; MANAGER for a folder that nothing is made in."""

    socket: str
    client: Client
    service: str = ""
    more: Mapping[str, str] = {}


STREAM = "ListenStream=FOLDER/a.sk\n"
ACCEPT = f"Accept=yes\n{STREAM}"
TCP = "ListenStream=127.0.0.1:PORT\n"

PAIRS = {
    # [Socket]
    "path": Pair(STREAM, path("a.sk")),
    "abstract": Pair("ListenStream=@pairs-PORT", abstract),
    "port": Pair("ListenStream=PORT", tcp()),
    "v4": Pair(TCP, tcp()),
    "tcp-options": Pair(f"{TCP}NoDelay=yes\nKeepAlive=yes\nReusePort=yes\nBacklog=7", tcp()),
    "buffers": Pair(f"{TCP}ReceiveBuffer=64K\nSendBuffer=32K", tcp()),
    "keep-alive": Pair(
        f"{TCP}KeepAlive=yes\nKeepAliveTimeSec=1min 500ms\nKeepAliveIntervalSec=7\nKeepAliveProbes=3\n"
        "TCPCongestion=reno",
        tcp(),
    ),
    "keep-alive-by-default": Pair(f"{TCP}KeepAliveTimeSec=0\nKeepAliveProbes=0\nDeferAcceptSec=0", tcp()),
    "defer-accept": Pair("ListenStream=[::1]:PORT\nDeferAcceptSec=3", tcp_first_word),
    "packets-v4": Pair(
        f"{TCP}Priority=5\nMark=0x10\nIPTOS=low-delay\nIPTTL=17\nTransparent=yes\nBindToDevice=lo", tcp()
    ),
    "packets-v6": Pair(
        "ListenStream=[::1]:PORT\nPriority=0\nMark=0\nIPTOS=32\nIPTTL=3\nTransparent=yes\nBindToDevice=*", tcp("::1")
    ),
    "packet-info": Pair(
        "ListenDatagram=127.0.0.1:PORT\nPassPacketInfo=yes\nTimestamping=us\nBroadcast=yes\nPassSecurity=yes", udp
    ),
    "packet-info-v6": Pair(
        "ListenDatagram=[::1]:PORT\nPassPacketInfo=yes\nTimestamping=yes\nListenFIFO=FOLDER/fifo", write
    ),
    "packet-info-of-others": Pair(
        f"ListenNetlink=2 {GROUP}\nListenDatagram=FOLDER/d.sk\nPassPacketInfo=yes\nTimestamping=nsec\n"
        "PassSecurity=yes\nBroadcast=yes\nPriority=6\nMark=3",
        datagram,
    ),
    "nothing-of-all": Pair(
        f"{TCP}ReceiveBuffer=0\nSendBuffer=0\nListenFIFO=FOLDER/fifo\nPipeSize=0\nDeferAcceptSec=infinity\n"
        "ListenMessageQueue=/pairs-PORT\nMessageQueueMaxMessages=0\nMessageQueueMessageSize=0\nRemoveOnStop=yes",
        write,
    ),
    "too-much": Pair(f"{TCP}ReceiveBuffer=4G\nSendBuffer=1E\nIPTTL=010\nPriority=0x3", tcp()),
    "what-cannot-be-set": Pair(f"{TCP}TCPCongestion=none-such\nIPTTL=1000\nKeepAliveTimeSec=1d\nIPTOS=low-cost", tcp()),
    "beyond-the-limit": Pair(f"{STREAM}ReceiveBuffer=16M\nSendBuffer=16M\nPassCredentials=yes", path("a.sk")),
    "several-parts": Pair(f"{TCP}ReceiveBuffer=32K 512\nSendBuffer=1M512K", tcp()),
    "numbers-that-are-none": Pair(f"{TCP}Priority=-1\nMark=-7\nIPTOS=-1\nIPTTL=-1", tcp()),
    "interface": Pair("ListenStream=[::1]:PORT%%lo", tcp("::1")),
    "interface-for-datagrams": Pair("ListenDatagram=[::1]:PORT%%lo\nListenFIFO=FOLDER/fifo", write),
    "interface-of-v4": Pair("ListenStream=127.0.0.1:PORT%%lo", tcp()),
    "v6-or-not": Pair("ListenStream=[::]:PORT\nBindIPv6Only=no", tcp()),
    "v6-or-so": Pair("ListenStream=[::1]:PORT\nBindIPv6Only=on", tcp("::1")),
    "flush-pending": Pair(f"{STREAM}ListenFIFO=FOLDER/fifo\nFlushPending=yes", path("a.sk")),
    "v6-only": Pair("ListenStream=[::1]:PORT\nBindIPv6Only=ipv6-only", tcp("::1")),
    "v6-both": Pair("ListenStream=[::]:PORT\nBindIPv6Only=both", tcp()),
    "free-bind": Pair(
        "ListenStream=192.0.2.1:PORT\nListenDatagram=[2001:db8::1]:PORT\nFreeBind=yes\nListenFIFO=FOLDER/fifo", write
    ),
    "datagram": Pair("ListenDatagram=FOLDER/d.sk\nPassCredentials=yes\nReceiveBuffer=1M\nSendBuffer=1", datagram),
    "udp": Pair("ListenDatagram=127.0.0.1:PORT\nReusePort=yes\nKeepAlive=yes\nNoDelay=yes", udp),
    "seqpacket": Pair("ListenSequentialPacket=FOLDER/s.sk\nKeepAlive=yes", path("s.sk", socket.SOCK_SEQPACKET)),
    "fifo": Pair("ListenFIFO=FOLDER/fifo\nSocketMode=0620\nSocketGroup=daemon", write),
    "pipe-size": Pair("ListenFIFO=FOLDER/fifo\nPipeSize=100K", write),
    "special": Pair("ListenSpecial=/dev/random", nothing),
    "writable": Pair("ListenSpecial=/dev/random\nWritable=yes", nothing),
    "netlink": Pair(f"ListenNetlink=2 {GROUP}\nPassCredentials=yes\nReceiveBuffer=100K", multicast),
    "netlink-by-name": Pair("ListenNetlink=route 1361\nListenNetlink=generic\nListenFIFO=FOLDER/fifo", write),
    "message-queue": Pair(
        "ListenMessageQueue=/pairs-PORT\nMessageQueueMaxMessages=4\nMessageQueueMessageSize=64\nSocketMode=0640\n"
        "RemoveOnStop=yes",
        message,
    ),
    "modes": Pair("ListenStream=FOLDER/in/side/a.sk\nSocketMode=0600\nDirectoryMode=0711", path("in/side/a.sk")),
    "owner": Pair(f"{STREAM}SocketUser=nobody", path("a.sk")),
    "owner-and-group": Pair(f"{STREAM}SocketUser=daemon\nSocketGroup=root\nSocketMode=0660", path("a.sk")),
    "symlinks": Pair(f"{STREAM}Symlinks=FOLDER/b.sk FOLDER/in/side/c.sk", path("a.sk")),
    "symlinks-to-a-fifo": Pair("ListenFIFO=FOLDER/fifo\nSymlinks=FOLDER/a", write),
    "removed": Pair(f"{STREAM}Symlinks=FOLDER/b.sk\nRemoveOnStop=yes", path("a.sk")),
    "kept": Pair(f"{STREAM}Symlinks=FOLDER/b.sk\nRemoveOnStop=no", path("a.sk")),
    "named": Pair(f"{STREAM}FileDescriptorName=front", path("a.sk")),
    "many": Pair(
        f"{STREAM}ListenFIFO=FOLDER/fifo\n{TCP}ListenDatagram=127.0.0.1:PORT\nListenDatagram=FOLDER/d.sk\n"
        "ListenNetlink=route\nListenSequentialPacket=@pairs-PORT\nListenStream=FOLDER/b.sk\nFileDescriptorName=of many",
        path("a.sk"),
    ),
    "accept": Pair(ACCEPT, path("a.sk")),
    "accept-named": Pair(f"{ACCEPT}FileDescriptorName=back\nPassCredentials=yes", path("a.sk")),
    "accept-v4": Pair(
        f"{TCP}Accept=yes\nKeepAlive=yes\nNoDelay=yes\nReceiveBuffer=64K",
        tcp(),
        "ExecStart=\nExecStart=probe %p %i %I",
    ),
    "accept-v6": Pair("ListenStream=[::1]:PORT\nAccept=yes", tcp("::1")),
    "accept-mapped": Pair("ListenStream=PORT\nAccept=yes\nBindIPv6Only=both", tcp()),
    "accept-seqpacket": Pair(
        "ListenSequentialPacket=FOLDER/s.sk\nAccept=yes", path("s.sk", socket.SOCK_SEQPACKET), "Type=notify"
    ),
    "accept-inetd": Pair(ACCEPT, path("a.sk"), "StandardInput=socket\nStandardError=null"),
    "accept-options": Pair(
        f"{ACCEPT}KeepAlive=yes\nSendBuffer=32K\nReceiveBuffer=16K\nPassSecurity=yes\nPriority=3\nMark=4\n"
        "Broadcast=yes\nTimestamping=us",
        path("a.sk"),
    ),
    "accept-packets": Pair(
        f"{TCP}Accept=yes\nIPTOS=reliability\nIPTTL=9\nMark=1\nPriority=2\nTCPCongestion=reno\nKeepAliveProbes=2",
        tcp(),
    ),
    "max-connections": Pair(f"{ACCEPT}MaxConnections=1", two_at_once),
    "max-connections-per-source": Pair(f"{TCP}Accept=yes\nMaxConnectionsPerSource=1", two_sources),
    "max-connections-of-a-path": Pair(f"{ACCEPT}MaxConnectionsPerSource=1", two_of_a_path),
    "service": Pair(f"{STREAM}Service=of-another-name.service", path("a.sk"), more={"of-another-name.service": ""}),
    "instance@one": Pair(STREAM, path("a.sk"), "ExecStart=\nExecStart=probe %N %n %p %i %I %j"),
    "drop-in": Pair(
        STREAM,
        path("a.sk"),
        "Environment=A=1 B=2",
        {
            "drop-in.service.d/a.conf": "[Service]\nEnvironment=B=3 C=4\n",
            "drop-in.socket.d/a.conf": f"[Socket]\nFileDescriptorName=dropped\nListenStream=\n{STREAM}",
        },
    ),
    "alias": Pair(
        STREAM,
        path("a.sk"),
        "ExecStart=\nExecStart=probe alias %n %p",
        {"of-alias.socket": f"[Socket]\n{STREAM}", "of-alias.service": ""},
    ),
    "overridden": Pair(
        f"{STREAM}BindIPv6Only=nonsense\nMark=nonsense",
        path("a.sk"),
        "Type=forking\nUser=surely-nobody\nGroup=surely-nobody\nKillMode=nonsense\nRestartSec=soon",
        {
            "overridden.service.d/a.conf": "[Service]\nType=simple\nUser=\nGroup=daemon\nKillMode=mixed\n"
            "RestartSec=1\n",
            "overridden.socket.d/a.conf": "[Socket]\nBindIPv6Only=both\nMark=1\n",
        },
    ),
    # [Service]
    "supplementary-groups": Pair(
        STREAM, path("a.sk"), "User=nobody\nSupplementaryGroups=games daemon\nSupplementaryGroups=5"
    ),
    "supplementary-groups-alone": Pair(STREAM, path("a.sk"), "SupplementaryGroups=games"),
    "supplementary-groups-of-root": Pair(STREAM, path("a.sk"), "User=root\nSupplementaryGroups=games"),
    "supplementary-groups-privileged": Pair(
        STREAM, path("a.sk"), "User=nobody\nSupplementaryGroups=games\nExecStart=\nExecStart=+probe %N"
    ),
    "umask": Pair(STREAM, path("a.sk"), "UMask=0027\nStandardOutput=truncate:FOLDER/out"),
    "named-input": Pair(f"{STREAM}FileDescriptorName=front", path("a.sk"), "StandardInput=fd:front"),
    "named-output": Pair(
        f"{STREAM}FileDescriptorName=front", path("a.sk"), "StandardOutput=fd:front\nStandardError=null"
    ),
    "named-by-default": Pair(f"{STREAM}FileDescriptorName=stdin", path("a.sk"), "StandardInput=fd\nStandardError=null"),
    "named-error": Pair(
        f"{STREAM}FileDescriptorName=front", path("a.sk"), "StandardOutput=null\nStandardError=fd:front"
    ),
    "accept-named-stream": Pair(ACCEPT, path("a.sk"), "StandardInput=fd:connection\nStandardError=null"),
    "files": Pair(
        STREAM,
        path("a.sk"),
        "StandardInput=file:MANAGER/environment\nStandardOutput=file:FOLDER/out\nStandardError=append:FOLDER/error",
    ),
    "one-file": Pair(STREAM, path("a.sk"), "StandardOutput=append:FOLDER/out-%N\nStandardError=append:FOLDER/out-%N"),
    "one-file-for-all": Pair(STREAM, path("a.sk"), "StandardInput=file:FOLDER/all\nStandardOutput=file:FOLDER/all"),
    "files-of-another-user": Pair(STREAM, path("a.sk"), "User=nobody\nStandardOutput=truncate:FOLDER/out\nUMask=0077"),
    "directories": Pair(
        f"{STREAM}RemoveOnStop=yes",
        path("a.sk"),
        "RuntimeDirectory=pairs/directories/one pairs/directories/two/three\nRuntimeDirectoryMode=0750\nUser=daemon\n"
        "LogsDirectory=%N\nLogsDirectoryMode=0700\nStateDirectory=pairs/%p\nCacheDirectory=pairs",
    ),
    "directories-of-root": Pair(
        STREAM, path("a.sk"), "RuntimeDirectory=pairs/%N/run\nUMask=0077\nLogsDirectory=pairs-%N"
    ),
    "directories-with-links": Pair(
        f"{STREAM}RemoveOnStop=yes",
        path("a.sk"),
        "RuntimeDirectory=pairs/%N/one:pairs/%N/two pairs/%N/one:pairs/%N/three/four",
    ),
    "directories-kept": Pair(
        f"{STREAM}RemoveOnStop=yes", path("a.sk"), "RuntimeDirectory=pairs/%N/one\nRuntimeDirectoryPreserve=yes"
    ),
    "prepared": Pair(
        STREAM,
        path("a.sk"),
        "User=nobody\nRuntimeDirectory=pairs/%N/one\nExecStartPre=+chmod 0701 $RUNTIME_DIRECTORY\n"
        "ExecStartPre=-/surely/not/there\nExecStartPre=-false\nExecStartPre=sh -c 'echo $0 >FOLDER/one/said' said",
    ),
    "exec": Pair(STREAM, path("a.sk"), "Type=exec"),
    "notify": Pair(STREAM, path("a.sk"), "Type=notify"),
    "watchdog": Pair(STREAM, path("a.sk"), "Type=notify\nWatchdogSec=1min 500ms"),
    "notify-access": Pair(STREAM, path("a.sk"), "NotifyAccess=all"),
    "store": Pair(STREAM, path("a.sk"), "FileDescriptorStoreMax=3\nNotifyAccess=exec"),
    "inetd": Pair(STREAM, path("a.sk"), "StandardInput=socket"),
    "inetd-non-blocking": Pair(STREAM, path("a.sk"), "StandardInput=socket\nNonBlocking=yes"),
    "inetd-to-the-log": Pair(TCP, tcp(), "StandardInput=socket\nStandardOutput=null\nStandardError=socket"),
    "only-output": Pair(STREAM, path("a.sk"), "StandardInput=null\nStandardOutput=socket"),
    "user": Pair(STREAM, path("a.sk"), "User=nobody"),
    "user-and-group": Pair(STREAM, path("a.sk"), "User=1\nGroup=games\nEnvironment=HOME=/elsewhere"),
    "group": Pair(STREAM, path("a.sk"), "Group=daemon"),
    "root": Pair(STREAM, path("a.sk"), "User=root"),
    "home": Pair(STREAM, path("a.sk"), "User=bin\nWorkingDirectory=~"),
    "folder": Pair(STREAM, path("a.sk"), "WorkingDirectory=/usr/lib"),
    "missing-folder": Pair(STREAM, path("a.sk"), "WorkingDirectory=-/surely/not/there"),
    "privileged": Pair(STREAM, path("a.sk"), "User=nobody\nExecStart=\nExecStart=+probe %N a"),
    "half-privileged": Pair(STREAM, path("a.sk"), "User=nobody\nGroup=games\nExecStart=\nExecStart=!probe %N a"),
    "prefixes": Pair(
        STREAM,
        path("a.sk"),
        """Environment=ONE=1
ExecStart=
ExecStart=-@:sh nought -c 'exec probe "$1" "$(tr "\\\\0" " " </proc/$$/cmdline)"' zero %N $ONE""",
    ),
    "specifiers": Pair(
        STREAM,
        path("a.sk"),
        "ExecStart=\nExecStart=probe %N %n %p %j %u %U %g %G %h %s %t %S %C %L %E %T %V %% %l %H %f %P",
    ),
    "environment": Pair(
        STREAM,
        path("a.sk"),
        "Environment=\"ONE=a b\" TWO=%n PATH=/usr/local/sbin:/bin\n"
        "ExecStart=\nExecStart=probe %N $ONE ${ONE}",
    ),
    "environment-of-the-manager": Pair(
        STREAM,
        path("a.sk"),
        "Type=simple\nNotifyAccess=main\nWatchdogSec=1min\nEnvironment=WATCHDOG_USEC=5 SYSTEMD_EXEC_PID=6\n"
        "EnvironmentFile=MANAGER/of-the-manager",
    ),
    "environment-file": Pair(
        STREAM,
        path("a.sk"),
        "Environment=ONE=unit TWO=unit\nEnvironmentFile=MANAGER/environment\nEnvironmentFile=-/surely/not/there\n"
        "ExecStart=\nExecStart=probe %N $ONE ${THREE} $LISTEN_FDS",
    ),
    "non-blocking": Pair(f"{STREAM}{TCP}ListenFIFO=FOLDER/fifo", path("a.sk"), "NonBlocking=yes"),
    "accept-non-blocking": Pair(ACCEPT, path("a.sk"), "NonBlocking=yes"),
    "unset-environment": Pair(
        STREAM,
        path("a.sk"),
        "Environment=ONE=1 TWO=2 THREE=3\nEnvironmentFile=MANAGER/environment\n"
        "UnsetEnvironment=ONE TWO=2 \"THREE=a b# c\" SYSTEMD_EXEC_PID INVOCATION_ID NOT_THERE\n"
        "ExecStart=\nExecStart=probe %N ${ONE} ${TWO}",
    ),
    "pass-environment": Pair(
        STREAM,
        path("a.sk"),
        "PassEnvironment=SYSTEMD_UNIT_PATH\nPassEnvironment=\nPassEnvironment=container NOT_THERE HOME\n"
        "Environment=HOME=unit",
    ),
    "signals": Pair(
        STREAM,
        path("a.sk"),
        "ExecStart=\nExecStart=sh -c 'exec probe \"$0\" \"$$(grep ^Sig[BIC] /proc/self/status)\"' %N",
    ),
}  # fmt: skip

with suppress(OSError), socket.socket(type=socket.SOCK_DGRAM, proto=136):
    # Where the kernel has it.
    udplite = Pair("ListenDatagram=127.0.0.1:PORT\nSocketProtocol=udplite\nListenFIFO=FOLDER/fifo", write)
    PAIRS = {"udplite": udplite, **PAIRS}

# What differs on purpose, or with the version of systemd.
NOT_COMPARED = {
    "/environment/LANG": "is the machine's locale.conf there, which the units do not say",
    "/environment/LISTEN_PIDFDID": "from v255 on",
    "/environment/FDSTORE": "from v254 on",
}


def differs_on_purpose(key: str, theirs: object, ours: object) -> bool:
    if key == "/left/.":
        return ours is None  # the folder was made, too
    if key == "/environment/LISTEN_FDNAMES":
        return theirs == "connection"  # whatever the FileDescriptorName=, before v254
    return key in NOT_COMPARED


def units(pairs: Mapping[str, Pair], ports: Mapping[str, int], folder: Path) -> dict[str, str]:
    """The files, by name."""
    found = {}
    for name, pair in pairs.items():
        service = f"[Service]\nExecStart=probe {name}\n{pair.service}\n"
        texts = {
            f"{name}.socket": f"[Socket]\n{pair.socket}\n",
            **{key: text or service for key, text in pair.more.items()},
        }
        if "Service=" not in pair.socket:
            texts[f"{name}@.service" if "Accept=" in pair.socket else f"{name}.service"] = service
        for key, text in texts.items():
            text = text.replace("FOLDER", f"{TOP}/{name}").replace("PORT", str(ports[name]))
            found[key] = text.replace("MANAGER", str(folder))
    return found


class Activator(NamedTuple):
    """Whoever has made all sockets, and how to end it."""

    pid: int
    end: Callable[[], object]


def systemd(manager: Manager) -> Activator:
    sockets = [f"{name}.socket" for name in PAIRS]
    manager.systemctl("start", *sockets)
    return Activator(manager.pid, lambda: manager.systemctl("stop", *sockets, "*.service"))


def socket_activate(manager: Manager) -> Activator:
    files = [f"/run/units/{name}.socket" for name in PAIRS]
    with open(manager.folder / "console", "ab") as console:
        process = manager.popen(
            *("nsenter", "-t", "1", "-i", "--", "env", "container=test", "socket-activate", "--clean-env", *files),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )

    def end() -> None:
        manager.kill(process, signal.SIGTERM)
        assert process.wait(LIMIT) == 0

    def listens() -> bool:
        assert process.poll() is None, manager.log[-1000:]
        return f"listening on {TOP}/{list(PAIRS)[-1]}/a.sk" in manager.log

    try:
        manager.wait_for(listens, "all sockets listen")
        return Activator(children(process.pid)[0], end)
    except BaseException:
        process.kill()
        process.wait()
        raise


def nodes(folder: Path) -> dict[str, object]:
    """What there is in the file system, and whose it is."""
    found: dict[str, object] = {}
    for node in sorted([folder, *folder.rglob("*")] if folder.exists() else []):
        status = node.lstat()
        link = os.readlink(node) if node.is_symlink() else ""
        found[str(node.relative_to(folder))] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, link)
    return found


def seen(manager: Manager, activate: Callable[[Manager], Activator], ports: Mapping[str, int]) -> dict[str, Any]:
    """What the services and the clients of all pairs see."""
    reports, top = manager.folder / "reports", manager.path(TOP)
    for folder in (reports, top):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    reports.chmod(0o777)
    activator = activate(manager)
    found: dict[str, Any] = {}
    try:
        for name, pair in PAIRS.items():
            report = reports / name.partition("@")[0]
            found[name] = {}
            try:
                client = pair.client(Place(manager, top / name, ports[name], activator.pid))
                manager.wait_for(report.exists, f"{name} has reported", PATIENCE)
            except OSError as error:  # of one pair, and no reason to learn nothing of the others
                found[name] = {"failed": error}
            else:
                found[name] = {"client": client, "nodes": nodes(top / name), **json.loads(report.read_text())}
    finally:
        activator.end()
        print(manager.log)
    for name, pair in PAIRS.items():
        if "RemoveOnStop=" in pair.socket:
            found[name]["left"] = nodes(top / name)
    return found


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What is seen of all pairs under both."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("pairs") / "manager"
    ports = {name: free_port() for name in PAIRS}
    with Manager(folder, units(PAIRS, ports, folder)) as manager:
        manager.add_program("probe", PROBE.replace("{reports!r}", repr(str(folder / "reports"))))
        manager.add_program("send-message", SEND)
        (folder / "environment").write_text("TWO=file\nTHREE='a b' # c\n")
        for top in ("/var/lib", "/var/cache"):
            manager.run("mount", "-t", "tmpfs", "none", top)
        for name in ("alias.socket", "alias.service"):
            (folder / "units" / name).unlink()
        (folder / "units" / "alias.socket").symlink_to("of-alias.socket")
        manager.systemctl("daemon-reload")
        (folder / "of-the-manager").write_text("WATCHDOG_PID=7\nWATCHDOG_USEC=8\n")
        yield seen(manager, systemd, ports), seen(manager, socket_activate, ports)


def flat(view: object, name: str = "") -> dict[str, object]:
    """Each thing seen by a name of its own, for messages that tell what differs."""
    if not isinstance(view, dict):
        return {name: view}
    return {inner: value for key, found in view.items() for inner, value in flat(found, f"{name}/{key}").items()}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_the_same_to_its_service_and_its_clients(
    views: tuple[dict[str, Any], dict[str, Any]], name: str
) -> None:
    theirs, ours = (flat(view[name]) for view in views)
    assert "/failed" not in theirs, theirs
    differ = {key: (theirs.get(key), ours.get(key)) for key in theirs | ours if theirs.get(key) != ours.get(key)}
    wrong = {key: values for key, values in differ.items() if not differs_on_purpose(key, *values)}
    assert not wrong, "\n".join(f"{key}: {there!r} there, {here!r} here" for key, (there, here) in wrong.items())
