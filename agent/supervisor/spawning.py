"""Starts a process in a session of its own, with pipes for what it prints."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_USUAL_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP)
"""What is ignored here and a task's programs do not expect to be: a shell could not trap it."""


class Spawned(NamedTuple):
    """A process that was started, and the ends to read of its pipes, which do not block."""

    pid: int
    stdout: int
    stderr: int


def seal_descriptors() -> None:
    """Keeps what this process has open from those it starts, and 0 to 2 from being used."""
    while (descriptor := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(descriptor)
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) > 2:
            with contextlib.suppress(OSError):  # that which the list was read with
                os.set_inheritable(int(entry.name), False)


def spawn(argv: tuple[str, ...], directory: Path | str, environment: dict[str, str]) -> Spawned:
    """Runs a command in a directory; nothing else here may need its own.

    Raises:
        OSError: It cannot be started.
        ValueError: The environment cannot be one.
    """
    home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    ours: list[int] = []
    tasks: list[int] = []
    try:
        for _ in range(2):
            our_end, tasks_end = os.pipe2(os.O_CLOEXEC)
            ours.append(our_end)
            tasks.append(tasks_end)
            os.set_blocking(our_end, False)
        # There is no other way to name a directory to posix_spawn, and to fork takes longer.
        os.chdir(directory)
        pid = os.posix_spawn(
            argv[0],
            argv,
            environment,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                *((os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(tasks, 1)),
            ),
            setsid=True,
            setsigdef=_USUAL_SIGNALS,
        )
    except BaseException:
        _close(ours)
        raise
    finally:
        _close(tasks)
        os.fchdir(home)
        os.close(home)
    return Spawned(pid, *ours)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
