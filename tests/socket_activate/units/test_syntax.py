from __future__ import annotations

import math
import os
import pwd
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from activation_cmd.socket_activate.units import listens, values
from activation_cmd.socket_activate.units.command_lines import commands, expand
from activation_cmd.socket_activate.units.environment import read_environment_file, variable
from activation_cmd.socket_activate.units.names import UnitName
from activation_cmd.socket_activate.units.specifiers import Unit, own_manager, replace_specifiers, unescape
from activation_cmd.socket_activate.units.syntax import parse, words
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT_TEXT = r"""
# a comment
; another
[Socket]
ListenStream = /run/a
  Spaced	=  two  words
Empty=
Long=one \
two\
# a comment in between
   ; and another
 three \\
Next=a=b
[Service]
"""

READERS: list[Callable[[str], object]] = [
    values.boolean,
    values.time_span,
    values.size,
    values.number,
    values.mode,
    values.signal_number,
    values.absolute_path,
    listens.message_queue,
    listens.netlink,
    listens.unix_address,
    listens.address,
    values.choice("a", "b"),
    variable,
    words,
    unescape,
    UnitName.parse,
    lambda text: replace_specifiers(text, Unit(UnitName("a-b", "c", "service"), "a.service", "system")),
    lambda text: commands(text, str, "a.service:1"),
]


def read(text: str) -> list[tuple[str, str, str, int]]:
    assignments, problems = parse(text, "a.socket")
    assert not problems
    return [(each.section, each.key, each.value, each.line) for each in assignments]


def test_assignments_have_their_section_and_their_line() -> None:
    assert read(UNIT_TEXT) == [
        ("Socket", "ListenStream", "/run/a", 5),
        ("Socket", "Spaced", "two  words", 6),
        ("Socket", "Empty", "", 7),
        ("Socket", "Long", "one  two  three \\\\", 8),
        ("Socket", "Next", "a=b", 13),
    ]
    assert parse(UNIT_TEXT, "a.socket")[0][0].where == "a.socket:5"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("A=b\\", "b"),
        ("A=b\\\n", "b"),
        ("A=b\\\n\nB=c", "b"),
        ("A=b \\ ", "b \\"),
        ("A=\\\n  b", "b"),
        ("A=b\r\n", "b"),
        ("A=b # c", "b # c"),
        ("A\\\n=b", "b"),
        ("A=Grüße\u00a0", "Grüße\u00a0"),
        ("A=b" + " " * 100_000 + "\n", "b"),
    ],
)
def test_a_value_is_what_remains_of_its_lines(text: str, value: str) -> None:
    assert read(f"\ufeff[S]\n{text}")[0][2] == value


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A=b", "'A=b' is in no section; expected"),
        ("[A", "'[A' is no section; expected"),
        ("[A]\nword", "'word' is no assignment; expected Key=value"),
        ("[A]\n=b", "'=b' is no assignment; expected Key=value"),
        ("[A]\nB=\udcff", r"'B=\udcff' is not in UTF-8; expected a text file"),
        ("[A]\nB=" + "x" * (1 << 20), "a line of 1048578 characters is too long; expected 1048576 at most"),
    ],
)
def test_a_line_that_is_nothing_is_an_error_and_the_rest_is_read(line: str, message: str) -> None:
    assignments, problems = parse(f"{line}\n[C]\nD=e\n", "a.socket")
    assert [(each.key, each.value) for each in assignments] == [("D", "e")]
    assert [(each.where, each.level) for each in problems] == [(f"a.socket:{1 + line.count(chr(10))}", "error")]
    assert problems[0].message.startswith(message)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" a\t b ", ["a", "b"]),
        ("'a b' \"c d\" ''", ["a b", "c d", ""]),
        ("a'b c'd", ["ab cd"]),
        (r"\x41\102\u00e4\U0001f600\s\t\\", ["ABä😀 \t\\"]),
        (r"\xc3\xa4 \xff", ["ä", "\udcff"]),
        (r"\d \xg \x00 a\ b", [r"\d", r"\xg", r"\x00", r"a\ b"]),
        ("a\\", ["a\\"]),
    ],
)
def test_words_lose_their_quotes_and_escapes(text: str, found: list[str]) -> None:
    assert [word.text for word in words(text)] == found


def test_escapes_that_are_none_are_named() -> None:
    assert [list(word.unknown) for word in words(r"\d\. \n \x4")] == [[r"\d", r"\."], [], [r"\x"]]


