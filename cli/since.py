"""Moments in the past as people write them on the command line."""

import re
import time
from datetime import datetime

import click

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_SECONDS = (86_400, 3_600, 60, 1)


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
                parts = zip(ago.groups(), _SECONDS, strict=True)
                seconds = time.time() - sum(float(n) * each for n, each in parts if n)
            else:
                seconds = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            self.fail(
                f"{text!r} is neither like 10m or 1h30m nor like 2026-11-25T22:15", param, ctx
            )
        return max(1, int(seconds * 1000))


SINCE = Since()
