"""Programs under test as real processes: started with a clean environment, always ended."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MARK = "KIT_RUN"  # in the environment of everything that a kit starts, and of their children
START_WITHIN = 30.0
STOP_WITHIN = 15.0


def eventually(predicate: Callable[[], object], within: float = 10, every: float = 0.02) -> object:
    """Return the predicate's first true answer.

    Raises:
        TimeoutError: there was none in time.
    """
    deadline = time.monotonic() + within
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Still false after {within:g} seconds.")
        time.sleep(every)
    return answer


class Launcher:
    """Starts processes in one folder, under one mark, and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.started: list[Program] = []

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what a program sees: nothing of this process but its PATH."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT),
            MARK: self.mark,
            **(extra or {}),
        }

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and return what it said."""
        return subprocess.run(  # noqa: S603 (our own programs)
            arguments,
            cwd=self.folder,
            env=self.environment(env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(
        self, name: str, arguments: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> "Program":
        """Start a program that stays."""
        program = Program(self, f"{name}-{len(self.started)}", arguments, self.environment(env))
        self.started.append(program)
        return program

    def marked(self) -> list[psutil.Process]:
        """Return every living process that was started here, and what those have started."""
        ours = [process for process in psutil.process_iter() if self._is_ours(process)]
        return list({each for process in ours for each in [process, *_descendants(process)]})

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == self.mark
        except psutil.Error:  # gone, a zombie, or somebody else's
            return False

    def end_all(self) -> None:
        """End every process, politely first, and wait for each."""
        for program in self.started:
            program.terminate(STOP_WITHIN)
        for process in self.marked():
            _kill(process)
        psutil.wait_procs(self.marked(), timeout=STOP_WITHIN)


class Program:
    """One process; what it writes is in two files."""

    def __init__(
        self,
        launcher: Launcher,
        name: str,
        arguments: Sequence[str | Path],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.arguments = tuple(arguments)
        self.stdout = launcher.folder / f"{name}.stdout"
        self.stderr = launcher.folder / f"{name}.stderr"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self._process = subprocess.Popen(  # noqa: S603 (our own programs)
                self.arguments,
                cwd=launcher.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # a Ctrl-C in the terminal is for pytest alone
            )
        self.pid = self._process.pid

    def ready_line(self) -> str:
        """Return the line with which it says that it works.

        Raises:
            RuntimeError: it ended before; the message has its stderr.
            TimeoutError: it said nothing in time.
        """

        def line() -> str | None:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"{self.name} ended with {self.exit_code} before it was ready:\n"
                    + self.stderr.read_text(errors="replace")
                )
            said = self.stdout.read_text(errors="replace").splitlines(keepends=True)
            return next((line for line in said if _is_ready(line)), None)

        return str(eventually(line, START_WITHIN)).strip()

    @property
    def exit_code(self) -> int | None:
        """How it ended, or None while it runs."""
        return self._process.poll()

    def wait(self, within: float = START_WITHIN) -> int:
        """Wait for its own end and return how it ended.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        return self._process.wait(within)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def said(self) -> str:
        """Return what it has written to stdout."""
        return self.stdout.read_text(errors="replace")

    def complained(self) -> str:
        """Return what it has written to stderr."""
        return self.stderr.read_text(errors="replace")

    def kill9(self) -> None:
        """End it without a chance to tidy up."""
        self._process.kill()
        self._process.wait(STOP_WITHIN)

    def terminate(self, within: float = STOP_WITHIN) -> int:
        """Ask it to stop, as a supervisor would, and return how it ended."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill9()
            return self._process.returncode


def _is_ready(line: str) -> bool:
    return line.startswith("ready ") and line.endswith("\n")


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
