"""Starts processes and collects every child that ends, also the ones it adopted."""

import ctypes
import os
import subprocess
import threading
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
    """The only place that waits for children.

    One thread waits for all: adopted orphans must be collected too, and a wait for any child
    cannot share the process with waits for single ones.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._spawned = threading.Event()

    def start(self) -> None:
        """Starts the thread."""
        threading.Thread(target=self._run, name="reaper", daemon=True).start()

    def spawn(
        self,
        make: Callable[[], "subprocess.Popen[bytes]"],
        ended: Callable[[int], None],
    ) -> "subprocess.Popen[bytes]":
        """Starts a process; `ended` is called with its exit code (128 + N for signal N)."""
        with self._lock:  # the child may end before its pid is noted here
            process = make()
            process.returncode = 0  # it is ours to wait for, not the Popen object's
            self._watched[process.pid] = ended
        self._spawned.set()
        return process

    def _run(self) -> None:
        while True:
            self._spawned.clear()
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                self._spawned.wait()
                continue
            with self._lock:
                ended = self._watched.pop(pid, None)
            if ended is not None:
                code = os.waitstatus_to_exitcode(status)
                ended(code if code >= 0 else 128 - code)
