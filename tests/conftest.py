"""What all tests share: certificates, signals, and that in CI a skipped test is a failed one."""

from __future__ import annotations

import os
import signal
import ssl
from typing import TYPE_CHECKING

import hypothesis
import pytest
import trustme

from activation import _files

if TYPE_CHECKING:
    from collections.abc import Generator

# What nohup and a shell's background have ignored, every command of a test would ignore, too.
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


# How long an example takes is the machine's business.
hypothesis.settings.register_profile("tests", parent=hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers begin with what takes longest, so that none is left with it at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: "tests/systemd/" not in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let nobody overlook that a test did not run: where CI is set, everything it needs has to be there."""
    report = yield
    if report.skipped and os.environ.get("CI") and not item.get_closest_marker("may_skip"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which is a failure in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _nothing_passed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test finds what a new process finds, whatever files() returned to an earlier one."""
    monkeypatch.setattr(_files, "_passed_before", [])
    monkeypatch.setattr(_files, "_refused", [])


@pytest.fixture
def certificate() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a TLS server for localhost needs, and a client that trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client
