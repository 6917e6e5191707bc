"""The processes that the steps of a task are; they all belong to the task."""

import contextlib
import errno
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

from plugins.host.step import StepFailed

STOPPED = 128 + signal.SIGTERM
"""Exit code of a task that was stopped."""


class Children:
    """Starts processes, and passes on that they are to stop.

    Attributes:
        environment: The task's variables, as each process gets them.
        grace: Seconds that a stopped task has until it is killed; 0 where nobody said.
        stopping: Whether the task is being stopped.
        on_stop: What hears of it in place of the process, or None. Called from a signal's handler.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.grace = 0.0
        self.stopping = False
        self.on_stop: Callable[[], None] | None = None
        self._current: subprocess.Popen[bytes] | None = None

    def start(
        self,
        program: Sequence[str],
        extra: Mapping[str, str] | None = None,
        *,
        piped: bool = False,
    ) -> "subprocess.Popen[bytes]":
        """Starts a process in the workspace; `piped` reads what it prints.

        Raises:
            StepFailed: It cannot be started, or the task is being stopped.
        """
        if self.stopping:
            raise StepFailed("the task is being stopped", STOPPED)
        try:
            self._current = subprocess.Popen(  # noqa: S603 - what the task asks for
                program,
                env={**self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else None,
            )
        except (OSError, ValueError) as error:
            hint = ""
            if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
                hint = "; a script begins with #! and what runs it, such as #!/bin/sh"
            raise StepFailed(f"could not start: {error}{hint}", 126) from error
        if self.stopping:  # meanwhile, when there was nobody yet to tell
            self._current.terminate()
        return self._current

    def run(self, program: Sequence[str], extra: Mapping[str, str] | None = None) -> int:
        """Runs a process to its end and returns its exit code; 128 + N when signal N ended it."""
        process = self.start(program, extra)
        try:
            return exit_code(process.wait())
        finally:
            self._current = None

    def stop(self) -> None:
        """Asks what runs to end. The supervisor kills whatever has not after the grace."""
        self.stopping = True
        if self.on_stop is not None:
            self.on_stop()
        elif self._current is not None:
            with contextlib.suppress(OSError):
                self._current.terminate()


def exit_code(returned: int) -> int:
    """Returns what a shell would call it."""
    return returned if returned >= 0 else 128 - returned
