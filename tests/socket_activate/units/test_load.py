from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from activation_cmd.socket_activate.units.environment import read_environment_files
from activation_cmd.socket_activate.units.load import load
from activation_cmd.socket_activate.units.model import Command, EnvironmentFile, Listen, Pair, ServiceUnit, SocketUnit
from activation_cmd.socket_activate.units.names import UnitName
from hypothesis import given
from hypothesis import strategies as st

from tests.children import no_leak

if TYPE_CHECKING:
    from collections.abc import Mapping

    from activation_cmd.socket_activate.units.syntax import Problem

SOCKET = "[Socket]\nListenStream=/run/a\n"
SERVICE = "[Service]\nExecStart=true\n"
UNITS = Path(__file__).parents[3] / "units"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(units: Mapping[str, str | bytes]) -> None:
    for name, text in units.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(text.encode() if isinstance(text, str) else text)


def pair(units: Mapping[str, str], path: str = "a.socket", problems: list[str] | None = None) -> Pair:
    """The one pair of these units; what is to be said about them."""
    write(units)
    pairs, said = load([path])
    assert list(map(message, said)) == (problems or [])
    (found,) = pairs
    return found


def message(problem: Problem) -> str:
    return f"{problem.level}: {problem.where}: {problem.message}"


def errors(units: Mapping[str, str], *paths: str) -> list[str]:
    """What is wrong with these units, none of which can run."""
    write(units)
    pairs, said = load(paths or ["a.socket"])
    assert not pairs
    return [message(problem).removeprefix("error: ") for problem in said if problem.level == "error"]


def test_a_socket_and_its_service_have_the_defaults_of_systemd() -> None:
    found = pair({"a.socket": SOCKET, "a.service": SERVICE})
    assert found.socket == SocketUnit(
        name="a.socket",
        listen=[Listen("stream", "/run/a", "a.socket:2")],
        descriptor_names=["a.socket"],
        service="a.service",
    )
    command = Command(program="true", arguments=["true"], where="a.service:2")
    assert found.service == ServiceUnit(name="a.service", exec_start=command)
    assert found.instance is None


def test_all_settings_of_a_socket_are_read() -> None:
    text = """[Socket]
        ListenStream=gone
        ListenStream=
        ListenStream=@%p
        ListenDatagram=80
        ListenSequentialPacket=/run/%N
        ListenFIFO=/run/fifo
        ListenSpecial=/dev/null
        ListenNetlink=route 1
        ListenMessageQueue=/queue
        SocketMode=0600
        DirectoryMode=0700
        SocketUser=root
        SocketGroup=0
        Backlog=4294967295
        BindIPv6Only=both
        FreeBind=yes
        ReusePort=on
        NoDelay=true
        KeepAlive=1
        PassCredentials=t
        KeepAliveTimeSec=1min 1ms
        KeepAliveIntervalSec=5
        KeepAliveProbes=3
        DeferAcceptSec=infinity
        Broadcast=yes
        PassSecurity=yes
        PassPacketInfo=yes
        Timestamping=usec
        Priority=5
        Mark=0x10
        IPTOS=low-cost
        IPTTL=9
        TCPCongestion=reno
        Transparent=yes
        BindToDevice=lo
        PipeSize=4K
        Writable=yes
        MaxConnectionsPerSource=3
        ReceiveBuffer=64K
        SendBuffer=1M
        MessageQueueMaxMessages=5
        MessageQueueMessageSize=100
        RemoveOnStop=no
        FileDescriptorName=web
        MaxConnections=7
        TriggerLimitIntervalSec=1min
        TriggerLimitBurst=9
        FlushPending=yes
        SocketProtocol=mptcp
        Service=b.service
        """.replace("ListenStream=gone", "ListenStream=/gone")
    kinds = ["stream", "datagram", "seqpacket", "fifo", "special", "netlink", "mqueue"]
    texts = ["@a", "80", "/run/a", "/run/fifo", "/dev/null", "route 1", "/queue"]
    assert pair({"a.socket": text, "b.service": SERVICE}).socket == SocketUnit(
        name="a.socket",
        listen=[Listen(*each, f"a.socket:{line}") for line, each in enumerate(zip(kinds, texts, strict=True), 4)],  # type: ignore[arg-type]
        socket_mode=0o600,
        directory_mode=0o700,
        socket_user="root",
        socket_group="0",
        backlog=4294967295,
        bind_ipv6_only="both",
        free_bind=True,
        reuse_port=True,
        no_delay=True,
        keep_alive=True,
        pass_credentials=True,
        keep_alive_time=60,
        keep_alive_interval=5,
        keep_alive_probes=3,
        defer_accept=2147483648,
        broadcast=True,
        pass_security=True,
        pass_packet_info=True,
        timestamping="us",
        priority=5,
        mark=16,
        ip_tos=2,
        ip_ttl=9,
        tcp_congestion="reno",
        transparent=True,
        bind_to_device="lo",
        pipe_size=4096,
        writable=True,
        max_connections_per_source=3,
        receive_buffer=65536,
        send_buffer=1 << 20,
        message_queue_max_messages=5,
        message_queue_message_size=100,
        remove_on_stop=False,
        descriptor_names=["web"] * 7,
        max_connections=7,
        trigger_limit_interval=60.0,
        trigger_limit_burst=9,
        flush_pending=True,
        protocol="mptcp",
        service="b.service",
    )


