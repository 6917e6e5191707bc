"""When a schedule strikes: five cron fields, six with seconds in front, or an @alias, in a zone.

The fields are cronsim's; what becomes of hours that a zone skips or doubles is decided here, as
Debian's cron does. A schedule that names its minutes and hours is *fixed*: a time that is skipped
strikes once, just after, and one that comes twice strikes the first time. One with a `*` among its
minutes or hours follows real time: it strikes whenever the clock on the wall says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from zoneinfo import ZoneInfo, available_timezones

from server.definition.problem import did_you_mean

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FARTHEST = timedelta(days=30 * 366)
"""How far ahead the next time is looked for."""

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
_SPANS = (timedelta(minutes=1), timedelta(hours=1), DAY, 32 * DAY, 366 * DAY, FARTHEST)


class NotAScheduleError(ValueError):
    """A schedule is malformed or never strikes; says what would be right."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """See the module."""

    expression: str
    zone: str = "UTC"

    def check(self, now: datetime) -> None:
        """See that it can be read and strikes at all.

        Raises:
            NotAScheduleError: it cannot, or never does.
        """
        if next(self.after(now), None) is None:
            raise NotAScheduleError(f"{self.expression!r} never strikes")

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the times after a moment, in UTC, the first first.

        Raises:
            NotAScheduleError: it cannot be read.
        """
        zone = _zone(self.zone)
        fields = _fields(self.expression)
        times = _fixed if _is_fixed(fields) else _by_the_wall
        end = moment + FARTHEST
        for found in times(fields, zone, moment.astimezone(UTC)):
            if found > end:
                return
            yield found

    def between(self, after: datetime, through: datetime, at_most: int) -> list[datetime]:
        """Return the last times in a span, its end included, the first first."""
        found: list[datetime] = []
        for span in _SPANS:
            start = max(after, through - span)
            found = []
            for each in self.after(start):
                if each > through:
                    break
                found.append(each)
            if len(found) >= at_most or start == after:
                break
        return found[-at_most:]


def moment_in(text: str, zone: str) -> int | None:
    """Return a date, or date and time, in a zone as Unix milliseconds; None for no text.

    Raises:
        NotAScheduleError: it is none.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise NotAScheduleError(
            f"must be a date such as 2030-01-31 or 2030-01-31T08:00, is {text[:64]!r}"
        ) from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=_zone(zone))
    return round(found.timestamp() * 1000)


def jitter_of(key: str, moment: datetime, longest: timedelta) -> timedelta:
    """Return how much later than its time a schedule strikes: the same whoever asks."""
    seconds = int(longest.total_seconds())
    if not seconds:
        return timedelta()
    digest = blake2b(f"{key} {int(moment.timestamp())}".encode(), digest_size=8).digest()
    return timedelta(seconds=int.from_bytes(digest) % (seconds + 1))


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        hint = did_you_mean(name, available_timezones())
        raise NotAScheduleError(f"there is no time zone {name!r}{hint}") from None


@lru_cache(maxsize=1024)
def _fields(expression: str) -> str:
    from cronsim import CronSim, CronSimError  # late: most commands need no schedule

    words = expression.split()
    if len(words) == 1 and words[0].startswith("@"):
        if words[0] not in ALIASES:
            hint = did_you_mean(words[0], ALIASES) or f"; there are {', '.join(ALIASES)}"
            raise NotAScheduleError(f"there is no {words[0]!r}{hint}")
        return ALIASES[words[0]]
    if len(words) not in (5, 6):
        raise NotAScheduleError(
            f"must have five fields (minute hour day month weekday), or six with seconds in front; "
            f"has {len(words)}"
        )
    try:
        CronSim(" ".join(words), datetime(2024, 1, 1))  # noqa: DTZ001 (on the wall)
    except CronSimError as error:
        text = f"{error}"
        never = "Bad day-of-month" in text and words[-3].isdigit() and 0 < int(words[-3]) < 32
        why = f"{expression!r} never strikes" if never else f"{text} in {expression!r}"
        raise NotAScheduleError(why) from None
    return " ".join(words)


def _is_fixed(fields: str) -> bool:
    minute, hour = fields.split()[-5:-3]
    return "*" not in minute and "*" not in hour


def _walls(fields: str, start: datetime) -> Iterator[datetime]:
    """Yield times as a clock on the wall would show them, from one on, that one included."""
    from cronsim import CronSim

    try:
        yield from CronSim(fields, start - SECOND)
    except StopIteration:
        return


def _fixed(fields: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    last = None
    for wall in _walls(fields, moment.astimezone(zone).replace(tzinfo=None) - DAY):
        at = wall.replace(tzinfo=zone, fold=0)
        found = at.astimezone(UTC)
        if found.astimezone(zone).replace(tzinfo=None) != wall:  # the clock skips it
            found = _change_after(zone, found - DAY, found + DAY, wall)
        if found > moment and found != last:
            last = found
            yield found


def _change_after(zone: ZoneInfo, low: datetime, high: datetime, wall: datetime) -> datetime:
    """Return when the clock on the wall jumps over a time."""
    low, high = low.replace(microsecond=0), high.replace(microsecond=0)
    while high - low > SECOND:
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if middle.astimezone(zone).replace(tzinfo=None) > wall:
            high = middle
        else:
            low = middle
    return high


def _by_the_wall(fields: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    begin = moment.replace(microsecond=0) + SECOND
    while True:
        offset = _offset(zone, begin)
        last = begin
        for wall in _walls(fields, (begin + offset).replace(tzinfo=None)):
            found = (wall - offset).replace(tzinfo=UTC)
            if _offset(zone, found) != offset:
                break
            last = found
            yield found
        else:
            return
        begin = _change(zone, last, found, offset)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta()


def _change(zone: ZoneInfo, low: datetime, high: datetime, offset: timedelta) -> datetime:
    """Return the first moment after `low` at which a zone has another offset; `high` has one."""
    step = low
    while step + DAY < high and _offset(zone, step + DAY) == offset:
        step += DAY
    low, high = step, min(high, step + DAY)
    while high - low > SECOND:
        middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    return high
