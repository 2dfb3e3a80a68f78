from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import signal
import socket
import stat
import struct
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from activation_cmd.common import leftovers, message_queue
from activation_cmd.socket_activate.sockets.descriptors import OPENERS
from activation_cmd.socket_activate.sockets.making import MadeSockets, resolve
from activation_cmd.socket_activate.sockets.options import (
    AF_NETLINK,
    IP_FREEBIND,
    IP_PKTINFO,
    IPV6_FREEBIND,
    SO_BINDTODEVICE,
    SO_PASSCRED,
    SO_PASSPIDFD,
    SO_PASSRIGHTS,
    SO_TIMESTAMP,
    SO_TIMESTAMPNS,
)
from activation_cmd.socket_activate.units.listens import NETLINK_FAMILIES
from activation_cmd.socket_activate.units.model import Listen, SocketUnit

from tests.children import no_leak

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from activation_cmd.socket_activate.sockets.making import Made

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def queue() -> Iterator[str]:
    """The name of a message queue that is not there, before and after."""
    name = f"/activation-{uuid.uuid4()}"
    yield name
    with pytest.raises(FileNotFoundError):
        message_queue.unlink(name)


def unit(*lines: tuple[str, object], **directives: Any) -> SocketUnit:
    listen = [Listen(kind, str(text), f"a.socket:{number}") for number, (kind, text) in enumerate(lines, 2)]  # type: ignore[arg-type]
    return SocketUnit(name="a.socket", listen=listen, **directives)


def opened(made: Made) -> socket.socket:
    """The socket, through a descriptor of its own."""
    return socket.socket(fileno=os.dup(made.descriptor))


def mode(path: object) -> int:
    return stat.S_IMODE(os.lstat(str(path)).st_mode)


# What each line opens.

SOCKETS = [
    ("stream", "{folder}/a.sk", socket.AF_UNIX, socket.SOCK_STREAM),
    ("datagram", "{folder}/a.sk", socket.AF_UNIX, socket.SOCK_DGRAM),
    ("seqpacket", "{folder}/a.sk", socket.AF_UNIX, socket.SOCK_SEQPACKET),
    ("stream", "@{folder}", socket.AF_UNIX, socket.SOCK_STREAM),
    ("datagram", "@{folder}", socket.AF_UNIX, socket.SOCK_DGRAM),
    ("seqpacket", "@{folder}", socket.AF_UNIX, socket.SOCK_SEQPACKET),
    ("stream", "0", socket.AF_INET6, socket.SOCK_STREAM),
    ("datagram", "0", socket.AF_INET6, socket.SOCK_DGRAM),
    ("stream", "127.0.0.1:0", socket.AF_INET, socket.SOCK_STREAM),
    ("datagram", "127.0.0.1:0", socket.AF_INET, socket.SOCK_DGRAM),
    ("stream", "[::1]:0", socket.AF_INET6, socket.SOCK_STREAM),
    ("datagram", "[::1]:0", socket.AF_INET6, socket.SOCK_DGRAM),
    ("netlink", "route 1361", AF_NETLINK, socket.SOCK_RAW),
    ("netlink", "kobject-uevent", AF_NETLINK, socket.SOCK_RAW),
]


@pytest.mark.parametrize(("kind", "text", "family", "type_"), SOCKETS)
def test_a_line_is_a_socket_that_listens(tmp_path: Path, kind: str, text: str, family: int, type_: int) -> None:
    with no_leak(), MadeSockets() as sockets:
        (made,) = sockets.make(unit((kind, text.format(folder=tmp_path))))
        with opened(made) as sock:
            assert (sock.family, sock.type) == (family, type_)
            listens = type_ in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == listens
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert made.fileno() == made.descriptor
        assert not os.get_inheritable(made.descriptor)
        assert os.get_blocking(made.descriptor)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.may_skip
