"""The folders and the standard streams that a service finds."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from activation_cmd.socket_activate.processes.surroundings import StartError, make_directories, redirect
from activation_cmd.socket_activate.units.directories import Directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


@root
def test_what_is_in_a_folder_is_given_away_only_with_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    directory = Directory(str(folder), 0o750, owned=True, links=[], status=233)
    make_directories([directory], [1, 2])
    assert (owner(folder), folder.stat().st_mode & 0o7777) == ((1, 2), 0o750)
    assert owner(folder.parent) == (0, 0)
    outside = tmp_path / "outside"
    outside.touch()
    (folder / "file").touch()
    (folder / "link").symlink_to(outside)
    make_directories([directory], [1, 2])
    assert owner(folder / "file") == (0, 0)
    make_directories([directory], [3, 4])
    assert owner(folder / "file") == owner(folder / "link") == owner(folder) == (3, 4)
    assert owner(outside) == (0, 0)


def test_a_configuration_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o700)
    make_directories([Directory(str(folder), 0o755, owned=False, links=[], status=241)], None)
    assert folder.stat().st_mode & 0o7777 == 0o700


def test_links_point_to_the_folder(tmp_path: Path) -> None:
    directory = Directory(str(tmp_path / "a"), 0o755, owned=True, links=[str(tmp_path / "b" / "c")], status=233)
    for _ in range(2):
        make_directories([directory], None)
        assert os.readlink(tmp_path / "b" / "c") == "../a"
    (tmp_path / "b" / "c").unlink()
    (tmp_path / "b" / "c").touch()
    with pytest.raises(StartError, match=r"cannot make the folder .*/a: .*File exists") as caught:
        make_directories([directory], None)
    assert caught.value.status == 233


def in_child(action: Callable[[], object]) -> int:
    """The exit status of a child that does it, in whose place it may do to 0, 1 and 2 what it wants."""
    pid = os.fork()
    if not pid:
        try:
            action()
        except StartError as error:
            os._exit(error.status)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_streams_are_files_that_are_appended_to_or_truncated_or_written_into(tmp_path: Path) -> None:
    for name in ("append", "truncate", "file"):
        (tmp_path / name).write_text("old text")

        def write(name: str = name) -> None:
            redirect([-1, f"{name}:{tmp_path}/{name}", "stdout"])
            os.write(1, b"new")
            os.write(2, b"!")

        assert in_child(write) == 0
    assert (tmp_path / "append").read_text() == "old textnew!"
    assert (tmp_path / "truncate").read_text() == "new!"
    assert (tmp_path / "file").read_text() == "new!text"


def test_a_file_that_is_a_socket_is_connected_to(tmp_path: Path) -> None:
    path = tmp_path / "a.sk"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def write() -> None:
            redirect([None, f"append:{path}", None])
            os.write(1, b"hello")

        assert in_child(write) == 0
        with listener.accept()[0] as sock:
            assert sock.recv(5) == b"hello"


@pytest.mark.parametrize(("number", "status"), [(0, 208), (1, 209), (2, 222)])
def test_a_stream_that_cannot_be_opened_has_its_exit_status(tmp_path: Path, number: int, status: int) -> None:
    standard: list[int | str | None] = [None, None, None]
    standard[number] = f"file:{tmp_path}/no/file"
    assert in_child(lambda: redirect(standard)) == status
