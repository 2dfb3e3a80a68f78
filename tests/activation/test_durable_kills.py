"""A durable daemon that is killed, or loses its client, at byte codes of the library: nobody else notices.

The interval is that of a suite; ``python -m tests.activation.durable_kills unix first 1`` takes every single one.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.commands import LIMIT

INTERVAL = 307  # of byte codes; a prime, since what a loop does comes at regular intervals
ACCEPTED_UNHELD = 150
"""Byte codes between accept(2) and the queue that holds the connection, at most: there a kill resets the client."""


@pytest.mark.parametrize("life", ["first", "recovery"])
@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_a_kill_at_any_byte_code_is_not_noticed(family: str, life: str) -> None:
    command = [sys.executable, "-m", "tests.activation.durable_kills", family, life, str(INTERVAL)]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=20 * LIMIT, check=True)
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["points"] > 5  # newer Pythons need fewer byte codes
    if life == "recovery":
        assert found["unheard"] == []
    else:
        assert len(found["unheard"]) <= ACCEPTED_UNHELD // INTERVAL + 1


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_a_client_that_resets_at_any_byte_code_leaves_nothing(family: str) -> None:
    command = [sys.executable, "-m", "tests.activation.durable_kills", family, "reset", str(INTERVAL)]
    done = subprocess.run(command, capture_output=True, timeout=20 * LIMIT, check=True)
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["points"] > 5
    assert done.stderr == b""  # no handler has failed