@pytest.mark.parametrize("text", ["'", "a 'b", '"a', "'a\"", r"'a\'"])
def test_a_quotation_must_be_closed(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected another ['\"] that closes the quotation"):
        words(text)


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (values.boolean, "Yes", True),
        (values.boolean, "off", False),
        (values.time_span, "5", 5.0),
        (values.time_span, "2min 200ms", 120.2),
        (values.time_span, "1y", 31557600.0),
        (values.time_span, "infinity", math.inf),
        (values.size, "64K", 65536),
        (values.size, "1.5M", 1572864),
        (values.number, "4294967295", 4294967295),
        (values.mode, "0660", 0o660),
        (values.signal_number, "TERM", signal.SIGTERM),
        (values.signal_number, "SIGRTMIN+3", signal.SIGRTMIN + 3),
        (values.signal_number, "9", signal.SIGKILL),
        (listens.address, "[::1]:80", "[::1]:80"),
        (listens.netlink, "kobject-uevent 1", "kobject-uevent 1"),
    ],
)
def test_values_are_read(read: Callable[[str], object], text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "texts", "expected"),
    [
        (values.boolean, ["", "maybe", "2"], "expected yes or no"),
        (
            values.time_span,
            ["", "x", "-1", "5 parsecs", "9" * 5000, "1.5.5"],
            'expected a time such as 5, "2min 200ms"',
        ),
        (values.size, ["", "x", "-1", "1KK", "9" * 5000], "expected a size in bytes such as 4096, 64K or 1M"),
        (values.size, ["16E"], "expected less than 16E"),
        (values.number, ["", "-1", "4294967296", "1.5", "09", "٣"], "expected a whole number such as 5 or 0x10"),
        (values.mode, ["", "8", "10000", "rw"], "expected an access mode in octal such as 0660"),
        (values.signal_number, ["", "0", "99", "TREM", "term"], "expected a signal such as SIGTERM, TERM or 15"),
        (values.absolute_path, ["", "a", "./a"], "expected a path from /"),
        (listens.message_queue, ["", "a", "/", "/a/b"], "expected a name such as /queue"),
        (listens.netlink, ["", "Route", "route x"], "expected a netlink family and perhaps a group"),
        (listens.unix_address, ["", "80", "/" * 108], "expected a path from / or @abstract, of 107 bytes at most"),
        (listens.address, ["", "a", "65536", "::1:80", "vsock:1"], "expected a path from /, @abstract, port, v4:port"),
        (values.choice("no", "always", "on-abort"), ["", "No"], "expected no, always or on-abort"),
    ],
)
def test_values_that_are_none_raise_what_was_expected(
    read: Callable[[str], object], texts: list[str], expected: str
) -> None:
    for text in texts:
        with pytest.raises(ValueError, match="^" + expected.replace("(", r"\(")):
            read(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%n %N %p %i", "a-b@c-d\\x2de.service a-b@c-d\\x2de a-b c-d\\x2de"),
        ("%P %I %j %J %f", "a/b c/d-e b b /c/d-e"),
        ("%% %- 100% %", "% %- 100% %"),
        ("%y %Y", f"{os.getcwd()}/units/a-b@.service {os.getcwd()}/units"),
        ("%U", str(os.geteuid())),
    ],
)
def test_specifiers_are_replaced(text: str, value: str) -> None:
    unit = Unit(UnitName("a-b", r"c-d\x2de", "service"), "units/a-b@.service", "system")
    assert replace_specifiers(text, unit) == value


