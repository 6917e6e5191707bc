"""Logs of tasks that ended long ago go, and a mark with their true counts stays."""

from collections.abc import Iterable
from dataclasses import dataclass

from server.domain.attempt import LogState
from server.domain.changes import ChoreKind, LogBatch
from server.domain.ledger import Ledger
from server.domain.log import Encoding, LogKey, forgotten

STEP = 100
"""Logs a transaction: new work waits for a step, never for the whole."""


@dataclass(frozen=True, slots=True)
class DropLogs:
    """Let go of what logs hold; answers which of them. Their attempts keep their counts.

    Logs that may still grow stay, and so do those of tasks that have not ended, and those that are
    to be archived.
    """

    keys: tuple[LogKey, ...]

    def task_ids(self) -> Iterable[str]:
        """See Command."""
        return ()

    def decide(self, ledger: Ledger) -> list[LogKey]:
        """See Command."""
        ledger.flush()
        tasks = {t.key: t for t in ledger.tasks_by_key(sorted({key for key, _ in self.keys}))}
        ended = [key for key in self.keys if key[0] in tasks and tasks[key[0]].status.ended]
        ledger.prefetch_attempts(ended)
        heads = ledger.source.log_heads(ended)
        if ledger.policy.archive_logs:
            for key in ledger.source.with_chore(ChoreKind.ARCHIVE, ended):
                heads.pop(key, None)
        dropped = []
        for key in ended:
            task, blocks = tasks[key[0]], heads.get(key, [])
            attempt = ledger.attempt(task, key[1])
            holds = any(block.encoding is not Encoding.OMITTED for block in blocks)
            if attempt is not None and attempt.log_state is not LogState.OPEN and holds:
                ledger.source.drop_log(key, blocks[0].first_line, blocks[-1].first_line)
                ledger.add_log(LogBatch(*key, task.namespace, forgotten(blocks)))
                dropped.append(key)
        return dropped
