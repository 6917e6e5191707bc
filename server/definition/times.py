"""Schedules for the domain: moments in, moments out."""

from datetime import UTC, datetime, timedelta

from server.definition.schedule import NotAScheduleError, Schedule, jitter_of
from server.domain.moment import Millis, Moment, millis


class CronTimes:
    """See domain.schedule.Times."""

    def problem(self, cron: str, zone: str, now: Moment) -> str | None:
        """See Times."""
        try:
            Schedule(cron, zone).check(_datetime(now))
        except NotAScheduleError as error:
            return str(error)
        return None

    def after(self, cron: str, zone: str, moment: Moment) -> Moment | None:
        """See Times; what cannot be read any more, such as a zone that is gone, never strikes."""
        try:
            found = next(Schedule(cron, zone).after(_datetime(moment)), None)
        except NotAScheduleError:
            return None
        return None if found is None else _moment(found)

    def between(
        self, cron: str, zone: str, after: Moment, through: Moment, at_most: int
    ) -> list[Moment]:
        """See Times."""
        try:
            schedule = Schedule(cron, zone)
            return [
                _moment(each)
                for each in schedule.between(_datetime(after), _datetime(through), at_most)
            ]
        except NotAScheduleError:
            return []

    def jitter(self, key: str, moment: Moment, seconds: int) -> Millis:
        """See Times."""
        return millis(jitter_of(key, _datetime(moment), timedelta(seconds=seconds)))


def _datetime(moment: Moment) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=moment)


def _moment(found: datetime) -> Moment:
    return round(found.timestamp()) * 1000
