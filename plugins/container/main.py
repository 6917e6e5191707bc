#!/usr/bin/env python3
"""Runs commands in a container, which sees the task's folders at the same paths as the host."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from plugins.container import engine
from plugins.parameters import Parameters, fail

PATIENCE = 60
"""Seconds that a command which tidies up may take."""

TRIES = 3


class _Stop(Exception):  # noqa: N818 (a signal, not an error)
    """The task is to end."""


class Container:
    """Runs one container, and leaves none behind."""

    def __init__(self, argv: Sequence[str], name: str, env: dict[str, str], seconds: int) -> None:
        self._argv = argv
        self._program = argv[0]
        self._name = name
        self._env = env
        self._seconds = seconds
        self._stopping = self._waiting = False

    def run(self) -> int:
        """Run it to its end and return its exit code; SIGTERM stops it and removes it."""
        signal.signal(signal.SIGTERM, self._on_stop)
        if self._stopping:
            return 128 + signal.SIGTERM
        child = subprocess.Popen(self._argv, env=self._env, stdin=subprocess.DEVNULL)  # noqa: S603
        try:
            self._waiting = True
            if self._stopping:
                raise _Stop
            code = child.wait()
            self._waiting = False
            return code if code >= 0 else 128 - code
        except _Stop:
            self._end(child)
            return 128 + signal.SIGTERM

    def _on_stop(self, *_: object) -> None:
        self._stopping = True
        if self._waiting:
            self._waiting = False
            raise _Stop

    def _end(self, child: "subprocess.Popen[bytes]") -> None:
        tidy(engine.stop_argv(self._program, self._name, self._seconds), self._env)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(2)  # the engine removes it by itself
        if child.poll() is None:  # it may be fetching the image still
            child.kill()
            child.wait()
        remove(self._program, [self._name], self._env)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep SIGTERM away from what is started, until it can say that it tidies up."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def remove(program: str, names: Sequence[str], env: dict[str, str]) -> None:
    """Remove containers; one that was interrupted by the end of all around it is done again."""
    for _ in range(TRIES):
        done = tidy(engine.remove_argv(program, names), env)
        if done is None or done.returncode == 0:
            return


def tidy(argv: Sequence[str], env: dict[str, str]) -> "subprocess.CompletedProcess[str] | None":
    """Do what a command says as far as it can be done; None where it does not end in time."""
    try:
        with undisturbed():
            return subprocess.run(  # noqa: S603 (our own words)
                argv,
                env={**env, engine.TIDIES: "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=PATIENCE,
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired):
        return None


def remove_stale(program: str, owner: str, env: dict[str, str]) -> None:
    """Remove containers of this agent whose process was killed before it could.

    An engine that does not answer ends the task here, as it would hang without a word.
    """
    listed = tidy(engine.list_argv(program, owner), env)
    if listed is None:
        fail(
            f"{program} does not answer: `ps` took longer than {PATIENCE} s;"
            " see whether it works on the agent's host"
        )
    ids = listed.stdout.split()
    if not ids:
        return
    inspected = tidy(engine.inspect_argv(program, ids), env)
    lines = inspected.stdout.splitlines() if inspected else []
    told = (line.partition(" ") for line in lines)
    if stale := [id_ for id_, _, mark in told if not engine.lives(mark.strip())]:
        remove(program, stale, env)


def main() -> int:
    """Run what the parameters say."""
    given = Parameters()
    passed = given.words("env")
    env = engine.environment(os.environ, passed)
    wanted_engine = given.text("engine")
    found = engine.find(wanted_engine, env)
    if found is None:
        fail(
            f"engine: {wanted_engine} is not on the PATH of the agent's host"
            if wanted_engine
            else f"none of {', '.join(engine.ENGINES)} can be used on this host"
        )
    name, program = found
    mark, output = os.environ.get("MUSTER_ATTEMPT", ""), os.environ.get("MUSTER_OUTPUT", "")
    here = Path.cwd()
    attempt = Path(output).parent.parent if output else here
    mounts = _mounts(here, attempt, output)
    if wrong := [str(folder) for folder in mounts if ":" in str(folder)]:
        fail(f"{wrong[0]} has a colon, and cannot be mounted into a container")
    owner = engine.owner_of(os.uname().nodename, str(attempt.parent))
    remove_stale(program, owner, env)
    steered = [each for each in passed if engine.STEERING.fullmatch(each)]
    values = {"HOME": str(mounts[0])}
    if output:
        values["TMPDIR"] = str(mounts[-1])
    values |= {each: os.environ[each] for each in steered if each in os.environ}
    names = [each for each in [*passed, *engine.TOLD] if each in env and each not in values]
    with tempfile.NamedTemporaryFile("w", suffix=".sh", dir=mounts[-1]) as script:
        commands = given.words("commands")
        script.write("".join(f"{command}\n" for command in commands))
        script.flush()
        Path(script.name).chmod(0o644)
        wanted = engine.Wanted(
            image=given.text("image"),
            name=engine.name_of(mark, os.getpid()),
            labels={engine.OWNER: owner, engine.PROCESS: engine.process_mark(os.getpid())},
            mounts=mounts,
            folder=here,
            env=dict.fromkeys(names),
            values=tuple(values.items()),
            script=script.name if commands else "",
            user=given.text("user") or engine.user_of(name, env),
            network=given.flag("network", default=True),
            pull=given.text("pull", "missing"),
            memory=given.text("memory"),
            cpus=given.number("cpus", 0),
            pids=int(given.number("pids", 0)),
        )
        argv = engine.run_argv(name, program, wanted)
        seconds = int(given.number("stop_seconds", 5))
        return Container(argv, wanted.name, env, seconds).run()


def _mounts(here: Path, attempt: Path, output: str) -> list[Path]:
    """Return the workspace, and the task's temporary folder, where values for later jobs go."""
    if not output:
        return [here]
    workspace = attempt / "workspace"
    return [workspace if here.is_relative_to(workspace) else here, Path(output).parent]


if __name__ == "__main__":
    sys.exit(main())