def test_all_settings_of_a_service_are_read() -> None:
    text = """[Unit]
        Description=About %n
        StartLimitIntervalSec=1min
        [Service]
        StartLimitBurst=3
        Type=notify-reload
        ExecStart=@/bin/x zero "a b" $A
        ExecReload=kill -HUP $MAINPID ; -true
        ExecReload=true
        Environment=A=b "C=d e" U=%n A=again
        EnvironmentFile=-/etc/default/%p
        EnvironmentFile=/etc/b
        WorkingDirectory=-/srv
        User=root
        Group=0
        StandardInput=socket
        StandardError=null
        Restart=on-failure
        RestartSec=infinity
        TimeoutSec=5
        TimeoutStartSec=0
        TimeoutAbortSec=7
        TimeoutStartFailureMode=abort
        TimeoutStopFailureMode=kill
        RuntimeMaxSec=1h
        RuntimeRandomizedExtraSec=1min
        RestartPreventExitStatus=3 SIGKILL
        RestartForceExitStatus=TEMPFAIL
        SuccessExitStatus=1
        SuccessExitStatus=
        SuccessExitStatus=4 USR1
        SuccessExitStatus=5
        PassEnvironment=TERM %p
        UnsetEnvironment=LANG "A=b c"
        NonBlocking=yes
        WatchdogSignal=QUIT
        KillSignal=INT
        WatchdogSec=500ms
        NotifyAccess=exec
        FileDescriptorStoreMax=8
        FileDescriptorStorePreserve=yes
        ExecStartPre=true
        KillMode=mixed
        SupplementaryGroups=root 0
        UMask=0077
        Sockets=a.socket
        RuntimeDirectory=%p one/two:three
        RuntimeDirectoryMode=0700
        RuntimeDirectoryPreserve=restart
        ConfigurationDirectory=four/
        """
    assert pair({"a.socket": SOCKET, "a.service": text}).service == ServiceUnit(
        name="a.service",
        type="notify-reload",
        exec_start=Command(program="/bin/x", arguments=["zero", "a b", "$A"], where="a.service:7"),
        exec_reload=[
            Command(program="kill", arguments=["kill", "-HUP", "$MAINPID"], where="a.service:8"),
            Command(program="true", arguments=["true"], ignore_failure=True, where="a.service:8"),
            Command(program="true", arguments=["true"], where="a.service:9"),
        ],
        environment={"A": "again", "C": "d e", "U": "a.service"},
        environment_files=[EnvironmentFile("/etc/default/a", optional=True), EnvironmentFile("/etc/b", optional=False)],
        working_directory="/srv",
        working_directory_optional=True,
        user="root",
        group="0",
        standard_input="socket",
        standard_output="socket",
        standard_error="null",
        restart="on-failure",
        restart_sec=None,
        start_limit_interval=60.0,
        start_limit_burst=3,
        timeout_start=None,
        timeout_stop=5.0,
        timeout_abort=7.0,
        timeout_start_failure_mode="abort",
        timeout_stop_failure_mode="kill",
        runtime_max=3600.0,
        runtime_randomized_extra=60.0,
        restart_prevented=[3, -signal.SIGKILL],
        restart_forced=[75],
        success_statuses=[4, -signal.SIGUSR1, 5],
        pass_environment=["TERM", "a"],
        unset_environment=["LANG", "A=b c"],
        non_blocking=True,
        watchdog_signal=signal.SIGQUIT,
        kill_signal=signal.SIGINT,
        watchdog=0.5,
        notify_access="exec",
        store_maximum=8,
        store_preserve="yes",
        exec_start_pre=[Command(program="true", arguments=["true"], where="a.service:42")],
        kill_mode="mixed",
        supplementary_groups=["root", "0"],
        umask=0o077,
        sockets=[UnitName("a", None, "socket")],
        runtime_directory=["a", "one/two:three"],
        runtime_directory_mode=0o700,
        runtime_directory_preserve="restart",
        configuration_directory=["four"],
    )


