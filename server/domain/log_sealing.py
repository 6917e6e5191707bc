"""Rows of closed logs are packed into blobs, where several servers share a database."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.changes import ChoreKind
from server.domain.chores import Claim, take
from server.domain.ledger import Ledger
from server.domain.log import LogBlock, LogKey
from server.domain.log_keeping import SealedBlock


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Logs whose rows are to be packed."""

    claim: Claim
    keys: tuple[LogKey, ...]


@dataclass(frozen=True, slots=True)
class ClaimRows:
    """Take the next logs whose rows are to be packed; answers them, or None."""

    name: str

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> RowBatch | None:
        """See Command."""
        taken = take(ledger, ChoreKind.SEAL, self.name)
        if taken is None:
            return None
        keys = [(attempt.task_key, attempt.number) for _, attempt in taken.logs]
        return RowBatch(taken.claim, tuple(keys))


@dataclass(frozen=True, slots=True)
class PackedPiece:
    """Consecutive blocks of a log, and those that hold the same lines in a blob."""

    key: LogKey
    rows: tuple[LogBlock, ...]
    """Without their data."""
    blocks: tuple[SealedBlock, ...]


@dataclass(frozen=True, slots=True)
class ReplaceRows:
    """Note where blocks lie that were rows; answers how many pieces are noted.

    A piece whose rows have changed meanwhile stays as it is: its log was dropped, or another server
    was faster.
    """

    pieces: tuple[PackedPiece, ...]

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> int:
        """See Command."""
        ledger.flush()
        keys = sorted({piece.key for piece in self.pieces})
        tasks = {t.key: t for t in ledger.tasks_by_key(sorted({key for key, _ in keys}))}
        # Of a long log only the rows around this piece: there may be a million others.
        lines = (
            min(piece.rows[0].first_line for piece in self.pieces),
            max(piece.rows[-1].first_line for piece in self.pieces),
        )
        heads = ledger.source.log_heads([key for key in keys if key[0] in tasks], lines)
        replaced = 0
        for piece in self.pieces:
            there = {block.first_line: block for block in heads.get(piece.key, ())}
            if any(there.get(row.first_line) != row for row in piece.rows):
                continue
            first, last = piece.rows[0].first_line, piece.rows[-1].first_line
            ledger.source.drop_log(piece.key, first, last)
            namespace = tasks[piece.key[0]].namespace
            for sealed in piece.blocks:
                ledger.add_log(sealed.batch(namespace))
            replaced += 1
        return replaced
