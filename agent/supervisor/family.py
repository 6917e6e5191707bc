"""Tells which processes belong to an attempt, also those that hide where they come from."""

import os
from collections.abc import Callable

from agent.spool import AttemptFolder
from agent.supervisor import processes
from agent.supervisor.processes import Kin, Process


class Family:
    """All processes of one attempt.

    Attributes:
        main_pid: The first of them, once it was started.
    """

    def __init__(
        self, mark: str, folder: AttemptFolder, kin: Kin, others: Callable[[], set[int]]
    ) -> None:
        self.main_pid: int | None = None
        self._mark = mark
        self._folder = folder
        self._kin = kin
        self._others = others

    def find(self) -> set[Process]:
        """Returns those that live: all are descendants of this process, a subreaper.

        An orphan that hides its origin (new session, empty environment, another directory) counts
        as this attempt's when no other attempt runs.
        """
        others = self._others()
        children = processes.children()
        if children is not None and children <= others:  # who lost its parent is our child by now
            return set()
        living = self._kin.living()
        found: set[Process] = set()
        for child in [p for p in living.values() if p.parent == os.getpid()]:
            if child.pid in others:
                continue
            tree = processes.subtree([child], living)
            if child.pid == self.main_pid or not others:
                found |= tree
            else:
                found |= processes.subtree(filter(self._claims, tree), living)
        return found

    def _claims(self, process: Process) -> bool:
        return (
            self.main_pid in (process.session, process.group)
            or process.bears(self._mark)
            or process.works_in(self._folder.path)
        )