@pytest.mark.parametrize("text", ["Type=notify", "Type=notify-reload", "WatchdogSec=1", "FileDescriptorStoreMax=1"])
def test_who_has_to_notify_may(text: str) -> None:
    assert pair({"a.socket": SOCKET, "a.service": f"{SERVICE}{text}\n"}).service.notify_access == "main"


def test_with_accept_a_template_makes_the_service_of_each_connection() -> None:
    found = pair({"a.socket": SOCKET + "Accept=yes\n", "a@.service": "[Service]\nExecStart=true %i %I\n"})
    assert found.socket.accept
    assert found.socket.service == "a@.service"
    assert found.socket.descriptor_names == ["connection"]
    assert found.socket.trigger_limit_burst == 200
    assert found.instance is not None
    service = found.instance("5-1-2")
    assert service.name == "a@5-1-2.service"
    assert service.exec_start.arguments == ["true", "5-1-2", "5/1/2"]
    with pytest.raises(ValueError, match="expected a unit's name"):
        found.instance("a b")
    with pytest.raises(ValueError, match=r"^a@.service:2: ExecStart= is .*nothing that %I could stand for"):
        found.instance(r"\x")


def test_an_instance_comes_of_a_template() -> None:
    units = {"a@.socket": "[Socket]\nListenStream=/run/%i\n", "a@.service": "[Service]\nExecStart=true %n\n"}
    found = pair(units, "a@x.socket")
    assert (found.socket.name, found.socket.service) == ("a@x.socket", "a@x.service")
    assert [each.text for each in found.socket.listen] == ["/run/x"]
    assert found.service.exec_start.arguments == ["true", "a@x.service"]
    assert found.service.exec_start.where == "a@.service:2"
    own = pair({"a@x.service": "[Service]\nExecStart=false\n"}, "a@x.socket")
    assert own.service.exec_start.program == "false"


def test_an_alias_in_the_same_folder_is_the_unit_that_it_leads_to() -> None:
    write(
        {
            "b.service": "[Service]\nExecStart=true %n\n",
            "a.socket": SOCKET,
            "a.service.d/x.conf": "[Service]\nEnvironment=A=1\n",
            "b.service.d/y.conf": "[Service]\nEnvironment=B=1\n",
            "b.socket": "[Socket]\nListenStream=/run/%n\n",
        }
    )
    os.symlink("b.service", "a.service")
    os.symlink("b.socket", "c.socket")
    found = pair({}).service
    assert (found.name, found.exec_start.arguments) == ("b.service", ["true", "b.service"])
    assert found.environment == {"A": "1", "B": "1"}
    pairs, problems = load(["c.socket", "a.socket", "b.socket"])
    assert [each.socket.name for each in pairs] == ["b.socket", "a.socket"]
    assert pairs[0].service is pairs[1].service
    assert [each.text for each in pairs[0].socket.listen] == ["/run/b.socket"]
    assert list(map(message, problems)) == ["warning: b.socket: is listed twice"]