@pytest.mark.parametrize("text", ["vsock::4294967295", "vsock:4294967295:4294967295"])
def test_a_vsock_line_is_a_listener_on_whichever_number_the_machine_has(text: str) -> None:
    try:
        socket.socket(socket.AF_VSOCK).close()
    except OSError:
        pytest.skip("the kernel has no vsock")
    with no_leak(), MadeSockets() as sockets:
        (made,) = sockets.make(unit(("stream", text)))
        with opened(made) as sock:
            assert sock.getsockname()[0] == socket.VMADDR_CID_ANY
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_bare_port_is_for_both_kinds_of_addresses() -> None:
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("stream", "0")))
        with opened(made) as sock:
            port = sock.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()


def test_a_link_local_address_has_its_interface_last() -> None:
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("stream", "[fe80::1]:0%lo"), free_bind=True))
        with opened(made) as sock:
            assert sock.getsockname()[3] == socket.if_nametoindex("lo")


@pytest.mark.parametrize("kind", ["stream", "datagram"])
@pytest.mark.parametrize("interface", ["lo", str(socket.if_nametoindex("lo"))])
def test_any_v6_address_may_have_an_interface(kind: str, interface: str) -> None:
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit((kind, f"[::1]:0%{interface}")))
        with opened(made) as sock:
            assert sock.getsockname()[0] == "::1"


def test_an_interface_means_nothing_to_v4() -> None:
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("stream", "127.0.0.1:0%lo")))
        with opened(made) as sock:
            assert sock.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("directives", "number", "value"),
    [({"pass_pidfd": True}, SO_PASSPIDFD, 1), ({"accept_file_descriptors": False}, SO_PASSRIGHTS, 0)],
    ids=["PassPIDFD=yes", "AcceptFileDescriptors=no"],
)
@pytest.mark.may_skip
def test_what_comes_with_messages_is_an_option(
    tmp_path: Path, directives: dict[str, Any], number: int, value: int
) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, number, value)
        except OSError:
            pytest.skip("this kernel has no such option")
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("stream", tmp_path / "a.sk"), **directives))
        with opened(made) as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, number) == value


def test_netlink_groups_are_joined() -> None:
    with MadeSockets() as sockets:
        by_name, by_number = sockets.make(unit(("netlink", "route 1361"), ("netlink", "15 1")))
        for made, groups in ((by_name, 1361), (by_number, 1)):
            with opened(made) as sock:
                assert sock.getsockname()[1] == groups
    assert NETLINK_FAMILIES["audit"] == 9


def test_a_fifo_keeps_what_is_written_until_somebody_reads(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    with no_leak(), MadeSockets() as sockets:
        (made,) = sockets.make(unit(("fifo", path), socket_mode=0o620))
        assert path.is_fifo()
        assert mode(path) == 0o620
        path.write_bytes(b"first")
        path.write_bytes(b" second")
        assert os.read(made.descriptor, 100) == b"first second"
        flags = fcntl.fcntl(made.descriptor, fcntl.F_GETFL)
        assert flags & (os.O_ACCMODE | os.O_NONBLOCK) == os.O_RDWR
    assert not path.exists()


def test_a_fifo_that_is_there_is_taken_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path, 0o600)
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("fifo", path)))
        assert os.fstat(made.descriptor).st_ino == path.stat().st_ino
        assert mode(path) == 0o666
    assert path.is_fifo()


@pytest.mark.parametrize("path", ["/proc/self/mounts", "/dev/random", "/dev/ptmx"])
def test_a_special_file_is_open_for_reading(path: str) -> None:
    with no_leak(), MadeSockets() as sockets:
        (made,) = sockets.make(unit(("special", path)))
        assert fcntl.fcntl(made.descriptor, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK) == os.O_RDONLY
        assert os.path.samestat(os.fstat(made.descriptor), os.stat(path))


