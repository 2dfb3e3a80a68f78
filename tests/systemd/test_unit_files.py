"""The same unit files, read by a real systemd and by socket-activate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from activation_cmd.socket_activate.units import listens, values
from activation_cmd.socket_activate.units.command_lines import expand
from activation_cmd.socket_activate.units.environment import read_environment_files
from activation_cmd.socket_activate.units.load import load
from activation_cmd.socket_activate.units.results import EXIT_STATUSES, status

from .manager import Manager, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from activation_cmd.socket_activate.units.model import Pair

# One worker runs all services, and compares them.
pytestmark = pytest.mark.xdist_group("unit files")

# A shell that reads a script keeps the arguments and the environment that it was started with where they can be read.
TELL = "cat /proc/$$/cmdline\nprintf 'ENVIRONMENT\\0'\ncat /proc/$$/environ\nprintf END\n"

VARIABLES = r"""
Environment="ONE=one" 'TWO=two two' "QUOTED='a b' \"c d\" e" EMPTY= "BACK=a\\\\ b\\\\"
Environment=SPACES="  a   b  " OPEN="'a b"
"""

LINES = [
    # quotes
    "sh TELL a  b\tc",
    "sh TELL 'a b' \"c d\" '' \"\" 'it''s'",
    "sh TELL one'two three'four \"a\"b",
    "sh TELL 'a \"b\" c' \"a 'b' c\"",
    # escapes
    r"sh TELL \x41\102\u00e4\U0001f600 a\sb a\tb 'a\nb' \\ \" \'",
    r"sh TELL \303\244 \xc3\xa4 a\ b",
    r"sh TELL \d+ '\.' \x4g \400 \x00 \u0000 \ud800 end",
    r"sh TELL \x24ONE \x24{ONE} \x25n \x20 '\x27'",
    "sh TELL a\\ ",
    # semicolons
    r"sh TELL \; a;b ';' a\; ;",
    "; sh TELL after",
    # specifiers
    "sh TELL %n %N %p %i- %% %%n 100% %- %: '% n'",
    "sh TELL %t %S %C %L %E %T %V %u %U %g %G %h %H %l %b %v %a %o %w",
    "sh TELL '%P' %I- %f %j %J %B- %W- %M- %A-",
    # variables
    "sh TELL $ONE $TWO $EMPTY $NONE ${ONE} ${TWO} ${EMPTY} ${NONE}",
    "sh TELL a$ONE a${ONE}b $ONE/b ${ONE}${TWO} '$TWO' \"${TWO}\"",
    "sh TELL $$ $$ONE $${ONE} a$$b $$$ $ a$ ${ONE ${} ${ONE:-x} ${ONE${TWO}} $ONE$TWO",
    "sh TELL $QUOTED ${QUOTED} $BACK ${BACK} $SPACES ${SPACES} $OPEN",
    # prefixes
    ":sh TELL $ONE ${ONE} $$",
    "@sh zero TELL a",
    "@/bin/sh ${TWO} TELL a",
    "-+:/bin/sh TELL $ONE",
    "!!-@/bin/sh %n TELL",
    "/bin//sh TELL a",
    "/bin/../bin/./sh TELL",
    "\"sh\" TELL 'a'",
    # continued lines
    "sh TELL a \\\n  b\\\n# a comment\n  ; another\nc \\\n\nEnvironment=A=b",
    "sh TELL 'a \\\n    b' \\\\\nEnvironment=A=b",
    "sh \\\n\tTELL a",
    "\nExecStart=sh TELL empty and again",
    "nothing\nExecStart=\nExecStart=sh TELL again",
]

# Each § is a space at the end of a line.
ENVIRONMENT_FILE = r"""
# comment
; comment
A=plain
 B = spaces around  and in §§
C='single "quoted" \n'
D="double 'quoted' \" \\ \$ \` \n"
E='two
lines'
F="two\
lines in one"
G=two\
 lines
H=a"b"c'd'
I="a" 'b'  c
J="a"b"c"
K=\a\\b\§
L=
M=''
N=x=y
export O=p
0P=q
no assignment
 A A=b
	Q=	tab	§