def test_what_belongs_to_a_linked_unit_lies_beside_the_link_or_where_it_leads() -> None:
    os.makedirs("wants")
    write({"lib/a.socket": SOCKET, "lib/a.service": SERVICE, "lib/t@.socket": SOCKET, "lib/t@.service": SERVICE})
    write({"lib/a.service.d/x.conf": "[Service]\nEnvironment=A=1\n"})
    os.symlink("../lib/a.socket", "wants/a.socket")
    os.symlink("../lib/t@.socket", "wants/t@1.socket")
    found = pair({}, "wants/a.socket")
    assert found.service.exec_start.where == "lib/a.service:2" or found.service.exec_start.where.endswith("a.service:2")
    assert found.service.environment == {"A": "1"}
    assert pair({}, "wants/t@1.socket").service.name == "t@1.service"
    # A file of another name elsewhere has the link's name.
    write({"lib/other.socket": SOCKET, "wants/b.service": SERVICE})
    os.symlink("../lib/other.socket", "wants/b.socket")
    assert pair({}, "wants/b.socket").service.name == "b.service"


def test_drop_ins_come_after_the_unit_by_their_names_and_the_most_specific_hides_others() -> None:
    def drop_in(value: str) -> str:
        return f"[Service]\nEnvironment=LAST={value} {value}=1\n"

    units = {
        "a-b@x.socket": SOCKET,
        "a-b@.service": SERVICE + "Environment=LAST=unit\n",
        "a-b@x.service.d/5.conf": drop_in("own5"),
        "a-b@.service.d/5.conf": drop_in("template5"),
        "a-@.service.d/6.conf": drop_in("prefix6"),
        "service.d/7.conf": drop_in("all7"),
        "a-b@x.service.d/1.conf": drop_in("own1"),
        "a-b@x.service.d/9.txt": drop_in("none"),
        "a-b@x.socket.d/1.conf": "[Socket]\nListenStream=\nListenStream=/run/b\n",
    }
    found = pair(units, "a-b@x.socket")
    assert list(found.service.environment) == ["LAST", "own1", "own5", "prefix6", "all7"]
    assert found.service.environment["LAST"] == "all7"
    assert found.socket.listen == [Listen("stream", "/run/b", "a-b@x.socket.d/1.conf:3")]


def test_two_sockets_of_one_service_share_it() -> None:
    other = "[Socket]\nListenStream=/run/b\nService=a.service\n"
    write({"a.socket": SOCKET, "b.socket": other, "a.service": SERVICE + "Nonsense=1\n"})
    pairs, problems = load(["a.socket", "b.socket", "a.socket"])
    assert len(pairs) == 2
    assert pairs[0].service is pairs[1].service
    assert [message(each).partition(";")[0] for each in problems] == [
        "warning: a.service:3: Nonsense= is not known in [Service] and passed over",
        "warning: a.socket: is listed twice",
    ]


def test_what_is_not_done_here_is_named_once_for_each_file() -> None:
    service = "[Unit]\nAfter=b\nAfter=c\n[Service]\nExecStart=true\nPrivateTmp=yes\nStandardOutput=journal\n"
    pair(
        {
            "a.socket": SOCKET + "SmackLabel=1\n[Install]\nWantedBy=x\n",
            "a.service": service,
            "service.d/a.conf": SERVICE[:9],
        },
        problems=[
            "note: a.socket:3: not done here, passed over from this line on: SmackLabel=",
            "note: a.service:2: not done here, passed over from this line on: After=, PrivateTmp=",
        ],
    )


