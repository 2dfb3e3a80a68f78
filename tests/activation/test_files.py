from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import activation
from activation._files import VARIABLES, File
from tests.children import inode, open_descriptors, output, run_activated, tcp_listener, udp_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

SHOW = "import json; print(json.dumps([[f.name, f.fileno(), os.fstat(f.fileno()).st_ino] for f in activation.files()]))"


@pytest.fixture
def pair() -> Iterator[list[socket.socket]]:
    with tcp_listener() as first, udp_socket() as second:
        yield [first, second]


def show(passed: list[socket.socket], **env: str) -> list[list[object]]:
    shown: list[list[object]] = json.loads(output(SHOW, passed, env))
    return shown


def test_files_come_in_order_with_their_names(pair: list[socket.socket]) -> None:
    shown = show(pair, LISTEN_PID="self", LISTEN_FDS="2", LISTEN_FDNAMES="http:dns")
    assert shown == [["http", 3, inode(pair[0])], ["dns", 4, inode(pair[1])]]


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, ["LISTEN_FD_3", "LISTEN_FD_4"]),
        ("", ["LISTEN_FD_3", "LISTEN_FD_4"]),
        (":", ["LISTEN_FD_3", "LISTEN_FD_4"]),
        ("a", ["a", "LISTEN_FD_4"]),
        (":b", ["LISTEN_FD_3", "b"]),
        ("a:b:c", ["a", "b"]),
        ("same:same", ["same", "same"]),
    ],
)
def test_missing_and_empty_names_get_their_descriptors_number(
    pair: list[socket.socket], variable: str | None, names: list[str]
) -> None:
    env = {"LISTEN_PID": "self", "LISTEN_FDS": "2"}
    if variable is not None:
        env["LISTEN_FDNAMES"] = variable
    assert [row[0] for row in show(pair, **env)] == names


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"LISTEN_FDS": "2"},
        {"LISTEN_PID": "self"},
        {"LISTEN_PID": "self", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "2"},
        {"LISTEN_PID": "0", "LISTEN_FDS": "2"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "nonsense, but not for us"},
        {"LISTEN_PID": "18446744073709551615", "LISTEN_FDS": "2"},
    ],
)
def test_nothing_was_passed(pair: list[socket.socket], env: dict[str, str]) -> None:
    assert show(pair, **env) == []


@pytest.mark.parametrize("unset", [True, False])
def test_environment_is_unset_or_kept(pair: list[socket.socket], *, unset: bool) -> None:
    env = {"LISTEN_PID": "self", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "LISTEN_PIDFDID": "self"}
    left = output(
        f"activation.files({unset}); print(sorted(v for v in os.environ if v.startswith('LISTEN')))", pair, env
    )
    assert left == str([] if unset else sorted(VARIABLES))


@pytest.mark.parametrize("lie", [{"LISTEN_PID": "x"}, {"LISTEN_PID": "1"}, {"LISTEN_FDS": "-1"}])
def test_environment_is_unset_whatever_happened(lie: dict[str, str]) -> None:
    env = {"LISTEN_PID": "self", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "LISTEN_PIDFDID": "7", **lie}
    code = "try: activation.files()\nexcept activation.ActivationError: pass\nprint('LISTEN' in str(os.environ))"
    assert output(code, [0], env) == "False"


def test_a_second_call_finds_nothing_unless_the_environment_is_kept(pair: list[socket.socket]) -> None:
    assert output("print(len(activation.files()), len(activation.files()))", pair) == "2 0"
    assert output("print(len(activation.files(False)), len(activation.files()))", pair) == "2 2"


def test_descriptors_get_close_on_exec(pair: list[socket.socket]) -> None:
    code = "before = os.get_inheritable(3); activation.files(); print(before, *map(os.get_inheritable, (3, 4)))"
    assert output(code, pair) == "True False False"


LIES = [
    ("LISTEN_PID", ""),
    ("LISTEN_PID", "x"),
    ("LISTEN_PID", "-1"),
    ("LISTEN_PID", "1e3"),
    ("LISTEN_PID", "9" * 5000),
    ("LISTEN_PIDFDID", ""),
    ("LISTEN_PIDFDID", "0x10"),
    ("LISTEN_FDS", ""),
    ("LISTEN_FDS", " 2"),
    ("LISTEN_FDS", "2 "),
    ("LISTEN_FDS", "2\n"),
    ("LISTEN_FDS", "+2"),
    ("LISTEN_FDS", "-2"),
    ("LISTEN_FDS", "1_0"),
    ("LISTEN_FDS", "2.0"),
    ("LISTEN_FDS", "\N{ARABIC-INDIC DIGIT TWO}"),
    ("LISTEN_FDS", "\N{SUPERSCRIPT TWO}"),
    ("LISTEN_FDS", "\N{FULLWIDTH DIGIT TWO}"),
    ("LISTEN_FDS", "\udcff"),
    ("LISTEN_FDS", "9" * 5000),
    ("LISTEN_FDS", "99999999"),
    ("LISTEN_FDS", "2147483648"),
    ("LISTEN_FDS", "18446744073709551616"),
    ("LISTEN_FDS", "3"),  # there are two
]


