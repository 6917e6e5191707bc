"""Moments in the past, and durations, as people write them on the command line."""

import re
import time
from datetime import datetime, timedelta

import click

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_SECONDS = (86_400, 3_600, 60, 1)


class Duration(click.ParamType[timedelta]):
    """How long: 90s, 10m, 1h30m, 2d."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Return the duration."""
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(str(value))
        try:
            if found and any(found.groups()):
                return timedelta(seconds=_seconds(found))
        except OverflowError:
            pass
        self.fail(f"{value!r} is not like 90s, 10m, 1h30m or 2d", param, ctx)


def _seconds(found: re.Match[str]) -> float:
    parts = zip(found.groups(), _SECONDS, strict=True)
    return sum(float(number) * each for number, each in parts if number)


class Since(click.ParamType[int]):
    """How long ago (90s, 10m, 1h30m, 2d), or a moment (2026-11-25T22:15, with or without zone)."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the moment as Unix milliseconds."""
        text = str(value)
        ago = _DURATION.fullmatch(text)
        try:
            if ago and any(ago.groups()):
                seconds = time.time() - _seconds(ago)
            else:
                seconds = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is neither like 10m or 1h30m nor like 2026-11-25T22:15", param, ctx
            )
        return max(1, int(seconds * 1000))


SINCE = Since()
DURATION = Duration()