def test_what_cannot_be_unset_is_a_warning() -> None:
    why = "LISTEN_FDNAMES cannot be unset here, for it is set last of all"
    found = pair(
        {"a.socket": SOCKET, "a.service": f"{SERVICE}UnsetEnvironment=A LISTEN_FDNAMES\n"},
        problems=[f"warning: a.service:3: UnsetEnvironment= is 'A LISTEN_FDNAMES': {why}"],
    )
    assert found.service.unset_environment == ["A", "LISTEN_FDNAMES"]


def test_what_is_not_known_is_a_warning_with_a_guess() -> None:
    service = (
        "[Service]\nExecStart=true '\\d'\nExceStart=x\nNonsense=1\nNonsense=2\nStartLimitIntervalSec=1\n"
        "X-Own=1\n[X-Own]\na=b\n[Servce]\na=b\nc=d\n[Install]\nWanted=x\n"
    )
    escape = r"\d is no escape and stays as it is; expected \\ for a backslash"
    elsewhere = "is not known in [Service] and passed over; it belongs in [Unit]"
    pair(
        {"a.socket": SOCKET, "a.service": service},
        problems=[
            rf"""warning: a.service:2: ExecStart= is "true '\\d'": {escape}""",
            "warning: a.service:3: ExceStart= is not known in [Service] and passed over; is ExecStart= meant?",
            "warning: a.service:4: Nonsense= is not known in [Service] and passed over",
            f"warning: a.service:6: StartLimitIntervalSec= {elsewhere}",
            "warning: a.service:11: [Servce] is passed over; expected [Unit], [Service], [Install]",
            "warning: a.service:14: Wanted= is not known in [Install] and passed over; is WantedBy= meant?",
        ],
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("SocketMode=9", "SocketMode= is '9': expected an access mode in octal such as 0660"),
        ("NoDelay=", "NoDelay= is '': expected yes or no"),
        ("ListenFIFO=a", "ListenFIFO= is 'a': expected a path from /"),
        ("ListenStream=%Z", "ListenStream= is '%Z': %Z is no specifier; expected %% for a percent sign"),
        ("Service=a", "Service= is 'a': expected a unit's name"),
        ("Service=a.socket", "Service= is 'a.socket': expected the name of a service such as foobar.service"),
        ("FileDescriptorName=a:b", "FileDescriptorName= is 'a:b': expected a name in ASCII without a colon"),
        ("IPTOS=high", "IPTOS= is 'high': expected low-delay, throughput, reliability, low-cost or a number up to 255"),
        ("BindToDevice=a/b", "BindToDevice= is 'a/b': expected the name of a network interface such as eth0"),
        ("Mark=x", "Mark= is 'x': expected a whole number such as 5 or 0x10, up to 2147483647, or -1 for none"),
        ("Timestamping=ms", "Timestamping= is 'ms': expected off, us or ns"),
        ("Symlinks=/a b", "Symlinks= is '/a b': expected a path from /"),
        ("Symlinks=/a\nListenFIFO=/b", "Symlinks= with 2 sockets or FIFOs with a path; expected one"),
        ("word", "'word' is no assignment; expected Key=value"),
    ],
)
def test_what_is_wrong_in_a_socket_is_an_error_with_its_line(line: str, error: str) -> None:
    (found,) = errors({"a.socket": f"{SOCKET}{line}\n", "a.service": SERVICE})
    assert found.startswith(f"a.socket:3: {error}")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ListenDatagram=80", "4: Accept=yes and what has no connections; expected ListenStream= or Accept=no"),
        ("ListenFIFO=/f", "4: Accept=yes and what has no connections; expected ListenStream= or Accept=no"),
        ("Service=a@b.service", "4: Service= and Accept=yes; expected Accept=no, or a template of the same name"),
        ("MaxConnections=0", "4: MaxConnections= is '0': expected 1 at least"),
    ],
)
def test_what_does_not_go_with_accept_is_an_error(line: str, error: str) -> None:
    (found,) = errors({"a.socket": f"{SOCKET}Accept=yes\n{line}\n", "a@.service": SERVICE})
    assert found == f"a.socket:{error}"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("Type=forking", "Type= is 'forking': it is not done here; expected simple, exec, notify or notify-reload"),
        ("Type=smple", "Type= is 'smple': expected simple, exec, notify or notify-reload"),
        ("ExecStart=false", "has 2 commands to start; expected exactly one, in ExecStart="),
        ("ExecStart='", """ExecStart= is "'": expected another ' that closes the quotation"""),
        ("Environment=A", "Environment= is 'A': 'A' is no variable; expected NAME=value"),
        ("EnvironmentFile=a", "EnvironmentFile= is 'a': expected a path from /"),
        ("WorkingDirectory=a", "WorkingDirectory= is 'a': expected a path from /"),
        ("StandardInput=std", "StandardInput= is 'std': expected null, socket, fd:NAME or file:PATH"),
        ("Restart=yes", "Restart= is 'yes': expected no, always, on-success, on-failure"),
        ("KillSignal=SIGTREM", "KillSignal= is 'SIGTREM': expected a signal such as SIGTERM, TERM or 15"),
        ("SuccessExitStatus=1 256", "SuccessExitStatus= is '1 256': '256' is none; expected exit statuses such as 3"),
        ("PassEnvironment=A=b", "PassEnvironment= is 'A=b': 'A=b' is no variable's name; expected names such as PATH"),
        ("UnsetEnvironment=1", "UnsetEnvironment= is '1': '1' is no variable's name"),
        ("TimeoutSec=soon", "TimeoutSec= is 'soon': expected a time such as 5"),
        ("A=\n[B", "'[B' is no section; expected [Socket] or the like"),
    ],
)
def test_what_is_wrong_in_a_service_is_an_error_with_its_line(line: str, error: str) -> None:
    (found,) = errors({"a.socket": SOCKET, "a.service": f"{SERVICE}{line}\n"})
    assert found.startswith(f"a.service:{3 + line.count(chr(10))}: {error}")


