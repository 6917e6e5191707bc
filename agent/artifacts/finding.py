"""Finds the files that globs mean, without following a link or leaving the workspace.

The workspace belongs to the task's user, and the agent may be root: every folder is opened from the
one above it, and nothing is opened through a link.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

MOST_FILES = 10_000
DEEPEST = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TooManyFilesError(Exception):
    """A glob means more files than are kept."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file: its path in the workspace, parted by `/`, and its bytes."""

    path: str
    size: int


@dataclass(slots=True)
class Findings:
    """What a glob means, and what it would mean but for links and the like."""

    files: list[Found]
    left_out: list[str]


def find(workspace: Path, pattern: str, *, dot_files: bool = True) -> Findings:
    """Return the files that a pattern means: a file, a folder with all in it, or a glob.

    `*` and `?` stand for letters of one name, `**` for any number of folders. Hidden files are
    meant too where they are named or lie in a folder that is, unless `dot_files` is False.

    Raises:
        TooManyFilesError: There are more than are kept.
        OSError: The workspace cannot be read.
    """
    findings = Findings([], [])
    for path, status in look_through(workspace, [pattern], dot_files=dot_files):
        if stat.S_ISREG(status.st_mode):
            findings.files.append(Found(path, status.st_size))
            if len(findings.files) > MOST_FILES:
                raise TooManyFilesError(f"{pattern} means more than {MOST_FILES} files")
        else:
            findings.left_out.append(path)
    findings.files.sort(key=lambda found: found.path)
    return findings


def look_through(
    workspace: Path, patterns: Iterable[str], *, dot_files: bool
) -> Iterator[tuple[str, os.stat_result]]:
    """Give the path of all that one of the patterns means and is no folder, in a fixed order.

    Raises:
        OSError: The workspace cannot be read.
    """
    root = os.open(workspace, _FOLDER)
    try:
        yield from _walk(root, "", 0, [_begin(each) for each in patterns], dot_files)
    finally:
        os.close(root)


def open_inside(workspace: Path, path: str) -> int:
    """Open a file of the workspace for reading; return its descriptor.

    Raises:
        OSError: It is gone, or is no plain file that is reached without a link.
    """
    *folders, name = path.split("/")
    here = os.open(workspace, _FOLDER)
    try:
        for folder in folders:
            below = os.open(folder, _FOLDER, dir_fd=here)
            os.close(here)
            here = below
        file = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here
        )
    finally:
        os.close(here)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(0, "is no plain file any more")
    return file


@dataclass(frozen=True, slots=True)
class _Reached:
    """How far a path has come in a pattern.

    `next` has the indexes of the parts that its next name may fit; the pattern's length where the
    path, and so all below it, is meant. Names are looked at one by one, so that no pattern takes
    longer than its parts times the names.
    """

    parts: tuple[str, ...]
    next: frozenset[int]

    @property
    def is_meant(self) -> bool:
        return len(self.parts) in self.next

    def below(self, name: str) -> "_Reached":
        """Returns how far a path comes with another name; `next` is empty where nothing fits."""
        if self.is_meant:
            return self
        reached = set()
        for index in self.next:
            if self.parts[index] == "**":
                reached.add(index)
                if index + 1 == len(self.parts):
                    reached.add(index + 1)
            elif _one_name(self.parts[index]).fullmatch(name):
                reached.add(index + 1)
        return _Reached(self.parts, _with_skipped(self.parts, reached))


def _begin(pattern: str) -> _Reached:
    parts: list[str] = []
    for part in pattern.strip().split("/"):
        if part not in ("", ".") and not (part == "**" and parts[-1:] == ["**"]):
            parts.append(part)
    if ".." in parts or not parts:
        return _Reached((), frozenset())
    return _Reached(tuple(parts), _with_skipped(parts, {0}))


def _with_skipped(parts: Sequence[str], reached: set[int]) -> frozenset[int]:
    """Adds what comes after a `**` that stands for no folder; a last one stands for some."""
    skipped = {index + 1 for index in reached if index + 1 < len(parts) and parts[index] == "**"}
    return frozenset(reached | skipped)


@lru_cache(maxsize=1024)
def _one_name(part: str) -> re.Pattern[str]:
    """Returns what fits a name; it never goes back behind a `*` (the first place is the best)."""
    fixed = [
        "".join("[^/]" if letter == "?" else re.escape(letter) for letter in word)
        for word in re.split(r"\*+", part)
    ]
    if len(fixed) == 1:
        return re.compile(fixed[0], re.DOTALL)
    first, *middle, last = fixed
    found = "".join(f"(?>[^/]*?{each})" for each in middle)
    return re.compile(f"{first}{found}[^/]*{last}", re.DOTALL)


def _walk(
    folder: int, path: str, depth: int, reached: Sequence[_Reached], dot_files: bool
) -> Iterator[tuple[str, os.stat_result]]:
    """Give what is meant in an open folder, and in those below it."""
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") and not dot_files:
            continue
        further = [each for each in (one.below(name) for one in reached) if each.next]
        if not further:
            continue
        inner = f"{path}/{name}" if path else name
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                if any(each.is_meant for each in further) and _is_text(inner):
                    yield inner, status
                continue
            if depth >= DEEPEST:
                continue
            below = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:  # gone meanwhile, or not ours to look into
            continue
        try:
            yield from _walk(below, inner, depth + 1, further, dot_files)
        finally:
            os.close(below)


def _is_text(path: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in path)
