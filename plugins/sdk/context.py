"""What a plugin knows of the task it works for, and how it speaks to it."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class PluginError(Exception):
    """The plugin cannot do what it was asked; the message says why, in a sentence for people."""


class Cancelled(Exception):  # noqa: N818 (not an error)
    """The task is being stopped."""


@dataclass(frozen=True)
class Context:
    """One task.

    Attributes:
        workspace: The task's folder.
        env: The task's variables, secrets among them.
    """

    workspace: Path
    env: Mapping[str, str]
    _write: Callable[[bytes, bool], None]
    _progress: Callable[[float, str], None]
    _stop: threading.Event = field(default_factory=threading.Event)

    def log(self, text: str, *, error: bool = False) -> None:
        """Writes a line into the task's log."""
        self._write(f"{text}\n".encode(errors="replace"), error)

    def progress(self, done: float, message: str = "") -> None:
        """Tells how far it is, from 0 to 1, and what it does now; less than 0 is not known."""
        self.check()
        self._progress(done, message)

    @property
    def cancelled(self) -> bool:
        """Whether the task is being stopped."""
        return self._stop.is_set()

    def check(self) -> None:
        """Goes on, unless the task is being stopped.

        Raises:
            Cancelled: It is.
        """
        if self.cancelled:
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleeps.

        Raises:
            Cancelled: The task is being stopped.
        """
        if self._stop.wait(seconds):
            raise Cancelled
