"""Integer keys in blocks, and the last event's position.

A block costs one UPDATE for thousands of keys. It belongs to the transaction that drew it: when
that fails, the block is forgotten, for the database may give it to somebody else.
"""

from sqlalchemy import Connection, bindparam, select, update

from server.stores.sql import tables

BLOCK = 4096
_KEYS = "keys"
_EVENTS = "events"


class Keys:
    """Hands out keys to one writer."""

    def __init__(self) -> None:
        self._next = 0
        self._end = 0

    def take(self, connection: Connection) -> int:
        """Return a key that no row has had."""
        if self._next == self._end:
            self._end = _advance(connection, _KEYS, BLOCK)
            self._next = self._end - BLOCK
        self._next += 1
        return self._next

    def forget(self) -> None:
        """Give up the current block after a transaction that failed."""
        self._next = self._end = 0

    def number_events(self, connection: Connection, count: int) -> int:
        """Take the next positions of the event log; return the one before the first."""
        return _advance(connection, _EVENTS, count) - count


_STEP = (
    update(tables.sequences)
    .where(tables.sequences.c.name == bindparam("sequence"))
    .values(next=tables.sequences.c.next + bindparam("by"))
)
_NEXT = select(tables.sequences.c.next).where(tables.sequences.c.name == bindparam("sequence"))


def _advance(connection: Connection, name: str, by: int) -> int:
    """Move a sequence on and return its new end."""
    connection.execute(_STEP, {"sequence": name, "by": by})
    return int(connection.execute(_NEXT, {"sequence": name}).scalar_one())