def test_a_service_is_needed_and_something_to_start_and_something_to_listen_on() -> None:
    there_is_none = "there is no such file; a.socket is for it; expected it next to that"
    assert errors({"a.socket": SOCKET}) == [f"a.service: {there_is_none}, or another in Service="]
    assert errors({"a.socket": SOCKET + "Accept=yes\n"}) == [f"a@.service: {there_is_none}"]
    assert errors({"a.socket": "[Socket]\n", "a.service": "[Service]\n"}) == [
        "a.socket: has nothing to listen on; expected ListenStream= or another Listen...=",
        "a.service: has no commands to start; expected exactly one, in ExecStart=",
    ]


def test_a_path_that_is_no_socket_unit_is_an_error() -> None:
    os.mkdir("folder.socket")
    os.mkfifo("fifo.socket")
    os.symlink("loop.socket", "loop.socket")
    os.symlink("/dev/null", "null.socket")
    no_unit = (
        r"cannot be a unit; expected a unit's name: letters, digits and :-_.\ with one @ at most before an instance, "
        "and a type such as .service; 255 characters at most"
    )
    no_start = (
        "is no unit to start; expected a file such as foobar.socket, foobar@instance.socket or foobar@instance.service"
    )
    paths = ["no.socket", "folder.socket", "fifo.socket", "loop.socket", "null.socket", "empty.socket"]
    others = ["a.service", "a@.socket", "a@.service", "a.target", "a b.socket", "a\0.socket", ""]
    assert errors({"empty.socket": ""}, *paths, *others) == [
        "no.socket: there is no such file; expected the path of a socket unit",
        "folder.socket: is no file; expected a file with text",
        "fifo.socket: is no file; expected a file with text",
        "loop.socket: cannot be read: Too many levels of symbolic links",
        "null.socket: is a link to /dev/null: the unit is masked, which keeps it from being started",
        "empty.socket: is empty: the unit is masked, which keeps it from being started",
        "a.service: there is no such file; expected the path of a service unit",
        f"a@.socket: {no_start}",
        f"a@.service: {no_start}",
        f"a.target: {no_start}",
        f"a b.socket: {no_unit}",
        f"a\0.socket: {no_unit}",
        f": {no_unit}",
    ]