R=$A ${B}
A=again
S='end""".replace("§", " ")

SPANS = """\
5|0|1.5|.5|2min 200ms|2min200ms|1h 30m|1d|1w|1M|1month|1y|2 h|2hours|48hr|1y 12month|55s500ms|300ms20s 5day|5us|5usec
5µs|infinity|1 2|+3|1.|-1|5 foo|5foo|1.2.3|1,5|0x10|∞|5 infinity|infinity 5|1e3|99999999999999999999s|1.0000001|1m1|5S
7 minutes|3 seconds|3 second|1 msec|1  sec\t2   min""".replace("\n", "|").split("|")
SIZES = """\
1|4096|64K|1M|2G|1.5K|0.5M|64 K|64k|-1|K|1KK|1Ki|0|1e3|12B|1M 512K|1M512K|512K 1M|1K 1K|1M 5|1M 5B|5 5|1G 1M 1K 1|10.M
+5|1M  512 K|.5M|1.5M 1.5K|16E|15E 1K|0x10""".replace("\n", "|").split("|")
MODES = ["0660", "660", "0", "7777", "00600", "10000", "8", "0o600", "rw", "-1", "0x1"]
SIGNALS = [
    "SIGTERM",
    "TERM",
    "9",
    "SIGKILL",
    "USR1",
    "SIGRTMIN+3",
    "RTMIN+3",
    "SIGRTMAX-2",
    "RTMIN",
    "64",
    "65",
    "0",
    "term",
    "SIGFOO",
    "-1",
    "SIG",
]
BOOLEANS = ["yes", "no", "true", "FALSE", "On", "off", "1", "0", "y", "N", "t", "f", "maybe", "2", "yess"]
NUMBERS = [
    "5",
    "0",
    "4294967295",
    "4294967296",
    "-1",
    "x",
    "1.5",
    "0x10",
    "010",
    "09",
    "+5",
    "0b101",
    "0o17",
    "-0",
    "0o",
    "0b",
]
BIND = ["default", "both", "ipv6-only", "yes", "no", "true", "0", "on", "maybe", ""]
MARKS, TYPES_OF_SERVICE, TIMESTAMPS, DEVICES, STATUSES = (
    line.split("|")
    for line in """\
0|010|09|5|0x10|0XfF|2147483647|2147483648|0x7fffffff|0x80000000|x|0x|1.5|5 a|-1|-5|-0x10|-2147483648|+3|0b11
low-delay|throughput|reliability|low-cost|Low-cost|high|0|32|255|256|0x10|010|09|-1|-7
off|us|ns|usec|nsec|µs|yes|no|TRUE|0|ms|NS
lo|*|a/b|a:b|a%%b|a b|.|..|5|all|default|ä|-a|aaaaaaaaaaaaaaa|aaaaaaaaaaaaaaaa|eth0.5
3|0|255|256|007|010|008|0x|0x3|-1|1.5|TEMPFAIL|tempfail|SUCCESS FAILURE|1 SIGKILL 75|KILL|SIGRTMIN+3|CONFIG 200|'3' "4"
""".splitlines()
)
LONG = "/" + "a" * 106  # with the end, as long as a Unix socket's path may be
ADDRESSES = """\
/run/a|@a|2000|0|080|65535|65536|127.0.0.1:80|127.0.0.1:|127.0.0.1:0|1.2.3:4|1.2.3.4:080|1.2.3.4:80%%lo|80%%lo
[::1]:80|::1:80|[::1]|[127.0.0.1]:80|[fe80::1]:80%%lo|[fe80::1%%lo]:80|localhost:80|:80|a b|run/a|/run/a b|@|/|@a b
vsock:2:1234|vsock::1234|vsock:x:1|vsock:1:x|vsock:4294967295:1|vsock:4294967296:1""".replace("\n", "|").split("|")
ADDRESSES += [LONG, f"{LONG}a", f"@{LONG[:-1]}", f"@{LONG}"]