def test_a_message_queue_has_its_mode_and_size(queue: str) -> None:
    with no_leak(), MadeSockets() as sockets:
        (made,) = sockets.make(
            unit(("mqueue", queue), socket_mode=0o600, message_queue_max_messages=3, message_queue_message_size=100)
        )
        assert stat.S_IMODE(os.fstat(made.descriptor).st_mode) == 0o600
        assert fcntl.fcntl(made.descriptor, fcntl.F_GETFL) & (os.O_ACCMODE | os.O_NONBLOCK) == os.O_RDONLY
        attributes = (ctypes.c_long * 8)()
        assert message_queue.library().mq_getattr(made.descriptor, attributes) == 0
        assert attributes[1:4] == [3, 100, 0]


def test_a_message_queue_that_is_there_is_taken_and_stays(queue: str) -> None:
    descriptor = message_queue.open(queue, os.O_CREAT | os.O_RDWR, 0o600)
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("mqueue", queue)))
        assert os.path.samestat(os.fstat(made.descriptor), os.fstat(descriptor))
    message_queue.unlink(queue)
    os.close(descriptor)


def test_every_kind_of_line_can_be_opened_in_one_unit_and_order_is_kept(tmp_path: Path, queue: str) -> None:
    lines = [
        ("mqueue", queue),
        ("netlink", "route"),
        ("fifo", tmp_path / "fifo"),
        ("seqpacket", tmp_path / "c.sk"),
        ("special", "/dev/random"),
        ("datagram", tmp_path / "b.sk"),
        ("stream", tmp_path / "a.sk"),
    ]
    assert {kind for kind, _ in lines} == set(OPENERS)
    with no_leak(), MadeSockets() as sockets:
        all_made = sockets.make(unit(*lines, descriptor_names=["queue", "", "pipe"]))
        assert [made.kind for made in all_made] == [kind for kind, _ in lines]
        assert [made.name for made in all_made] == ["queue", "", "pipe", "", "", "", ""]


def test_only_what_listens_is_accepted(tmp_path: Path) -> None:
    lines = [("stream", tmp_path / "a"), ("seqpacket", tmp_path / "b"), ("datagram", tmp_path / "c")]
    with MadeSockets() as sockets:
        assert [made.accept for made in sockets.make(unit(*lines, accept=True))] == [True, True, False]
    with MadeSockets() as sockets:
        assert not any(made.accept for made in sockets.make(unit(*lines)))


# Directives, seen on the real thing.

UNIX, TCP, UDP, TCP4 = (
    ("stream", "{folder}/a.sk"),
    ("stream", "[::1]:0"),
    ("datagram", "[::1]:0"),
    ("stream", "127.1:0"),
)
NETLINK = ("netlink", "route")
OPTIONS = [
    ("keep_alive", socket.SOL_SOCKET, socket.SO_KEEPALIVE, [UNIX, TCP, TCP4, UDP, NETLINK]),
    ("no_delay", socket.IPPROTO_TCP, socket.TCP_NODELAY, [TCP, TCP4]),
    ("reuse_port", socket.SOL_SOCKET, socket.SO_REUSEPORT, [TCP, TCP4, UDP]),
    ("pass_credentials", socket.SOL_SOCKET, SO_PASSCRED, [UNIX, NETLINK]),
    ("free_bind", socket.IPPROTO_IPV6, IPV6_FREEBIND, [TCP, UDP]),
    ("free_bind", socket.IPPROTO_IP, IP_FREEBIND, [TCP4]),
]


@pytest.mark.parametrize(
    ("attribute", "level", "option", "line"),
    [(attribute, level, option, line) for attribute, level, option, lines in OPTIONS for line in lines],
)
def test_a_directive_sets_its_option(
    tmp_path: Path, attribute: str, level: int, option: int, line: tuple[str, str]
) -> None:
    line = (line[0], line[1].format(folder=tmp_path))
    for wanted in (True, False):
        with MadeSockets() as sockets:
            (made,) = sockets.make(unit(line, **{attribute: wanted}))
            with opened(made) as sock:
                assert sock.getsockopt(level, option) == wanted


