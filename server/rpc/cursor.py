"""Cursors of streams: an event's position, as text."""

from server.domain.checks import Checks
from server.domain.errors import Invalid, Violation
from server.engine.event_feed import EventFeed
from server.stores.interfaces import Reader

_DIGITS = 18
"""Fewer than a number that could leave 64 bits."""


def cursor_of(checks: Checks, text: str) -> int | None:
    """Return the position in an `after` field, or None without one; a malformed one is noted."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        checks.fail("after", "must be the cursor of an answer")
        return None
    return int(text)


async def check_reached(after: int, feed: EventFeed, reader: Reader) -> None:
    """Refuse a cursor that no answer can have had.

    Raises:
        Invalid: it lies beyond the last event.
    """
    if after <= feed.position:
        return
    last = await reader.last_position()  # another server may be ahead of what is known here
    if after > last:
        raise Invalid([Violation("after", f"is beyond the last event, {last}")])
