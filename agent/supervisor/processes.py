"""Finds and ends the processes of a task, also those that tried to get away."""

import contextlib
import functools
import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MARK = "MUSTER_ATTEMPT"
"""Environment variable that every process of a task inherits."""

TIDIES = "MUSTER_TIDIES"
"""Variable of a process that removes what its task leaves outside, such as a container.

It and its descendants are not asked to end: engines let go of what they do at SIGTERM, also when it
is blocked at their start. They are killed like all others once the grace is over.
"""

_UNKILLABLE_AFTER = 30.0
"""Seconds of SIGKILL after which a process is given up: it hangs inside the kernel."""


_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
"""Seconds between looks at what is being ended."""

_REST = 4
"""A look at a great many processes takes long; so many times as long others have their turn."""

_LONGEST_REST = 1.0

_STAT_BYTES = 4096
"""More than /proc tells of a process in one line."""

_CHILDREN_BYTES = 64 * 1024


@dataclass(frozen=True)
class Process:
    """One process as /proc shows it; pid and start together are never used twice."""

    pid: int
    parent: int
    group: int
    session: int
    start: int

    def environment(self) -> bytes:
        """Returns its environment at its start, or nothing when that cannot be read."""
        try:
            return Path(f"/proc/{self.pid}/environ").read_bytes()
        except OSError:
            return b""

    def bears(self, mark: str) -> bool:
        """Tells whether its environment carries an attempt's mark."""
        return f"\0{MARK}={mark}\0".encode() in b"\0" + self.environment() + b"\0"

    def tidies(self) -> bool:
        """Tells whether it says that it removes what its task leaves outside."""
        return f"\0{TIDIES}=".encode() in b"\0" + self.environment()

    def works_in(self, folder: Path) -> bool:
        """Tells whether its working directory is the folder or inside it."""
        try:
            return Path(f"/proc/{self.pid}/cwd").readlink().is_relative_to(folder)
        except OSError:
            return False


def read(pid: int) -> Process | None:
    """Returns a process that lives, or None."""
    try:
        file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(file, _STAT_BYTES)
    except OSError:
        return None
    finally:
        os.close(file)
    # The name in parentheses may hold anything, also spaces and parentheses.
    fields = text[text.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


@functools.cache
def boot_id() -> str:
    """Returns this boot's id: a pid and start time from another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def everything() -> dict[int, Process]:
    """Returns every process that lives, by pid."""
    return _read_all(pid for pid, _ in _entries())


class Kin:
    """Finds what descends from this process, a subreaper, without a look at the whole host.

    Who is no descendant never becomes one, so strangers are remembered and not read again. The
    inode of a process's folder in /proc tells it from another one that gets its pid later.
    """

    def __init__(self) -> None:
        self._strangers: set[tuple[int, int]] = set()

    def living(self) -> dict[int, Process]:
        """Returns every descendant that lives, by pid, with some that are none."""
        entries = set(_entries())
        known = entries & self._strangers
        living = _read_all(pid for pid, _ in sorted(entries - known))
        strange = {0, *(pid for pid, _ in known)}
        self._strangers = known | {
            (pid, inode)
            for pid, inode in entries - known
            if pid in living and _descends_from(living[pid], strange, living)
        }
        return living


def children() -> set[int] | None:
    """Returns the pids of this process's children, or None when the kernel does not tell.

    Whoever calls is the one that collects children: then none is missing.
    """
    try:
        file = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        parts = []
        while part := os.read(file, _CHILDREN_BYTES):
            parts.append(part)
    finally:
        os.close(file)
    return set(map(int, b"".join(parts).split()))


def _entries() -> list[tuple[int, int]]:
    """Returns pid and inode of every folder of a process in /proc."""
    with os.scandir("/proc") as entries:
        return [(int(entry.name), entry.inode()) for entry in entries if entry.name.isdigit()]


def _read_all(pids: Iterable[int]) -> dict[int, Process]:
    return {pid: process for pid in pids if (process := read(pid)) is not None}


def _descends_from(process: Process, roots: set[int], living: dict[int, Process]) -> bool:
    """Tells whether a way up leads to one of the roots, and not through this process.

    Where a parent is missing, because it ended meanwhile, nothing is certain.
    """
    above: Process | None = process
    while above is not None and above.pid != os.getpid():
        if above.parent in roots:
            return True
        above = living.get(above.parent)
    return False


def subtree(roots: Iterable[Process], living: dict[int, Process]) -> set[Process]:
    """Returns the given processes and all their descendants."""
    children: dict[int, list[Process]] = {}
    for process in living.values():
        children.setdefault(process.parent, []).append(process)
    found: set[Process] = set()
    queue = list(roots)
    while queue:
        process = queue.pop()
        if process not in found:
            found.add(process)
            queue.extend(children.get(process.pid, ()))
    return found


def send(process: Process, number: signal.Signals) -> None:
    """Signals exactly this process, never another one that got its pid."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(process.pid)
        try:
            now = read(process.pid)
            if now is not None and now.start == process.start:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


class Ending:
    """Ends whatever `find` finds: SIGTERM once each, SIGKILL from the moment `kill_at` names.

    Looks again until nothing is left, because processes may fork while they are being ended.

    Attributes:
        given_up: Whether something is left that SIGKILL does not end.
    """

    def __init__(self, find: Callable[[], set[Process]], kill_at: Callable[[], float]) -> None:
        self.given_up = False
        self._find = find
        self._kill_at = kill_at
        self._asked: set[Process] = set()
        self._spared: set[Process] = set()
        self._killed_at = math.inf
        self._pause = _FIRST_PAUSE

    def step(self) -> float | None:
        """Signals what is left and returns seconds until the next look, or None at the end."""
        began = time.monotonic()
        living = self._find()
        if not living:
            return None
        now, kill_at = time.monotonic(), self._kill_at()
        if now >= kill_at:
            self._killed_at = min(self._killed_at, now)
        if now > self._killed_at + _UNKILLABLE_AFTER:
            self.given_up = True
            return None
        if now < kill_at:
            self._spare(living)
        # Parents first: a shell whose child ends before it may stop for that, and never comes to
        # its own trap.
        for process in sorted(living, key=lambda each: (each.start, each.pid)):
            if now >= kill_at:
                send(process, signal.SIGKILL)
            elif process not in self._asked and process not in self._spared:
                self._asked.add(process)
                send(process, signal.SIGTERM)
                send(process, signal.SIGCONT)  # a stopped process hears SIGTERM only then
        # Processes that are not our children tell nobody of their end.
        pause, self._pause = self._pause, min(self._pause * 1.5, _LONGEST_PAUSE)
        ended = time.monotonic()
        pause = max(pause, min(_REST * (ended - began), _LONGEST_REST))
        return pause if ended >= kill_at else min(pause, kill_at - ended)

    def _spare(self, living: set[Process]) -> None:
        """Learns of newcomers that tidy up, and of what they have started."""
        roots = {each for each in living - self._asked if each in self._spared or each.tidies()}
        self._spared = subtree(roots, {each.pid: each for each in living})


def end_all(find: Callable[[], set[Process]], kill_at: Callable[[], float]) -> None:
    """Ends whatever `find` finds, as far as it can be ended; see Ending."""
    ending = Ending(find, kill_at)
    while (pause := ending.step()) is not None:
        time.sleep(pause)  # processes that are not our children tell nobody of their end
