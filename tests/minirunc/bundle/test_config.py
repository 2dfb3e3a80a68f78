"""Bundles that cannot be run: one line says why, and nothing of them stays."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from activation_cmd.minirunc.bundle.config import Config, load
from activation_cmd.minirunc.bundle.spec import configuration
from activation_cmd.minirunc.bundle.values import BundleError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import bundles
from tests.bundles import MINIRUNC, add_bundle, bind
from tests.children import no_leak
from tests.commands import run

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[dict[str, Any]], object]


def put(path: str, value: object) -> Change:
    """Put a value there: ``process.args``, ``mounts.0.type``."""

    def change(config: Any) -> None:
        *keys, last = (int(key) if key.isdigit() else key for key in path.split("."))
        for key in keys:
            config = config[key]
        config[last] = value

    return change


def take(path: str) -> Change:
    def change(config: Any) -> None:
        *keys, last = path.split(".")
        for key in keys:
            config = config[key]
        del config[last]

    return change


def namespaces(*kinds: str) -> Change:
    return put("linux.namespaces", [{"type": kind} for kind in kinds])


def add_mount(**mount: Any) -> Change:
    return lambda config: config["mounts"].append(mount)


def with_user_namespace(*changes: Change) -> Change:
    def change(config: dict[str, Any]) -> None:
        mapping = [{"containerID": 0, "hostID": 0, "size": 10}]
        config["linux"].update(uidMappings=mapping, gidMappings=copy.deepcopy(mapping))
        config["linux"]["namespaces"].append({"type": "user"})
        for each in changes:
            each(config)

    return change


MAPPING = [{"containerID": 0, "hostID": 0, "size": 1}]

# What is wrong, and what the line says of it. These are found in the configuration alone.
WRONG: dict[str, tuple[Change, str]] = {
    "no version": (take("ociVersion"), "ociVersion is missing"),
    "another version": (put("ociVersion", "2.0.0"), "ociVersion is '2.0.0'"),
    "a number as version": (put("ociVersion", 1), "ociVersion is 1; expected a version"),
    "no process": (take("process"), "process is missing; expected an object"),
    "a process that is none": (put("process", ["sh"]), "process is ['sh']; expected an object"),
    "a terminal": (put("process.terminal", True), "process.terminal is True; expected false"),
    "a terminal of a word": (put("process.terminal", "no"), "process.terminal is 'no'; expected true or false"),
    "no arguments": (take("process.args"), "process.args is missing"),
    "empty arguments": (put("process.args", []), "process.args is []; expected the program"),
    "an empty program": (put("process.args", [""]), "process.args is ['']; expected the program"),
    "arguments in one": (put("process.args", "sh -c x"), "process.args is 'sh -c x'; expected an array"),
    "a number as argument": (put("process.args", ["sh", 1]), "process.args[1] is 1; expected a string"),
    "a null in an argument": (put("process.args", ["a\0b"]), "without a null character"),
    "half a character": (put("process.args", ["\ud800"]), "process.args[0] is '\\ud800'; expected"),
    "a variable without a value": (put("process.env", ["HOME"]), "process.env[0] is 'HOME'; expected NAME=value"),
    "a variable without a name": (put("process.env", ["=x"]), "process.env[0] is '=x'; expected NAME=value"),
    "no folder": (take("process.cwd"), "process.cwd is missing; expected an absolute path"),
    "a relative folder": (put("process.cwd", "usr"), "process.cwd is 'usr'; expected an absolute path"),
    "a user's name": (put("process.user", {"uid": "root"}), "process.user.uid is 'root'; expected a whole number"),
    "a negative user": (put("process.user", {"uid": -1}), "process.user.uid is -1"),
    "a fraction of a user": (put("process.user", {"uid": 0.5}), "process.user.uid is 0.5"),
    "a user who is true": (put("process.user", {"uid": True}), "process.user.uid is True"),
    "a wide mask": (put("process.user", {"umask": 0o7777}), "process.user.umask is 4095"),
    "a limit of nothing": (put("process.rlimits", [{"type": "RLIMIT_FUN"}]), "rlimits[0].type is 'RLIMIT_FUN'"),
    "a soft limit above": (
        put("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]),
        "process.rlimits[0].soft is 2; expected a whole number from 0 to 1",
    ),
    "a limit twice": (
        put("process.rlimits", [{"type": "RLIMIT_CORE", "soft": 0, "hard": 1}] * 2),
        "process.rlimits[1].type is 'RLIMIT_CORE'; expected each limit once",
    ),
    "a score that is too high": (put("process.oomScoreAdj", 1001), "process.oomScoreAdj is 1001"),
    "capabilities in an array": (put("process.capabilities", []), "process.capabilities is []; expected an object"),
    "no root": (take("root"), "root is missing"),
    "a root without a path": (put("root", {}), "root.path is missing"),
    "a root that is not there": (put("root.path", "nowhere"), "root.path is 'nowhere'; expected a folder"),
    "a root that is a file": (put("root.path", "config.json"), "root.path is 'config.json'; expected a folder"),
    "a hostname of the machine's": (namespaces("mount", "pid"), "hostname is 'minirunc'; expected none without uts"),
    "mounts in an object": (put("mounts", {}), "mounts is {}; expected an array"),
    "a mount nowhere": (add_mount(type="tmpfs"), "mounts[6].destination is missing"),
    "a mount at a relative path": (
        add_mount(destination="tmp", type="tmpfs"),
        "mounts[6].destination is 'tmp'; expected an absolute path",
    ),
    "a mount without a type": (add_mount(destination="/tmp"), "mounts[6].type is missing"),
    "a bind of nothing": (add_mount(destination="/tmp", options=["bind"]), "mounts[6].source is missing"),
    "a mount's option in a number": (
        add_mount(destination="/tmp", type="tmpfs", options=[5]),
        "mounts[6].options[0] is 5",
    ),
    "a copy into what is no tmpfs": (
        add_mount(destination="/tmp", type="proc", options=["tmpcopyup"]),
        "mounts[6].options is ['tmpcopyup']; expected tmpcopyup for a tmpfs only",
    ),
    "no mount namespace": (namespaces("pid", "uts"), "{'type': 'uts'}]; expected mount"),
    "no namespaces at all": (take("linux"), "linux.namespaces is missing; expected mount"),
    "a namespace of nothing": (namespaces("mount", "fun"), "linux.namespaces[1].type is 'fun'; expected one of pid"),
    "a namespace twice": (namespaces("mount", "pid", "pid"), "linux.namespaces[2].type is 'pid'; expected each"),
    "a namespace at a relative path": (
        put("linux.namespaces.0.path", "ns"),
        "linux.namespaces[0].path is 'ns'; expected an absolute path",
    ),
    "a mount in the root's place": (
        lambda config: config["mounts"].append({"destination": "/.//", "type": "tmpfs"}),
        "destination is '/.//'; expected a path below the root",
    ),
    "mappings of no namespace": (put("linux.uidMappings", MAPPING), "linux.uidMappings is"),
    "a user namespace without mappings": (
        lambda config: config["linux"]["namespaces"].append({"type": "user"}),
        "linux.uidMappings is missing",
    ),
    "a mapping of nobody": (
        with_user_namespace(put("linux.uidMappings.0.size", 0)),
        "linux.uidMappings[0].size is 0",
    ),
    "a user who is not mapped": (
        with_user_namespace(put("process.user", {"uid": 10})),
        "process.user.uid is 10; expected a number that linux.uidMappings has",
    ),
    "a group that is not mapped": (
        with_user_namespace(put("process.user", {"additionalGids": [5, 55]})),
        "process.user.additionalGids is 55; expected a number that linux.gidMappings has",
    ),
    "a relative masked path": (put("linux.maskedPaths", ["proc"]), "linux.maskedPaths[0] is 'proc'"),
    "a relative read-only path": (put("linux.readonlyPaths", ["proc"]), "linux.readonlyPaths[0] is 'proc'"),
    "a propagation of nothing": (put("linux.rootfsPropagation", "fast"), "linux.rootfsPropagation is 'fast'"),
    "a parameter of the machine": (
        put("linux.sysctl", {"vm.swappiness": "1"}),
        "linux.sysctl.vm.swappiness is '1'; expected parameters of the network",
    ),
    "a parameter of the machine's network": (
        lambda config: (
            config["linux"]["namespaces"].remove({"type": "network"}),
            put("linux.sysctl", {"net.ipv4.ip_forward": "1"})(config),
        ),
        "expected no such parameter without a new network namespace",
    ),
    "a way out of the network": (put("linux.sysctl", {"net/../vm/swappiness": "1"}), "expected"),
    "a parameter of two lines": (put("linux.sysctl", {"a\nb": "1"}), "linux.sysctl.'a\\nb' is '1'; expected"),
    "annotations in an array": (put("annotations", ["a"]), "annotations is ['a']; expected an object"),
}

# These the kernel finds, when the container is being started.
FAILING: dict[str, tuple[Change, str]] = {
    "no such program": (put("process.args", ["/no/such"]), "process.args[0] is '/no/such'; expected a program"),
    "no such program in the path": (put("process.args", ["nosuch"]), "process.args[0] is 'nosuch'"),
    "a folder as program": (put("process.args", ["/usr"]), "process.args[0] is '/usr'; expected a program: Permission"),
    "a folder that is a file": (put("process.cwd", "/bin/sh"), "process.cwd is '/bin/sh'; expected a folder"),
    "a bind of what is not there": (add_mount(**bind("/no/such")), ".source: /no/such: No such file"),
    "a file system of nothing": (
        add_mount(destination="/tmp", type="fun"),
        "].type is 'fun'; expected a file system that this kernel has",
    ),
    "an option of nothing": (
        add_mount(destination="/tmp", type="tmpfs", options=["fun=1"]),
        "] (/tmp): tmpfs: Unknown parameter 'fun'",
    ),
    "a mount below a file": (
        add_mount(destination="/bin/sh/deep", type="tmpfs"),
        "] (/bin/sh/deep): ",
    ),
    "a namespace that is not there": (
        put("linux.namespaces.0", {"type": "pid", "path": "/no/such"}),
        "linux.namespaces (pid, /no/such): /no/such: No such file",
    ),
    "a namespace that is none": (
        put("linux.namespaces.0", {"type": "pid", "path": "/dev/null"}),
        "linux.namespaces (pid, /dev/null): Invalid argument",
    ),
    "a namespace of another kind": (
        put("linux.namespaces.0", {"type": "pid", "path": "/proc/self/ns/net"}),
        "linux.namespaces (pid, /proc/self/ns/net): Invalid argument",
    ),
    "mappings that overlap": (
        with_user_namespace(put("linux.uidMappings", MAPPING * 2)),
        "linux.uidMappings: Invalid argument",
    ),
    "a parameter that is not there": (
        put("linux.sysctl", {"net.no.such": "1"}),
        "linux.sysctl (net/no/such): /proc/sys/net/no/such: No such file",
    ),
    "a value that is none": (put("linux.sysctl", {"net.ipv4.ip_forward": "x"}), "linux.sysctl (net/ipv4/ip_forward): "),
    "a masked path below a file": (put("linux.maskedPaths", ["/bin/sh/deep"]), "linux.maskedPaths (/bin/sh/deep): "),
}

TEXTS = {
    "nothing": ("", "it is not JSON"),
    "half": ('{"ociVersion": ', "it is not JSON"),
    "two": ("{} {}", "it is not JSON: Extra data"),
    "not a number": ('{"ociVersion": NaN}', "it is not JSON: NaN"),
    "an array": ("[]", "it is []; expected an object"),
    "deep": ("[" * 100_000, "it is nested too deeply"),
    "a long number": ('{"ociVersion": ' + "1" * 10_000 + "}", "it is not JSON"),
    "no UTF-8": ("\udcff", "it is not UTF-8 at byte 0"),
}


def refused(tmp_path: Path, said: str) -> None:
    """Run the bundle, and see it refused with one line that says so; nothing is left."""
    with no_leak():
        before = bundles.mounts()
        done = run(MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path / "bundle"), "box")
        error = done.stderr.decode()
        assert (done.returncode, done.stdout, error.count("\n")) == (1, b"", 1), error
        assert error.startswith("minirunc: ")
        assert said in error
        assert bundles.mounts() == before
        assert not (tmp_path / "state").exists() or os.listdir(tmp_path / "state") == []


@pytest.mark.skipif(bundles.needs_root, reason="containers take root (CAP_SYS_ADMIN)")
@pytest.mark.parametrize(("change", "said"), FAILING.values(), ids=FAILING)
def test_what_the_kernel_refuses_is_told_in_a_line(tmp_path: Path, change: Change, said: str) -> None:
    add_bundle(tmp_path / "bundle", ["true"], change)
    refused(tmp_path, said)


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_configuration_is_told_in_a_line(tmp_path: Path, change: Change, said: str) -> None:
    config = configuration(rootless=False)
    change(config)
    (tmp_path / "bundle" / "rootfs").mkdir(parents=True)
    bundles.write(tmp_path / "bundle", config)
    refused(tmp_path, said)


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS)
def test_a_file_that_is_no_configuration_is_told_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(tmp_path, said)


def test_a_bundle_that_is_none_is_told_in_a_line(tmp_path: Path) -> None:
    refused(tmp_path, "No such file or directory; expected a bundle")
    (tmp_path / "bundle").mkdir()
    refused(tmp_path, "No such file or directory; expected a bundle")
    os.mkfifo(tmp_path / "bundle" / "config.json")
    refused(tmp_path, "it is not a regular file")
    os.unlink(tmp_path / "bundle" / "config.json")
    os.mkdir(tmp_path / "bundle" / "config.json")
    refused(tmp_path, "Is a directory; expected a bundle")


@pytest.mark.parametrize("identity", ["", ".", "..", ".a", "a/b", "a b", "ä", "a" * 256])
def test_an_id_that_cannot_be_a_folder_is_told_in_a_line(tmp_path: Path, identity: str) -> None:
    add_bundle(tmp_path / "bundle", ["true"])
    done = run(MINIRUNC, "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path / "bundle"), identity)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"the ID is" in done.stderr


def paths(document: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """All places in a document."""
    found = [path]
    if isinstance(document, dict):
        found += [each for key, value in document.items() for each in paths(value, (*path, key))]
    elif isinstance(document, list):
        found += [each for key, value in enumerate(document) for each in paths(value, (*path, key))]
    return found


FULL = configuration(rootless=False) | {"annotations": {"a": "b"}, "hooks": {}}
FULL["process"] |= {"oomScoreAdj": 0, "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1]}}
FULL["linux"] |= {
    "sysctl": {"net.ipv4.ip_forward": "1"},
    "rootfsPropagation": "slave",
    "seccomp": {},
    "uidMappings": MAPPING,
    "gidMappings": MAPPING,
}
FULL["linux"]["namespaces"].append({"type": "user"})

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["/", "..", "\0", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.sampled_from(paths(FULL)), anything), min_size=1, max_size=4))
def test_whatever_is_in_a_configuration_is_taken_or_told_in_a_line(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document: Any = copy.deepcopy(FULL)
    for path, value in changes:
        at = document
        try:
            for key in path[:-1]:
                at = at[key]
            if path:
                at[path[-1]] = value
            else:
                document = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has taken that away
    try:
        Config("/", document)
    except BundleError as error:
        told = str(error)
    else:
        return
    assert "expected" in told
    assert "\n" not in told


@given(st.binary() | st.text().map(str.encode) | anything.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_in_a_file_is_told_in_a_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as bundle:
        (Path(bundle) / "config.json").write_bytes(data)
        with pytest.raises(BundleError) as caught:
            load(bundle)
    assert "\n" not in str(caught.value)