# Of a socket and of a service, and whether a manager takes both.
PAIRS = {
    "ListenDatagram=@p\nAccept=yes": False,
    "ListenStream=@p\nListenFIFO=/run/p\nAccept=yes": False,
    "Accept=no": False,
    "ListenStream=@p\nListenFIFO=/run/p\nListenDatagram=": False,
    "ListenStream=@p\nListenStream=\nListenFIFO=/run/p": True,
    "ListenStream=@p\nSymlinks=/run/a": False,
    "ListenStream=/run/p\nListenFIFO=/run/q\nSymlinks=/run/a": False,
    "ListenStream=/run/p\nListenSpecial=/dev/null\nSymlinks=/run/a /run/b": True,
    "ListenStream=/run/p\nListenStream=@p\nSymlinks=/run/a": True,
    "ListenMessageQueue=/q\nSymlinks=/run/a": False,
    "ListenStream=@p\nSymlinks=/run/a\nSymlinks=": True,
    "ListenStream=@p\n[Service]": True,
    "ListenStream=@p\n[X-Own]\nno=matter": True,
}
SERVICES = {
    "ExecStart=true": True,
    "ExecStart=true\nExecStart=true": False,
    "ExecStart=true ; true": False,
    "ExecStart=true ;": True,
    "": False,
    "ExecReload=true": False,
    "ExecStart=true\nExecStart=": False,
    "ExecStart=a/b": False,
    "ExecStart=/": False,
    "ExecStart=/bin/": False,
    "ExecStart=-": False,
    "ExecStart=@true": False,
    "ExecStart=true 'a": False,
    "ExecStart=true %z": False,
    "ExecStart=tr\\x09ue": False,
    "[Service": False,
}
PROPERTIES = (
    "NotifyAccess StandardInput StandardOutput StandardError TimeoutStartUSec TimeoutStopUSec TimeoutAbortUSec "
    "RuntimeMaxUSec"
)
SHOWN = [
    "",
    "Type=notify",
    "Type=notify NotifyAccess=none",
    "Type=notify NotifyAccess=all",
    "WatchdogSec=5",
    "WatchdogSec=0 NotifyAccess=exec",
    "FileDescriptorStoreMax=1",
    "FileDescriptorStoreMax=0",
    "StandardInput=socket",
    "StandardInput=socket StandardOutput=null",
    "StandardInput=socket StandardOutput=inherit StandardError=null",
    "StandardInput=socket StandardError=journal",
    "StandardOutput=null",
    "StandardInput=null StandardError=socket",
    "StandardInput=fd:a",
    "StandardInput=fd:a StandardOutput=null",
    "StandardInput=fd:a StandardError=null",
    "StandardInput=file:/dev/null",
    "StandardInput=file:/dev/null StandardOutput=inherit",
    "StandardOutput=fd:a",
    "StandardOutput=journal StandardError=kmsg",
    "StandardError=truncate:/dev/null",
    "TimeoutSec=5",
    "TimeoutSec=5 TimeoutStartSec=0",
    "TimeoutStartSec=0 TimeoutSec=1min",
    "TimeoutStopSec=infinity",
    "TimeoutAbortSec=7",
    "TimeoutAbortSec=7 TimeoutSec=5",
    "TimeoutAbortSec=7 TimeoutAbortSec= TimeoutStopSec=4",
    "TimeoutAbortSec=infinity RuntimeMaxSec=1min",
    "TimeoutAbortSec=0 TimeoutStopSec=4 RuntimeMaxSec=0",
    "RuntimeMaxSec=5 RuntimeMaxSec=infinity",
]