def test_units_of_one_name_cannot_run_side_by_side() -> None:
    write({"b/a.socket": SOCKET, "b/a.service": SERVICE, "a.socket": SOCKET, "a.service": SERVICE})
    pairs, problems = load(["a.socket", "b/a.socket"])
    assert len(pairs) == 1
    assert [message(each) for each in problems] == [
        "error: b/a.socket: is another a.socket than a.socket; expected one unit of each name"
    ]


def test_a_drop_in_that_cannot_be_read_is_an_error() -> None:
    os.makedirs("a.socket.d/a.conf")
    os.symlink("gone", "a.socket.d/b.conf")
    assert errors({"a.socket": SOCKET, "a.service": SERVICE}) == [
        "a.socket.d/a.conf: is no file; expected a file with text",
        "a.socket.d/b.conf: cannot be read: No such file or directory",
    ]


@pytest.mark.parametrize("name", ["foobar.socket", "foobar-accept.socket", "foobar-inet.socket"])
def test_the_units_of_this_project_can_be_read(name: str) -> None:
    pairs, problems = load([str(UNITS / name)])
    assert [each.service.exec_start.program for each in pairs] == ["foobard"]
    assert {each.level for each in problems} == {"note"}


def test_environment_files_are_read_in_order_and_may_have_wildcards(folder: Path) -> None:
    write({"1.env": "A=1\nB=1\n", "2.env": "B=2\n"})
    assert read_environment_files([EnvironmentFile(f"{folder}/*.env", optional=False)]) == {"A": "1", "B": "2"}
    assert read_environment_files([EnvironmentFile(f"{folder}/no*", optional=True)]) == {}
    with pytest.raises(FileNotFoundError):
        read_environment_files([EnvironmentFile(f"{folder}/no*", optional=False)])


FRAGMENTS = """\
[Socket]|[Service]|[Unit]|[Install]|[Un|ListenStream=/a|ListenFIFO=|Accept=yes|Service=a.service|Symlinks=/a|#|\\
ExecStart=true|ExecStart=|ExecStart='|ExecStart=a ; b|Type=notify|WatchdogSec=1|Environment=A=b|Environment=%i|\0|\ufeff
StandardInput=socket|MaxConnections=0|KillMode=x|Nonsense=1""".replace("\n", "|").split("|")
LINES = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text())).map("\n".join)


@given(socket=LINES, service=LINES, drop_in=LINES)
def test_load_raises_nothing_whatever_the_text(socket: str, service: str, drop_in: str) -> None:
    units = {"a.socket": "[Socket]\n" + socket, "a.service": "[Service]\n" + service, "a@.service": service}
    texts = {name: text.encode("utf-8", "replace") for name, text in (units | {"socket.d/a.conf": drop_in}).items()}
    write(texts)
    pairs, problems = load(["a.socket"])
    assert bool(pairs) != any(problem.level == "error" for problem in problems)
    assert all(problem.message and problem.where for problem in problems)
    assert all("\n" not in problem.message for problem in problems)


@given(st.binary(), st.binary())
def test_load_raises_nothing_whatever_the_bytes(socket: bytes, service: bytes) -> None:
    write({"a.socket": b"[Socket]\nListenStream=" + socket, "a.service": b"[Service]\nExecStart=" + service})
    load(["a.socket"])


def test_no_descriptor_stays_open() -> None:
    write({"a.socket": SOCKET, "a.service": SERVICE})
    with no_leak():
        load(["a.socket", "b.socket"])