@pytest.mark.parametrize(("variable", "value"), LIES)
def test_a_lying_variable_is_named_and_no_descriptor_is_touched(
    pair: list[socket.socket], variable: str, value: str
) -> None:
    code = """
flags = lambda: [os.get_inheritable(number) for number in (3, 4)]
assert flags() == [True, True]
try:
    activation.files()
except activation.ActivationError as error:
    print(ascii(str(error)))
assert flags() == [True, True]
"""
    said = output(code, pair, {"LISTEN_PID": "self", "LISTEN_FDS": "2", variable: value})
    assert f"{variable} is " in said
    assert ascii(value)[1:-1][:50] in said.replace("\\\\", "\\")
    assert "expected" in said
    assert len(said) < 400


def test_a_count_above_the_limit_on_open_files_is_absurd(pair: list[socket.socket]) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
try:
    activation.files()
except activation.ActivationError as error:
    print(error)
"""
    assert "LISTEN_FDS is 51; expected at most 50" in output(code, pair, {"LISTEN_PID": "self", "LISTEN_FDS": "51"})


def has_pidfs() -> bool:
    pidfd, anonymous = os.pidfd_open(os.getpid()), os.eventfd(0)
    try:
        return os.fstat(pidfd).st_dev != os.fstat(anonymous).st_dev
    finally:
        os.close(pidfd)
        os.close(anonymous)


def test_the_pidfd_number_of_this_process_is_checked_where_the_kernel_has_one(pair: list[socket.socket]) -> None:
    env = {"LISTEN_PID": "self", "LISTEN_FDS": "2"}
    assert len(show(pair, **env, LISTEN_PIDFDID="self")) == 2
    assert len(show(pair, **env, LISTEN_PIDFDID="1")) == (0 if has_pidfs() else 2)


def test_without_pidfs_the_pidfd_number_is_passed_over(pair: list[socket.socket]) -> None:
    # An old kernel cannot be had here: its pidfds are anonymous inodes, so an eventfd stands in for the pidfd.
    code = "os.pidfd_open = lambda pid: os.eventfd(0)\n" + SHOW
    assert len(json.loads(output(code, pair, {"LISTEN_PID": "self", "LISTEN_FDS": "2", "LISTEN_PIDFDID": "1"}))) == 2
    code = "del os.pidfd_open\n" + SHOW
    assert len(json.loads(output(code, pair, {"LISTEN_PID": "self", "LISTEN_FDS": "2", "LISTEN_PIDFDID": "1"}))) == 2


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.one_of(st.text(st.characters(exclude_characters="\0", codec="utf-8")), st.integers().map(str)),
    names=st.text(st.sampled_from("ab:"), max_size=9),
)
def test_whatever_the_count_says_files_returns_as_many_or_tells_the_error(
    monkeypatch: pytest.MonkeyPatch, value: str, names: str
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", value)
    monkeypatch.setenv("LISTEN_FDNAMES", names)
    try:
        found = activation.files()
    except activation.ActivationError as error:
        assert "LISTEN_FDS" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert set(value) <= set("0123456789")
        assert len(found) == int(value)
        assert [file.fileno() for file in found] == list(range(3, 3 + len(found)))
        assert all(file.name for file in found)


def test_a_file_is_given_away_once() -> None:
    sock = tcp_listener()
    number = sock.detach()
    file = File(number, "web")
    assert (file.name, file.fileno()) == ("web", number)
    assert "web" in repr(file)
    assert file.detach() == number
    assert file.fileno() == -1
    with pytest.raises(activation.ActivationError, match="'web' was given away or closed before"):
        file.detach()
    file.close()
    fcntl.fcntl(number, fcntl.F_GETFD)  # whoever took it still has it
    os.close(number)


def test_closing_a_file_closes_its_descriptor_once() -> None:
    number = tcp_listener().detach()
    file = File(number, "web")
    file.close()
    file.close()
    assert file.fileno() == -1
    assert number not in open_descriptors()


def test_a_collected_file_leaves_its_descriptor_open() -> None:
    number = tcp_listener().detach()
    File(number, "web")
    assert number in open_descriptors()
    os.close(number)


def test_importing_the_package_and_calling_files_loads_neither_trio_nor_attrs() -> None:
    code = "activation.files(); activation.exec_process; print({'trio', 'attr', 'attrs', 'typing'} & set(sys.modules))"
    assert output(code) == "set()"


def test_a_name_that_is_not_public_cannot_be_had() -> None:
    assert set(activation.__all__) <= set(dir(activation))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        activation.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert "ImportError" in run_activated("from activation import nonsense").stderr