# Settings of the same unit, from many files; the later ones win, the more specific ones hide those of the same name.
DROP_INS = {
    f"a-b@i-j.service.d/{name}": f"[Service]\nEnvironment=LAST={value} {value}=1\n"
    for name, value in {"20-x.conf": "own20", "50-x.conf": "own50", "ignored": "no", ".hidden.conf": "no"}.items()
} | {
    "a-b@.service.d/20-x.conf": "[Service]\nEnvironment=LAST=template20 template20=1\n",
    "a-b@.service.d/60-x.conf": "[Service]\nEnvironment=LAST=template60 template60=1\n",
    "a-@.service.d/10-x.conf": "[Service]\nEnvironment=LAST=prefix10 prefix10=1\n",
    "a-@i-j.service.d/70-x.conf": "[Service]\nEnvironment=LAST=prefix70 prefix70=1\n",
    "a-@.service.d/70-x.conf": "[Service]\nEnvironment=hidden=1\n",
    "service.d/99-all.conf": "[Service]\nEnvironment=all=1\n",
}


def socket(name: str) -> str:
    return f"[Socket]\nListenStream=@{name}\n"


def service(folder: Path, name: str, exec_start: str, rest: str = "") -> str:
    line = exec_start.replace("TELL", f"{folder}/tell")
    return f"[Service]\n{VARIABLES}{rest}StandardOutput=truncate:{folder}/{name}.out\nExecStart={line}\n"


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    """Has run all services of the tests."""
    if reason := missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("units") / "manager"
    units = {f"line{number}.service": service(folder, f"line{number}", line) for number, line in enumerate(LINES)}
    units["file.service"] = service(folder, "file", "sh TELL", f"EnvironmentFile={folder}/environment\n")
    units["a-b@.service"] = service(folder, "a-b@i-j", "sh TELL %n %N %p %P %i %I %j %J %f")
    units |= {f"{unit.removesuffix('.service').replace('@', '@i-j')}.socket": socket(unit) for unit in units} | DROP_INS
    for number, span in enumerate(SPANS):
        units[f"span{number}.service"] = f"[Service]\nExecStart=true\nRestartSec=77s\nRestartSec={span}\n"
    for name, texts in SOCKET_VALUES.items():
        for number, text in enumerate(texts):
            units[f"{name}{number}.socket"] = socket(f"{name}{number}") + f"{name}={text}\n"
            units[f"{name}{number}.service"] = "[Service]\nExecStart=true\n"
    for number, text in enumerate(STATUSES):
        units[f"status{number}.service"] = f"[Service]\nExecStart=true\nSuccessExitStatus={text}\n"
    for number, text in enumerate(PAIRS):
        units[f"pair{number}.socket"] = f"[Socket]\n{text}\n"
        units[f"pair{number}.service"] = "[Service]\nExecStart=true\n"
    for number, text in enumerate(SERVICES):
        units |= {f"taken{number}.socket": socket(f"taken{number}"), f"taken{number}.service": f"[Service]\n{text}\n"}
    for number, text in enumerate(SHOWN):
        lines = "\n".join(["[Service]", "ExecStart=true", "StandardInput=null", *text.split()])
        named = socket(f"shown{number}") + "FileDescriptorName=a\n"
        units |= {f"shown{number}.socket": named, f"shown{number}.service": lines}
    with Manager(folder, units) as running:
        (folder / "tell").write_text(TELL)
        (folder / "environment").write_text(ENVIRONMENT_FILE)
        started = [unit for unit in units if unit.startswith(("line", "file")) and unit.endswith(".service")]
        running.systemctl("start", "a-b@i-j.service", *started, check=False)
        outputs = [folder / f"{unit.removesuffix('.service')}.out" for unit in (*started, "a-b@i-j.service")]
        running.wait_for(lambda: all(map(ended, outputs)), "all services have run")
        yield running


SOCKET_VALUES = {
    "ReceiveBuffer": SIZES,
    "SocketMode": MODES,
    "KillSignal": SIGNALS,
    "FreeBind": BOOLEANS,
    "MaxConnections": NUMBERS,
    "MaxConnectionsPerSource": NUMBERS,
    "KeepAliveProbes": NUMBERS,
    "Mark": MARKS,
    "Priority": MARKS,
    "IPTTL": MARKS,
    "BindIPv6Only": BIND,
    "IPTOS": TYPES_OF_SERVICE,
    "Timestamping": TIMESTAMPS,
    "BindToDevice": DEVICES,
    "ListenDatagram": ADDRESSES,
}