def test_folders_are_the_systems_or_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    name = UnitName("a", None, "service")
    system, user = Unit(name, "", "system"), Unit(name, "", "user")
    for unset in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(unset, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7/")
    assert replace_specifiers("%t %S %C %L %E %T", system) == "/run /var/lib /var/cache /var/log /etc /tmp"
    assert replace_specifiers("%h", system) == pwd.getpwuid(os.geteuid()).pw_dir
    assert replace_specifiers("%t %S %C", user) == "/run/user/7 /home/me/.local/state /home/me/.cache"
    assert replace_specifiers("%L %E %h", user) == "/home/me/.local/state/log /home/me/.config /home/me"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with pytest.raises(ValueError, match="nothing that %t could stand for: XDG_RUNTIME_DIR is not set"):
        replace_specifiers("%t", user)


def test_units_are_a_systems_for_root_and_a_users_for_everybody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert own_manager() == "system"
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert own_manager() == "user"


def test_a_specifier_that_is_none_is_an_error() -> None:
    def replaced(text: str, prefix: str = "a") -> str:
        return replace_specifiers(text, Unit(UnitName(prefix, None, "service"), "a.service", "system"))

    with pytest.raises(ValueError, match=r"%Z is no specifier; expected %% for a percent sign"):
        replaced("a%Zb")
    with pytest.raises(ValueError, match=r"nothing that %P could stand for: .* has a backslash"):
        replaced("%P", r"a\b")
    for text, prefix in (("%f", "-a"), ("%f", "a-"), ("%f", "a--b")):
        with pytest.raises(ValueError, match="is no path"):
            replaced(text, prefix)
    assert replaced("%f", "a-b") == "/a/b"
    assert replaced("%f", "-") == "/"


# As of systemd 258.
@pytest.mark.parametrize("letter", "aAbBCdDEfgGhHiIjJlLmMnNopPqsStTuUvVwWyY")
def test_each_specifier_of_systemd_is_done_or_said_not_to_be(letter: str) -> None:
    unit = Unit(UnitName("a-b", "c-d", "service"), "a.service", "system")
    if letter == "d":
        with pytest.raises(ValueError, match="%d is not done here"):
            replace_specifiers("%d", unit)
    else:
        with suppress(ValueError):  # the machine may have no id, for one
            assert "%" not in replace_specifiers(f"%{letter}", unit)


@pytest.mark.parametrize(
    "text", ["a", "a.", ".service", "a b.service", "ä.service", "a/b.service", "a" * 250 + ".socket"]
)
def test_a_units_name_has_few_kinds_of_characters(text: str) -> None:
    with pytest.raises(ValueError, match="expected a unit's name"):
        UnitName.parse(text)


def test_a_command_has_prefixes() -> None:
    (command,) = commands("-:+@/bin/x zero %i", lambda text: text.replace("%i", "7"), "a.service:3")
    assert (command.program, list(command.arguments)) == ("/bin/x", ["zero", "7"])
    assert command.ignore_failure
    assert command.privileged
    assert not command.replace_variables
    assert command.where == "a.service:3"
    (plain,) = commands("x", str, "")
    assert (plain.program, plain.arguments) == ("x", ["x"])
    assert (plain.ignore_failure, plain.privileged, plain.replace_variables) == (False, False, True)


def test_a_semicolon_as_a_word_of_its_own_ends_a_command() -> None:
    found = commands(r"a b ; c ';' \; d; ;", str, "")
    assert [command.arguments for command in found] == [["a", "b"], ["c", ";", ";", "d;"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("./a", "'./a' is no program; expected a path from /, or a name that is looked up in PATH"),
        ("/bin/", "'/bin/' is no program"),
        ("-", "'' is no program"),
        ("--a", "-- cannot stand before a program; expected each of - @ : once, and [+] or ! or !!"),
        ("+!a", "[+]! cannot stand before a program"),
        ("@a", "expected argument 0 after the program, because of the prefix @"),
        (r"a\nb", r"'a\\nb' is no program; expected no control characters"),
    ],
)
def test_what_cannot_be_started_is_an_error(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        commands(line, str, "")


def test_variables_are_replaced_at_the_start() -> None:
    environment = {"ONE": "one", "TWO": "a  'b c' \"d\\\" e", "EMPTY": ""}
    (command,) = commands("$ONE a ${TWO} $TWO $NONE ${EMPTY} $EMPTY x$ONE $$ONE $${ONE}", str, "")
    assert expand(command, environment) == [
        "one", "a", environment["TWO"], "a", "b c", 'd" e', "", "x$ONE", "$ONE", "${ONE}",
    ]  # fmt: skip
    (command,) = commands(":x $ONE ${ONE} $$", str, "")
    assert expand(command, environment) == ["x", "$ONE", "${ONE}", "$$"]


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("A=b", {"A": "b"}),
        ("# A=b\n;B=c\n\nno\nC = d e \n", {"C": "d e"}),
        ("A='b\nc' d\n", {"A": "b\ncd"}),
        ('A="b\\"\\$\\n\\\nc"x"y"\n', {"A": 'b"$\\ncx"y"'}),
        ("A=\\ b\\\n  c\\ \\  \n", {"A": " b  c  "}),
        ("A=b\nA=\n", {"A": ""}),
        ("A='b", {"A": "b"}),
        ("export A=b\n1=2\nB=$C ${D}", {"B": "$C ${D}"}),
        ("\n" * 100_000, {}),
        ("A=" + " " * 100_000 + "b" + "\\ " * 100_000, {"A": "b" + " " * 100_000}),
    ],
)
def test_environment_files_are_nearly_as_a_shells(text: str, variables: dict[str, str]) -> None:
    assert read_environment_file(text) == variables


@pytest.mark.parametrize("word", ["", "A", "=b", "1=b", "A-B=c", "A=\x01"])
def test_a_variable_needs_a_name_and_a_value(word: str) -> None:
    with pytest.raises(ValueError, match="is no variable; expected NAME=value"):
        variable(word)


FRAGMENTS: list[Any] = [
    st.text(),
    st.sampled_from(
        [*"\\'\"$%;#@:=-+! \n\t[]{}.", "${A}", "$A", "\\x41", "\\u12", "%i", "%Z", "\\;", "infinity", "A=b"]
    ),
    st.integers().map(str),
    st.sampled_from(["min", "ms", "K", "/a", "/run", "vsock:1:2", "[::1]:80", "SIGTERM", "RTMIN+1", "yes", "0660"]),
]


@given(st.lists(st.one_of(FRAGMENTS)).map("".join))
def test_nothing_but_a_value_error_comes_of_any_text(text: str) -> None:
    for read in READERS:
        with suppress(ValueError):
            read(text)
    parse(text, "a.socket")
    read_environment_file(text)
    with suppress(ValueError):
        for command in commands(text, str, ""):
            assert all(isinstance(argument, str) for argument in expand(command, {"A": text}))


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_words_that_are_quoted_come_back(texts: list[str]) -> None:
    quoted = " ".join('"' + text.replace("\\", r"\\").replace('"', r"\"") + '"' for text in texts)
    assert [word.text for word in words(quoted)] == texts