@pytest.mark.parametrize(
    ("socket", "service"),
    [
        ("BindIPv6Only=nonsense\nBindIPv6Only=yes\nListenStream=nonsense\nListenStream=\nListenStream=80\n", ""),
        ("", "Type=forking\nType=simple\nUser=surely-nobody\nUser=root\n"),
        ("", "Environment=nonsense\nEnvironment=\nTimeoutStartSec=nonsense\nTimeoutSec=5\n"),
        ("PrivateNetwork=yes\nPrivateNetwork=no\n", "StandardInput=data\nStandardInput=null\n"),
    ],
)
def test_only_the_value_that_counts_is_judged(socket: str, service: str) -> None:
    pair({"a.socket": SOCKET + socket, "a.service": SERVICE + service})


def test_what_counts_may_be_in_a_drop_in() -> None:
    found = pair(
        {
            "a.socket": SOCKET,
            "a.service": f"{SERVICE}Type=forking\nUser=surely-nobody\nTimeoutStopSec=7\nTimeoutSec=9\n",
            "a.service.d/x.conf": "[Service]\nType=exec\nUser=\nTimeoutStartSec=8\n",
        }
    ).service
    assert (found.type, found.user, found.timeout_start, found.timeout_stop) == ("exec", "", 8.0, 9.0)


def test_kill_mode_none_is_advised_against() -> None:
    text = "KillMode= is 'none': systemd advises against it; the main process is ended, as with process"
    units = {"a.socket": SOCKET, "a.service": f"{SERVICE}KillMode=none\n"}
    assert pair(units, problems=[f"warning: a.service:3: {text}"]).service.kill_mode == "process"


def test_dynamic_user_alone_is_a_note() -> None:
    text = "DynamicUser= is not done here: the service runs as the user that socket-activate runs as"
    units = {"a.socket": SOCKET, "a.service": f"{SERVICE}DynamicUser=yes\n"}
    pair(units, problems=[f"note: a.service:3: {text}"])
    pair({"a.service": f"{SERVICE}DynamicUser=yes\nUser=root\n"})


def test_sockets_that_a_service_names_are_read_too() -> None:
    units = {
        "a.socket": SOCKET,
        "a.service": f"{SERVICE}Sockets=a.socket b.socket\n",
        "b.socket": "[Socket]\nListenStream=/run/b\nService=a.service\n",
    }
    write(units)
    pairs, problems = load(["a.socket"])
    assert not problems
    assert [each.socket.name for each in pairs] == ["a.socket", "b.socket"]
    assert pairs[0].service is pairs[1].service
    os.remove("b.socket")
    assert [message(each) for each in load(["a.socket"])[1]] == [
        "warning: a.service:3: Sockets= names b.socket, which is not there; the service goes without it"
    ]


@pytest.mark.parametrize(
    ("one", "other", "goes"),
    [
        ("ListenStream=/run/a", "ListenStream=/run/a", False),
        ("ListenStream=/run/a", "ListenFIFO=/run/a", False),
        ("ListenStream=80", "ListenStream=80", False),
        ("ListenStream=80", "ListenDatagram=80", True),
        ("ListenStream=80\nReusePort=yes", "ListenStream=80\nReusePort=yes", True),
        ("ListenStream=80\nReusePort=yes", "ListenStream=80", False),
        ("ListenFIFO=/run/a", "ListenFIFO=/run/a", True),
        ("ListenSpecial=/dev/null", "ListenSpecial=/dev/null", True),
    ],
)
def test_two_units_listen_on_different_addresses(one: str, other: str, goes: bool) -> None:
    write({"a.socket": f"[Socket]\n{one}\n", "b.socket": f"[Socket]\n{other}\nService=a.service\n"})
    write({"a.service": SERVICE})
    pairs, problems = load(["a.socket", "b.socket"])
    assert [each.socket.name for each in pairs] == (["a.socket", "b.socket"] if goes else ["a.socket"])
    assert bool(problems) != goes
    assert all("is listed twice; a.socket:2 has it already" in each.message for each in problems)