def ended(path: Path) -> bool:
    return path.exists() and path.read_bytes().endswith(b"END")


def told(manager: Manager, name: str) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment that a service got."""
    text = (manager.folder / f"{name}.out").read_text(errors="surrogateescape")
    arguments, _, environment = text.removesuffix("END").partition("ENVIRONMENT\0")
    return arguments.split("\0")[:-1], dict(entry.split("=", 1) for entry in environment.split("\0")[:-1])


def read(manager: Manager, name: str) -> Pair:
    pairs, problems = load([str(manager.folder / "units" / f"{name}.socket")])
    assert not [problem for problem in problems if problem.level == "error"]
    return pairs[0]


@pytest.fixture(autouse=True)
def of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a manager of the system, for specifiers."""
    monkeypatch.setenv("HOME", "/root")
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("number", range(len(LINES)), ids=LINES)
def test_a_command_line_gives_the_same_arguments_and_variables(manager: Manager, number: int) -> None:
    unit = read(manager, f"line{number}").service
    arguments, environment = told(manager, f"line{number}")
    assert expand(unit.exec_start, unit.environment) == arguments
    assert unit.environment.items() <= environment.items()
    assert len(unit.environment) >= 7


def test_an_environment_file_gives_the_same_variables(manager: Manager) -> None:
    ours = read_environment_files(read(manager, "file").service.environment_files)
    theirs = told(manager, "file")[1]
    assert {name: theirs.get(name) for name in ours} == ours
    assert {name for name in theirs if len(name) == 1} == set(ours)


def test_drop_ins_hold_in_the_same_order_and_the_names_of_an_instance_are_the_same(manager: Manager) -> None:
    unit = read(manager, "a-b@i-j").service
    arguments, environment = told(manager, "a-b@i-j")
    assert expand(unit.exec_start, unit.environment) == arguments
    names = {name: value for name, value in environment.items() if value == "1" or name == "LAST"}
    assert names == {name: value for name, value in unit.environment.items() if value == "1" or name == "LAST"}
    assert len(names) > 5


def ours_or(default: object, read: Callable[[str], object], text: str) -> object:
    """What we read, or a default for what is an error here and passed over there."""
    try:
        return read(text)
    except ValueError:
        return default


def test_time_spans_are_the_same(manager: Manager) -> None:
    units = [f"span{number}.service" for number in range(len(SPANS))]
    theirs = manager.systemctl("show", "--property=RestartUSec", "--value", *units).split("\n\n")
    ours = [ours_or(77.0, values.time_span, text.strip()) for text in SPANS]
    assert dict(zip(SPANS, map(values.time_span, theirs), strict=True)) == dict(zip(SPANS, ours, strict=True))
    assert math.inf in ours