@pytest.mark.parametrize("line", [TCP, TCP4])
def test_a_directive_gives_its_option_a_value(line: tuple[str, str]) -> None:
    level, ttl = (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if line == TCP else (socket.IPPROTO_IP, socket.IP_TTL)
    directives = {"keep_alive_time": 60, "keep_alive_interval": 7, "keep_alive_probes": 3, "ip_ttl": 9, "ip_tos": 16}
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(line, **directives, tcp_congestion="reno", bind_to_device="lo", defer_accept=2))
        with opened(made) as sock:
            assert sock.getsockopt(level, ttl) == 9
            assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == 16
            numbers = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [sock.getsockopt(socket.IPPROTO_TCP, number) for number in numbers] == [60, 7, 3]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
            assert sock.getsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"


@pytest.mark.parametrize(("timestamping", "number"), [("us", SO_TIMESTAMP), ("ns", SO_TIMESTAMPNS)])
def test_datagrams_come_with_their_time_and_where_they_went(timestamping: str, number: int) -> None:
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("datagram", "127.0.0.1:0"), timestamping=timestamping, pass_packet_info=True))
        with opened(made) as sock, socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"x", sock.getsockname())
            _, ancillary, _, _ = sock.recvmsg(1, 1000)
            assert {(level, kind) for level, kind, _ in ancillary} == {
                (socket.SOL_SOCKET, number),
                (socket.IPPROTO_IP, IP_PKTINFO),
            }


def test_what_cannot_be_set_is_told_and_no_reason_not_to_listen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [TCP4, ("fifo", tmp_path / "fifo")]
    with MadeSockets() as sockets:
        sockets.make(unit(*lines, tcp_congestion="none-such", ip_ttl=1000, send_buffer=1 << 40, pipe_size=1 << 40))
    said = capfd.readouterr().err.splitlines()
    start = "socket-activate: a.socket: "
    assert said[:3] == [
        f"{start}IPTTL=1000 cannot be set: Invalid argument",
        f"{start}TCPCongestion=none-such cannot be set: No such file or directory",
        f"{start}SendBuffer={1 << 40} cannot be set: Numerical result out of range",
    ]
    assert [line.partition(" cannot be set: ")[0] for line in said[3:]] == [f"{start}PipeSize={1 << 40}"]


def test_a_device_that_is_not_there_is_an_error() -> None:
    words = r"a\.socket:2: cannot listen .* BindToDevice=none-such: No such device"
    with MadeSockets() as sockets, pytest.raises(OSError, match=words):
        sockets.make(unit(TCP4, bind_to_device="none-such"))


def test_a_pipe_has_its_size_and_a_special_file_can_be_written(tmp_path: Path) -> None:
    lines = [("fifo", tmp_path / "fifo"), ("special", "/dev/random")]
    with MadeSockets() as sockets:
        pipe, device = sockets.make(unit(*lines, pipe_size=200_000, writable=True))
        assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) == 1 << 18
        assert fcntl.fcntl(device, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def test_directives_that_a_socket_cannot_have_do_not_matter_to_it(tmp_path: Path, queue: str) -> None:
    lines = [(kind, text.format(folder=tmp_path)) for kind, text in (UNIX, TCP4, UDP, NETLINK)]
    with MadeSockets() as sockets:
        sockets.make(
            unit(
                *lines,
                ("fifo", tmp_path / "fifo"),
                ("special", "/dev/random"),
                ("mqueue", queue),
                **{attribute: True for attribute, *_ in OPTIONS},
                bind_ipv6_only="ipv6-only",
                receive_buffer=10000,
            )
        )


@pytest.mark.parametrize(("value", "only"), [("both", 0), ("ipv6-only", 1)])
def test_an_ipv6_socket_can_be_told_whether_to_take_ipv4(value: str, only: int) -> None:
    with MadeSockets() as sockets:
        for made in sockets.make(unit(("stream", "0"), ("datagram", "[::]:0"), bind_ipv6_only=value)):
            with opened(made) as sock:
                assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == only


def test_by_default_an_ipv6_socket_is_as_the_kernel_says() -> None:
    with open("/proc/sys/net/ipv6/bindv6only") as file:
        only = int(file.read())
    with MadeSockets() as sockets:
        for made in sockets.make(unit(("stream", "0"), ("stream", "[::]:0"))):
            with opened(made) as sock:
                assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == only


def test_an_address_that_the_machine_does_not_have_can_be_bound_freely() -> None:
    lines = [("stream", "192.0.2.1:0"), ("stream", "[2001:db8::1]:0")]
    for line in lines:
        with MadeSockets() as sockets, pytest.raises(OSError, match=r"a\.socket:2: cannot listen on .*assign"):
            sockets.make(unit(line))
    with MadeSockets() as sockets:
        assert len(sockets.make(unit(*lines, free_bind=True))) == 2


def test_two_units_can_share_a_port() -> None:
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("stream", "127.0.0.1:0"), reuse_port=True))
        with opened(made) as sock:
            address = "{}:{}".format(*sock.getsockname())
        sockets.make(unit(("stream", address), reuse_port=True))
        with pytest.raises(OSError, match="in use"):
            sockets.make(unit(("stream", address)))


