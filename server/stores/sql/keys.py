"""What one writer remembers between transactions: keys in blocks, the last event's position.

A block costs one UPDATE for thousands of keys. It belongs to the transaction that drew it: when
that fails, the block is forgotten, for the database may give it to somebody else.
"""

from sqlalchemy import Connection, bindparam, select, update

from server.stores.sql import tables
from server.stores.sql.statements import driver_of, rows_of, run

BLOCK = 4096
_KEYS = "keys"
_EVENTS = "events"


class Keys:
    """Hands out keys to one writer."""

    def __init__(self) -> None:
        self._next = 0
        self._end = 0
        self._event: int | None = None
        """Position of the last event, where nobody else writes any."""
        self.classes: set[str] = set()
        """Task classes that are stored; none is ever deleted."""

    def take(self, connection: Connection) -> int:
        """Return a key that no row has had."""
        if self._next == self._end:
            self._end = _advance(connection, _KEYS, BLOCK)
            self._next = self._end - BLOCK
        self._next += 1
        return self._next

    def forget(self) -> None:
        """Give up what a transaction that failed may have changed."""
        self._next = self._end = 0
        self._event = None
        self.classes.clear()

    def number_events(self, connection: Connection, count: int) -> int:
        """Take the next positions of the event log; return the one before the first."""
        if driver_of(connection) is None:
            return _advance(connection, _EVENTS, count) - count
        before = self._event
        if before is None:
            ((before,),) = rows_of(connection, _NEXT, {"sequence": _EVENTS})
        self._event = before + count
        run(connection, _SET, {"sequence": _EVENTS, "to": self._event})
        return before


_STEP = (
    update(tables.sequences)
    .where(tables.sequences.c.name == bindparam("sequence"))
    .values(next=tables.sequences.c.next + bindparam("by"))
)
_SET = (
    update(tables.sequences)
    .where(tables.sequences.c.name == bindparam("sequence"))
    .values(next=bindparam("to"))
)
_NEXT = select(tables.sequences.c.next).where(tables.sequences.c.name == bindparam("sequence"))


def touch(connection: Connection) -> None:
    """Write a sequence as it is."""
    run(connection, _STEP, {"sequence": _KEYS, "by": 0})


def _advance(connection: Connection, name: str, by: int) -> int:
    """Move a sequence on and return its new end."""
    run(connection, _STEP, {"sequence": name, "by": by})
    ((end,),) = rows_of(connection, _NEXT, {"sequence": name})
    return int(end)
