"""Schedules against an oracle that walks through two years minute by minute."""

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from server.definition.schedule import NotAScheduleError, Schedule, jitter_of

MINUTE = timedelta(minutes=1)
BEGIN = datetime(2024, 6, 1, tzinfo=UTC)
END = datetime(2026, 6, 1, tzinfo=UTC)
FIRST = BEGIN - timedelta(days=2)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # shifts by half an hour
    "America/Santiago",  # changes at midnight, in the south
    "Africa/Cairo",  # changes at midnight, in the north
)
EXPRESSIONS = (
    "30 2 * * *",
    "15,45 1,2 * * *",
    "0 0 * * *",
    "*/30 2 * * *",
    "30 * * * *",
    "*/20 * * * *",
    "10 */3 * * 0",
    "0 3 1 * *",
    "0 12 29 2 *",
)


def matcher(expression):
    """Return what tells whether a clock on the wall shows one of an expression's minutes."""
    minute, hour, day, month, weekday = (
        frozenset(range(low, high + 1))
        if field == "*"
        else frozenset(range(low, high + 1, int(field[2:])))
        if field.startswith("*/")
        else frozenset(map(int, field.split(",")))
        for field, (low, high) in zip(
            expression.split(), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6)), strict=True
        )
    )
    return lambda wall: (
        wall.minute in minute
        and wall.hour in hour
        and wall.day in day
        and wall.month in month
        and (wall.isoweekday() % 7) in weekday
    )


def walls_of(zone):
    """Return what the clock on the wall shows each minute."""
    minutes = range((END - FIRST) // MINUTE + 1)
    return [(FIRST + n * MINUTE).astimezone(zone).replace(tzinfo=None) for n in minutes]


def skipped_by(walls):
    """Return what the clock has jumped over, by the place of the minute after it."""
    found = {}
    for place, (before, wall) in enumerate(pairwise(walls), 1):
        if wall - before > MINUTE:
            found[place] = [before + n * MINUTE for n in range(1, (wall - before) // MINUTE)]
    return found


def oracle(expression, walls, skipped):
    """Return when an expression strikes, by looking at the clock each minute."""
    shows, fixed = matcher(expression), "*" not in "".join(expression.split()[:2])
    struck, times = set(), []
    for place, wall in enumerate(walls):
        strikes = shows(wall)
        if fixed:
            strikes = strikes or any(map(shows, skipped.get(place, ())))
            if strikes and wall in struck:
                strikes = False
            if strikes:
                struck.add(wall)
        now = FIRST + place * MINUTE if strikes else BEGIN
        if now > BEGIN:
            times.append(now)
    return times


@pytest.mark.parametrize("zone", ZONES)
def test_two_years_strike_as_the_clock_on_the_wall_says(zone):
    walls = walls_of(ZoneInfo(zone))
    skipped = skipped_by(walls)
    for expression in EXPRESSIONS:
        found = Schedule(expression, zone).after(BEGIN)
        times = []
        for each in found:
            if each > END:
                break
            times.append(each)
        assert times == oracle(expression, walls, skipped), expression


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_where_no_clock_is_changed_another_library_agrees(expression):
    other = croniter(expression, BEGIN)
    found = list(islice(Schedule(expression).after(BEGIN), 20))
    assert found == [other.get_next(datetime) for _ in found]
    assert len(found) >= 5


def test_a_day_that_a_zone_left_out_is_left_out():
    # Samoa had no 30 December 2011.
    times = Schedule("0 12 * * *", "Pacific/Apia").after(datetime(2011, 12, 29, tzinfo=UTC))
    local = [each.astimezone(ZoneInfo("Pacific/Apia")) for each in islice(times, 3)]
    assert [(each.day, each.hour) for each in local] == [(29, 12), (31, 0), (31, 12)]


def test_seconds_and_aliases():
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    times = list(islice(Schedule("*/20 * * * * *").after(begin), 3))
    assert [each.second for each in times] == [20, 40, 0]
    assert next(Schedule("@weekly").after(begin)) == datetime(2025, 1, 5, tzinfo=UTC)
    assert next(Schedule("@daily", "Asia/Kolkata").after(begin)).hour == 18


@pytest.mark.parametrize(
    ("expression", "zone", "why"),
    [
        ("* * *", "UTC", "must have five fields"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("@dayly", "UTC", "there is no '@dayly'; did you mean '@daily'?"),
        ("0 0 30 2 *", "UTC", "never strikes"),
        ("0 0 * * *", "Europe/Berln", "there is no time zone 'Europe/Berln'; did you mean"),
        ("0 0 * * *", "../etc/passwd", "there is no time zone"),
        ("", "UTC", "must have five fields"),
    ],
)
def test_what_is_wrong_is_said(expression, zone, why):
    with pytest.raises(NotAScheduleError, match=why):
        Schedule(expression, zone).check(BEGIN)


def test_the_last_times_of_a_span_come_without_a_walk_through_all_of_it():
    schedule = Schedule("* * * * * *")
    begin, end = datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)
    assert schedule.between(begin, end, 1) == [end]
    assert len(schedule.between(begin, end, 100)) == 100
    assert schedule.between(end - timedelta(seconds=3), end, 10)[0] == end - timedelta(seconds=2)
    assert Schedule("@yearly").between(begin, end, 5) == [end]


@given(st.text(min_size=1, max_size=8), st.integers(0, 2**31), st.integers(0, 90_000))
def test_jitter_is_the_same_for_whoever_asks_and_within_its_limit(key, at, seconds):
    moment, longest = datetime.fromtimestamp(at, UTC), timedelta(seconds=seconds)
    later = jitter_of(key, moment, longest)
    assert timedelta() <= later <= longest
    assert later == jitter_of(key, moment, longest)


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="0123456789*/,-LW#@ adily", max_size=24),
    st.sampled_from(["UTC", "Australia/Lord_Howe"]),
)
def test_no_text_trips_the_reader(expression, zone):
    try:
        times = list(islice(Schedule(expression, zone).after(BEGIN), 3))
    except NotAScheduleError:
        return
    assert times == sorted(set(times))
