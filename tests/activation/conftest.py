"""What the tests of a daemon's life share."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from .serving import Manager

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .durable_kit import Kit


@pytest.fixture
def no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SYSTEMD_EXEC_PID", "LISTEN_FDS", "LISTEN_PID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def manager(no_manager: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield Manager(sock)


@pytest.fixture
def kit() -> Kit:
    from .durable_kit import Kit

    return Kit()
