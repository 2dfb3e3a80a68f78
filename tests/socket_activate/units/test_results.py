"""What the end of a service's main process means, and the words for it."""

from __future__ import annotations

import signal

import pytest
from activation_cmd.socket_activate.units.results import outcome, result_of, status


@pytest.mark.parametrize(
    ("ended", "success", "core", "result"),
    [
        (0, [], False, "success"),
        (3, [], False, "exit-code"),
        (3, [3], False, "success"),
        (9, [-9], False, "exit-code"),
        (-signal.SIGTERM, [], False, "success"),
        (-signal.SIGKILL, [], False, "signal"),
        (-signal.SIGKILL, [-signal.SIGKILL], False, "success"),
        (-signal.SIGABRT, [], True, "core-dump"),
        (-signal.SIGABRT, [-signal.SIGABRT], True, "core-dump"),  # whatever a success is
        (None, [], False, "success"),
    ],
)
def test_an_end_has_a_result(ended: int | None, success: list[int], core: bool, result: str) -> None:
    assert result_of(ended, success, core=core) == result


@pytest.mark.parametrize(
    ("word", "number"), [("0", 0), ("0x10", 16), ("TEMPFAIL", 75), ("SIGHUP", -1), ("USR1", -10), ("RTMIN+1", -35)]
)
def test_a_word_stands_for_a_status(word: str, number: int) -> None:
    assert status(word) == number


@pytest.mark.parametrize("word", ["", "256", "-1", "SIGNONE", "tempfail", "1.5", "٣", "³"])
def test_a_word_that_stands_for_none_is_an_error(word: str) -> None:
    with pytest.raises(ValueError, match="expected exit statuses such as 3 or TEMPFAIL, and signals such as SIGKILL"):
        status(word)


@pytest.mark.parametrize(
    ("ended", "words"),
    [(3, "exited with status 3"), (-9, "was ended by SIGKILL"), (-40, "was ended by signal 40")],
)
def test_an_end_is_told_in_words(ended: int, words: str) -> None:
    assert outcome(ended) == words
