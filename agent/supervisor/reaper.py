"""Collects every child that ends, also the ones that were adopted."""

import ctypes
import os
from collections.abc import Callable

_SET_CHILD_SUBREAPER = 36  # from linux/prctl.h


def adopt_orphans() -> None:
    """Makes this process the new parent of its descendants' orphans.

    So whatever a task leaves behind, also after a double fork, stays in sight.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Reaper:
    """The only place that waits for children: adopted orphans must be collected too."""

    def __init__(self) -> None:
        self._watched: dict[int, Callable[[int], None]] = {}

    def watch(self, pid: int, ended: Callable[[int], None]) -> None:
        """Lets `collect` call `ended` with a child's exit code (128 + N for signal N)."""
        self._watched[pid] = ended

    def collect(self) -> None:
        """Collects the children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (ended := self._watched.pop(pid, None)) is not None:
                code = os.waitstatus_to_exitcode(status)
                ended(code if code >= 0 else 128 - code)
