"""The processes that the steps of a task are; they all belong to the task."""

import contextlib
import subprocess
from collections.abc import Callable, Mapping, Sequence

from plugins.host.step import StepFailed


class Children:
    """Starts processes, and passes on that they are to stop.

    Attributes:
        stopping: Whether the task is being stopped.
        on_stop: What else has to hear of it, or None.
    """

    def __init__(self) -> None:
        self.stopping = False
        self.on_stop: Callable[[], None] | None = None
        self._current: subprocess.Popen[bytes] | None = None

    def start(
        self, program: Sequence[str], environment: Mapping[str, str], *, piped: bool = False
    ) -> "subprocess.Popen[bytes]":
        """Starts a process in the workspace; `piped` reads what it prints.

        Raises:
            StepFailed: It cannot be started.
        """
        try:
            self._current = subprocess.Popen(  # noqa: S603 - what the task asks for
                program,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else None,
            )
        except (OSError, ValueError) as error:
            raise StepFailed(f"could not start: {error}", 126) from error
        return self._current

    def run(self, program: Sequence[str], environment: Mapping[str, str]) -> int:
        """Runs a process to its end and returns its exit code; 128 + N when signal N ended it."""
        process = self.start(program, environment)
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
