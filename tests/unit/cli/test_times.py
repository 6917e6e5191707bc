import time
from datetime import timedelta

import pytest

from cli.times import age, between, human, lasted, moment


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0s"),
        (1.26, "1.3s"),
        (10, "10s"),
        (61, "1m 01s"),
        (3661, "1h 01m"),
        (90061, "1d 1h"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds, text):
    assert human(timedelta(seconds=seconds)) == text


def test_a_moment_that_has_not_come_is_nothing():
    assert [age(0), moment(0), between(0, 0)] == ["", "", ""]


def test_what_has_not_ended_lasts_until_now():
    assert between(time.time() * 1000 - 5000, 0).startswith("5.")
    assert between(1000, 3500) == "2.5s"


def test_a_clock_that_is_behind_shows_no_negative_age():
    assert age(time.time() + 100) == "0.0s"


@pytest.mark.parametrize("absurd", [2**62, -(2**63)])
def test_what_no_calendar_holds_is_a_dash(absurd):
    assert moment(absurd) == "-"
    assert lasted(abs(absurd)) == "-"
    assert between(1, abs(absurd)) == "-"
    assert age(-abs(absurd)) == "-"
