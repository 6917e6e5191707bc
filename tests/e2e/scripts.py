"""What tasks are made of: shell that waits for a word of the story, processes to look for."""

import contextlib
import uuid
from pathlib import Path

import psutil

from tests.e2e.processes import eventually

MARK = "STORY"


class Gate:
    """A place where a script waits until the story lets it go on."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"gate-{uuid.uuid4().hex}"
        self.wait = f"while [ ! -e {self.path} ]; do sleep 0.05; done"
        """A line of shell."""

    def open(self) -> None:
        """Let everybody pass who waits or will come."""
        self.path.touch()


class Mark:
    """An environment variable by which a task's processes are known."""

    def __init__(self) -> None:
        self.value = uuid.uuid4().hex
        self.env = {MARK: self.value}

    def living(self) -> list[psutil.Process]:
        """Return the living processes that bear it."""
        return [process for process in psutil.process_iter() if self._on(process)]

    def pids(self) -> set[int]:
        """Return the ids of the living processes that bear it."""
        return {process.pid for process in self.living()}

    def count(self, number: int) -> list[psutil.Process]:
        """Wait until so many processes bear it, and return them."""
        eventually(lambda: len(self.living()) == number, within=15)
        return self.living()

    def gone(self) -> bool:
        """Return whether no process bears it."""
        return not self.living()

    def _on(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.environ().get(MARK) == self.value
        return False


def is_alive(pid: int) -> bool:
    """Return whether a process lives, and not as a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