def test_the_backlog_is_the_queues_length() -> None:
    with MadeSockets() as sockets:
        (made,) = sockets.make(unit(("stream", "127.0.0.1:0"), backlog=17))
        with opened(made) as sock:
            assert struct.unpack_from("6I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 8)[5] == 17


def test_buffers_have_their_size(tmp_path: Path) -> None:
    lines = [("stream", "127.0.0.1:0"), ("datagram", tmp_path / "a.sk"), NETLINK]
    with MadeSockets() as sockets:
        for made in sockets.make(unit(*lines, receive_buffer=10000, send_buffer=20000)):
            with opened(made) as sock:  # the kernel doubles them for its own needs
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 20000
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 40000


def test_a_backlog_of_more_than_the_kernel_can_take_is_as_much_as_it_can() -> None:
    with MadeSockets() as sockets:
        sockets.make(unit(TCP4, backlog=1 << 32))


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_are_exact_whatever_the_umask(tmp_path: Path, queue: str, umask: int) -> None:
    lines = [("stream", tmp_path / "new" / "er" / "a.sk"), ("fifo", tmp_path / "new" / "fifo"), ("mqueue", queue)]
    before = os.umask(umask)
    try:
        with MadeSockets() as sockets:
            all_made = sockets.make(unit(*lines, socket_mode=0o646, directory_mode=0o751))
            assert mode(lines[0][1]) == mode(lines[1][1]) == 0o646
            assert stat.S_IMODE(os.fstat(all_made[2].descriptor).st_mode) == 0o646
            assert mode(tmp_path / "new") == mode(tmp_path / "new" / "er") == 0o751
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("name", ["nobody", str(NOBODY.pw_uid)])
def test_a_user_gets_the_nodes_and_comes_with_its_group(tmp_path: Path, name: str) -> None:
    paths = [tmp_path / "a.sk", tmp_path / "fifo"]
    lines = [("stream", paths[0]), ("fifo", paths[1]), ("stream", f"@{tmp_path}")]
    with MadeSockets() as sockets:
        sockets.make(unit(*lines, socket_user=name))
        assert {(path.stat().st_uid, path.stat().st_gid) for path in paths} == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    with MadeSockets() as sockets:
        sockets.make(unit(*lines, socket_group=str(NOBODY.pw_gid)))
        assert {(path.stat().st_uid, path.stat().st_gid) for path in paths} == {(os.geteuid(), NOBODY.pw_gid)}
    with MadeSockets() as sockets:
        sockets.make(unit(*lines, socket_user=name, socket_group="root"))
        assert {(path.stat().st_uid, path.stat().st_gid) for path in paths} == {(NOBODY.pw_uid, 0)}


def test_symlinks_lead_to_the_one_path(tmp_path: Path) -> None:
    links = [tmp_path / "one", tmp_path / "new" / "two"]
    links[0].symlink_to("/etc/passwd")
    for kind, path in (("stream", tmp_path / "a.sk"), ("fifo", tmp_path / "fifo")):
        with MadeSockets() as sockets:
            sockets.make(unit((kind, path), ("stream", "127.0.0.1:0"), symlinks=[str(link) for link in links]))
            assert [os.readlink(link) for link in links] == [str(path)] * 2
        assert list(tmp_path.iterdir()) == []


def test_without_remove_on_stop_everything_stays(tmp_path: Path) -> None:
    told: list[str] = []
    path, link = tmp_path / "new" / "a.sk", tmp_path / "link"
    with no_leak(), MadeSockets(lambda *it: told.append(it[0])) as sockets:
        sockets.make(unit(("stream", path), symlinks=[str(link)], remove_on_stop=False))
    assert path.is_socket()
    assert link.is_symlink()
    assert told == []
    with MadeSockets() as sockets:
        sockets.make(unit(("stream", path)))  # it is nobody's now


def test_what_others_put_in_its_place_or_into_its_folder_is_not_removed(tmp_path: Path) -> None:
    path, fifo, folder = tmp_path / "a.sk", tmp_path / "fifo", tmp_path / "new"
    with MadeSockets() as sockets:
        sockets.make(unit(("stream", path), ("fifo", fifo), ("stream", folder / "b.sk")))
        for ours in (path, fifo):
            ours.unlink()
        path.write_text("mine")
        os.mkfifo(fifo)
        (folder / "pid").touch()
    assert path.read_text() == "mine"
    assert fifo.is_fifo()
    assert [left.name for left in folder.iterdir()] == ["pid"]


# Side by side with others.


@pytest.mark.parametrize("kind", ["stream", "datagram", "seqpacket"])
@pytest.mark.parametrize("theirs", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_path_in_use_is_refused_without_a_word_to_its_owner(tmp_path: Path, kind: str, theirs: int) -> None:
    path = tmp_path / "a.sk"
    with socket.socket(socket.AF_UNIX, theirs) as owner:
        owner.bind(str(path))
        with no_leak(), MadeSockets() as sockets, pytest.raises(OSError, match="in use by another process"):
            sockets.make(unit((kind, path)))
        if theirs != socket.SOCK_DGRAM:
            owner.listen()
            with no_leak(), MadeSockets() as sockets, pytest.raises(OSError, match="in use by another process"):
                sockets.make(unit((kind, path)))
        owner.setblocking(False)
        with pytest.raises(BlockingIOError):
            owner.accept() if theirs != socket.SOCK_DGRAM else owner.recv(1)
    with MadeSockets() as sockets:
        sockets.make(unit((kind, path)))  # left behind


def test_what_was_made_before_a_failure_is_taken_back(tmp_path: Path, queue: str) -> None:
    lines = [
        ("mqueue", queue),
        ("stream", tmp_path / "new" / "a.sk"),
        ("fifo", tmp_path / "fifo"),
        ("stream", "127.0.0.1:0"),
        ("stream", "/dev/null/b.sk"),
    ]
    for remove in (True, False):
        with no_leak(), MadeSockets() as sockets:
            (kept,) = sockets.make(unit(("stream", tmp_path / "kept.sk")))
            with pytest.raises(OSError, match=r"a\.socket:6: cannot listen on /dev/null/b\.sk: .*Not a directory"):
                sockets.make(unit(*lines, symlinks=[str(tmp_path / "link")], remove_on_stop=remove))
            assert [left.name for left in tmp_path.iterdir()] == ["kept.sk"]
            os.fstat(kept.descriptor)


BAD_LINES = [
    ("stream", "1:2:3", ValueError, "'1:2:3' is no address; expected"),
    ("stream", "70000", ValueError, "port 70000; expected 0 to 65535"),
    ("stream", "localhost:80", ValueError, "'localhost:80' has no number for its host.*expected v4:port"),
    ("stream", "[fe80::1]:80%surely-not", OSError, "there is no network interface surely-not"),
    ("stream", "[::1]:80%surely-not", OSError, "there is no network interface surely-not"),
    ("stream", "{folder}/" + "x" * 120, OSError, "cannot listen on .*: AF_UNIX path too long"),
    ("stream", "{folder}/a\0b", ValueError, "has a null character"),
    ("stream", "{folder}/file", FileExistsError, "cannot listen on .*: it exists and is no socket"),
    ("stream", "{folder}", FileExistsError, "it exists and is no socket"),
    ("seqpacket", "127.0.0.1:0", ValueError, "no sequential packets; expected a path or @abstract"),
    ("fifo", "{folder}/file", FileExistsError, "it exists and is no FIFO"),
    ("fifo", "{folder}/file/a", NotADirectoryError, "Not a directory"),
    ("special", "{folder}/none", FileNotFoundError, "cannot listen on .*/none: No such file"),
    ("special", "{folder}", ValueError, "no special file; expected a character device"),
    ("special", "/dev/null", PermissionError, "nobody can wait until it can be read; expected a file that epoll"),
    ("special", "{folder}/file", PermissionError, "expected a file that epoll"),
    ("netlink", "rout 1", ValueError, "expected a netlink family and perhaps a group"),
    ("netlink", "300", OSError, "cannot listen on 300: Protocol not supported"),
    ("mqueue", "/" + "x" * 300, OSError, "cannot listen on .*: File name too long"),
]


@pytest.mark.parametrize(("kind", "text", "error", "words"), BAD_LINES)
def test_a_bad_line_is_told_with_its_place_and_leaves_nothing(
    tmp_path: Path, kind: str, text: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "file").touch()
    with no_leak(), MadeSockets() as sockets, pytest.raises(error, match=rf"a\.socket:3: .*{words}"):
        sockets.make(unit(("stream", tmp_path / "before.sk"), (kind, text.format(folder=tmp_path))))
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


BAD_DIRECTIVES = [
    ({"socket_user": "surely-nobody"}, ValueError, r"a\.socket: SocketUser=surely-nobody: there is no such user"),
    ({"socket_group": "4294967294"}, ValueError, r"a\.socket: SocketGroup=4294967294: there is no such group"),
    ({"symlinks": ["{folder}/file"]}, FileExistsError, r"a\.socket: cannot make the symlink .*/file: File exists"),
    ({"symlinks": ["{folder}/file/link"]}, NotADirectoryError, "Not a directory"),
]


@pytest.mark.parametrize(("directives", "error", "words"), BAD_DIRECTIVES)
def test_a_bad_directive_is_told_and_leaves_nothing(
    tmp_path: Path, queue: str, directives: dict[str, Any], error: type[Exception], words: str
) -> None:
    (tmp_path / "file").touch()
    if "symlinks" in directives:
        directives = {"symlinks": [link.format(folder=tmp_path) for link in directives["symlinks"]]}
    with no_leak(), MadeSockets() as sockets, pytest.raises(error, match=words):
        sockets.make(unit(("stream", tmp_path / "new" / "before.sk"), ("mqueue", queue), **directives))
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("lines", [[("stream", "127.0.0.1:0")], [("stream", "{folder}/a"), ("fifo", "{folder}/b")]])
def test_symlinks_need_exactly_one_path(tmp_path: Path, lines: list[tuple[str, str]]) -> None:
    lines = [(kind, text.format(folder=tmp_path)) for kind, text in lines]
    with no_leak(), MadeSockets() as sockets, pytest.raises(ValueError, match="to point to; expected exactly one"):
        sockets.make(unit(*lines, symlinks=[str(tmp_path / "link")]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_a_fifo_or_a_queue_of_somebody_else_is_not_trusted(tmp_path: Path, queue: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    os.chown(fifo, NOBODY.pw_uid, -1)
    descriptor = message_queue.open(queue, os.O_CREAT | os.O_RDWR, 0o600)
    os.fchown(descriptor, NOBODY.pw_uid, -1)
    for line in (("fifo", fifo), ("mqueue", queue)):
        with no_leak(), MadeSockets() as sockets, pytest.raises(FileExistsError, match="it exists and belongs to"):
            sockets.make(unit(line))
    with MadeSockets() as sockets:
        sockets.make(unit(("fifo", fifo), socket_user="nobody"))
    message_queue.unlink(queue)
    os.close(descriptor)


def test_names_of_hosts_are_looked_up_before() -> None:
    looked_up = resolve(Listen("stream", "localhost:80", "-l"))
    assert looked_up.text in ("127.0.0.1:80", "[::1]:80")
    for text in ("80", "[::1]:80", "[fe80::1]:80%lo", "@a", "/a:b", "vsock::1"):
        assert resolve(Listen("datagram", text, "-l")).text == text
    assert resolve(Listen("netlink", "route 1", "-l")).text == "route 1"
    with pytest.raises(OSError, match=r"-l: cannot listen on surely\.invalid:80: "):
        resolve(Listen("stream", "surely.invalid:80", "-l"))
    with pytest.raises(ValueError, match="-l: 'a:b' is no address"):
        resolve(Listen("stream", "a:b", "-l"))


# After a death that leaves no time to remove anything.

DIES = """
import os, signal, sys
from activation_cmd.socket_activate.sockets.making import MadeSockets
from activation_cmd.socket_activate.units.listens import NETLINK_FAMILIES
from activation_cmd.socket_activate.units.model import Listen, SocketUnit

folder, queue = sys.argv[1:]
lines = ("stream", "/a.sk"), ("datagram", "/b.sk"), ("seqpacket", "/new/er/c.sk"), ("fifo", "/fifo")
listen = [Listen(kind, folder + path, "") for kind, path in lines] + [Listen("mqueue", queue, "")]
sockets = MadeSockets(lambda *it: print(*it, sep="\\t", flush=True))
sockets.make(SocketUnit(name="a.socket", listen=listen))
sockets.make(SocketUnit(name="b.socket", listen=[Listen("stream", folder + "/d.sk", "")], symlinks=[folder + "/link"]))
os.kill(os.getpid(), signal.SIGKILL)
"""


def dead(*arguments: str) -> list[list[str]]:
    """What a process announced, that made something and was killed."""
    done = subprocess.run([sys.executable, "-c", DIES, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    return [line.split("\t") for line in done.stdout.splitlines()]


def test_what_was_announced_can_be_removed_when_its_maker_was_killed(tmp_path: Path, queue: str) -> None:
    told = dead(str(tmp_path), queue)
    assert {path for _, path, made in told if not made} == {path for _, path, made in told if made}
    assert {"a.sk", "b.sk", "d.sk", "fifo", "link", "new"} == {left.name for left in tmp_path.iterdir()}
    for kind, path, made in reversed(told):
        leftovers.remove_stale(kind, path, made)
        leftovers.remove_stale(kind, path, made)
    assert list(tmp_path.iterdir()) == []


def test_what_is_somebody_elses_by_now_is_not_removed(tmp_path: Path, queue: str) -> None:
    told = dead(str(tmp_path), queue)
    for name in ("a.sk", "fifo", "link"):
        (tmp_path / name).rename(tmp_path / f"old-{name}")  # so that nothing new can have its inode number
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "a.sk"))
        for kind, path, made in reversed(told):
            leftovers.remove_stale(kind, path, made)
            leftovers.remove_stale(kind, path, "")
    assert {"a.sk", "fifo", "link"} < {left.name for left in tmp_path.iterdir()}


def test_of_what_was_not_finished_only_a_dead_socket_is_removed(tmp_path: Path) -> None:
    path, fifo = tmp_path / "a.sk", tmp_path / "fifo"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        leftovers.remove_stale(leftovers.SOCKET, str(path), "")
        assert path.is_socket()
    for kind, left in ((leftovers.SOCKET, path), (leftovers.FIFO, fifo), (leftovers.SOCKET, fifo)):
        leftovers.remove_stale(kind, str(left), "")
    assert not path.exists()
    assert fifo.is_fifo()


def test_the_guardians_half_loads_little() -> None:
    code = "import sys, activation_cmd.common.leftovers; print(*{'trio', 'attr', 'ctypes'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == ""