def show(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def or_none(read: Callable[[str], int | None]) -> Callable[[str], object]:
    """A negative number is as good as none; systemd shows it as it is given."""

    def parse(text: str) -> object:
        found = read(text)
        return int(text, 0) if found is None else found

    return parse


def octal(text: str) -> str:
    return f"{values.mode(text):04o}"


@pytest.mark.parametrize(
    ("name", "parse", "default"),
    [
        ("ReceiveBuffer", values.size, "0"),
        ("SocketMode", octal, "0666"),
        ("KillSignal", values.signal_number, "15"),
        ("FreeBind", values.boolean, "no"),
        ("MaxConnections", values.number, "64"),
        ("MaxConnectionsPerSource", values.number, "0"),
        ("KeepAliveProbes", values.number, "0"),
        ("Mark", or_none(values.optional_number), "-1"),
        ("Priority", or_none(values.optional_number), "-1"),
        ("IPTTL", or_none(values.optional_number), "-1"),
        ("BindIPv6Only", values.bind_ipv6_only, "default"),
        ("IPTOS", or_none(values.type_of_service), "-1"),
        ("Timestamping", values.timestamping, "off"),
        ("BindToDevice", values.device, ""),
    ],
)
def test_values_are_the_same(manager: Manager, name: str, parse: Callable[[str], object], default: str) -> None:
    texts = SOCKET_VALUES[name]
    units = [f"{name}{number}.socket" for number in range(len(texts))]
    theirs = manager.systemctl("show", f"--property={name}", "--value", *units).split("\n\n")
    ours = [show(ours_or(default, parse, text)) for text in texts]
    assert dict(zip(texts, theirs, strict=True)) == dict(zip(texts, ours, strict=True))


def test_exit_statuses_have_the_same_names(manager: Manager) -> None:
    lines = manager.run("systemd-analyze", "exit-status").stdout.splitlines()[1:]
    assert {name: int(number) for name, number, _ in map(str.split, lines)} == EXIT_STATUSES


def test_exit_statuses_are_the_same(manager: Manager) -> None:
    units = [f"status{number}.service" for number in range(len(STATUSES))]
    shown = manager.systemctl("show", "--property=Id,SuccessExitStatus", *units).split("\n\n")
    theirs = [
        {status(word) for word in text.partition("SuccessExitStatus=")[2].partition("\n")[0].split()} for text in shown
    ]
    ours = [{ours_or(None, status, word) for word in text.split()} - {None} for text in STATUSES]
    assert dict(zip(STATUSES, theirs, strict=True)) == dict(zip(STATUSES, ours, strict=True))


def test_addresses_that_are_none_are_the_same(manager: Manager) -> None:
    units = [f"ListenDatagram{number}.socket" for number in range(len(ADDRESSES))]
    theirs = ["(Datagram)" in text for text in manager.systemctl("show", "--property=Listen", *units).split("\n\n")]
    ours = [ours_or("", listens.address, text.replace("%%", "%")) != "" for text in ADDRESSES]
    assert dict(zip(ADDRESSES, theirs, strict=True)) == dict(zip(ADDRESSES, ours, strict=True))


@pytest.mark.parametrize(
    ("texts", "unit"), [(PAIRS, "pair{}.socket"), (SERVICES, "taken{}.service")], ids=["sockets", "services"]
)
def test_what_is_refused_is_the_same(manager: Manager, texts: dict[str, bool], unit: str) -> None:
    units = [unit.format(number) for number in range(len(texts))]
    states = manager.systemctl("show", "--property=LoadState", "--value", *units).split("\n\n")
    sockets = [str(manager.folder / "units" / name.replace(".service", ".socket")) for name in units]
    ours = [len(load([path])[0]) == 1 for path in sockets]
    theirs = [state == "loaded" for state in states]
    assert dict(zip(texts, ours, strict=True)) == dict(zip(texts, theirs, strict=True)) == texts


@pytest.mark.parametrize("number", range(len(SHOWN)), ids=SHOWN)
def test_what_follows_from_several_settings_is_the_same(manager: Manager, number: int) -> None:
    unit = read(manager, f"shown{number}").service
    shown = manager.systemctl("show", f"--property={','.join(PROPERTIES.split())}", f"shown{number}.service")
    theirs = dict(line.split("=", 1) for line in shown.splitlines())
    assert theirs["NotifyAccess"] == unit.notify_access
    spans = {
        "TimeoutStartUSec": unit.timeout_start,
        "TimeoutStopUSec": unit.timeout_stop,
        "TimeoutAbortUSec": unit.timeout_abort,
        "RuntimeMaxUSec": unit.runtime_max,
    }
    assert {name: values.time_span(theirs[name]) for name in spans} == {
        name: math.inf if span is None else span for name, span in spans.items()
    }
    # There "inherit" is what comes before: input for output, output for errors.
    names = {"journal": "inherit", "kmsg": "inherit"}  # no journal here: it is where socket-activate's own output goes
    source = theirs["StandardInput"]
    output = source if theirs["StandardOutput"] == "inherit" else theirs["StandardOutput"]
    error = output if theirs["StandardError"] == "inherit" else theirs["StandardError"]
    ours = (unit.standard_input, unit.standard_output, unit.standard_error)
    assert [each.partition(":")[0] for each in ours] == [names.get(each, each) for each in (source, output, error)]
