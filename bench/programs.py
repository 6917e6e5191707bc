"""Programs that are measured: started as processes of their own, always ended, by their pid."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LOOK_EVERY = 0.01


class ProgramFailedError(Exception):
    """A program that is needed ended or did not become ready."""


class Program:
    """One running program; what it says is in two files."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self._out = folder / f"{name}.stdout"
        self._err = folder / f"{name}.stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(  # noqa: S603 - programs of ours, and what we compare
                list(command),
                cwd=folder,
                env={**clean_environment(folder), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def ready(self, within: float = START_SECONDS) -> dict[str, str]:
        """Return what it says about itself when it is ready: `ready grpc=HOST:PORT …`.

        Raises:
            ProgramFailedError: it ended or takes too long.
        """

        def line() -> str | None:
            said = self._out.read_text(errors="replace").splitlines(keepends=True)
            ready = [line for line in said if line.startswith("ready ") and line.endswith("\n")]
            return ready[0] if ready else None

        words = str(self.wait_for(line, within)).split()[1:]
        return dict(word.split("=", 1) for word in words)

    def wait_for(self, question: Callable[[], object], within: float = START_SECONDS) -> object:
        """Return the question's first true answer while the program runs.

        Raises:
            ProgramFailedError: it ended or takes too long.
        """
        deadline = time.monotonic() + within
        while not (answer := question()):
            self.check()
            if time.monotonic() > deadline:
                raise ProgramFailedError(f"{self.name} is not ready:\n{self.complaints()}")
            time.sleep(LOOK_EVERY)  # a program tells nobody that it is ready
        return answer

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ProgramFailedError: it has ended.
        """
        if self._process.poll() is not None:
            raise ProgramFailedError(f"{self.name} ended:\n{self.complaints()}")

    def tree(self) -> list[psutil.Process]:
        """Return it and every process below it."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def complaints(self) -> str:
        """Return the end of what it wrote to stderr."""
        return self._err.read_text(errors="replace")[-4000:]

    def stop(self, ask: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and kill it when it does not."""
        if self._process.poll() is None:
            self._process.send_signal(ask)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)  # a group of its own: it and its workers
            self._process.wait()


def said(command: Sequence[str | Path], folder: Path) -> str:
    """Return what a command that ends by itself says on its standard output.

    Raises:
        ProgramFailedError: it failed or takes too long.
    """
    try:
        done = subprocess.run(  # noqa: S603 - programs of ours
            list(command),
            cwd=folder,
            env=clean_environment(folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise ProgramFailedError(f"{command}:\n{error.stderr}") from error
    except subprocess.TimeoutExpired as error:
        raise ProgramFailedError(f"{command} takes too long") from error
    return done.stdout


def module(name: str, *arguments: str | Path) -> list[str | Path]:
    """Return the command that runs a module of ours."""
    return [sys.executable, "-m", name, *arguments]


def clean_environment(folder: Path) -> dict[str, str]:
    """Return an environment that has nothing of this process but its PATH."""
    path = os.environ.get("PATH", os.defpath)
    return {
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}",
        "PYTHONPATH": str(ROOT),
    }
