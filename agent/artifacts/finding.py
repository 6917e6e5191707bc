"""Finds the files that globs mean, without following a link or leaving the workspace.

The workspace belongs to the task's user, and the agent may be root: every folder is opened from the
one above it, and nothing is opened through a link.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
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
        yield from _walk(root, "", 0, _Wanted(tuple(map(_compiled, patterns)), dot_files))
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


@dataclass(frozen=True)
class _Matches:
    """What a pattern means; a path that is meant means all below it too."""

    whole: re.Pattern[str]
    parts: tuple[str, ...]

    def file(self, path: str) -> bool:
        """Tells whether a file is meant, or lies in a folder that is."""
        while path:
            if self.whole.fullmatch(path):
                return True
            path = path.rpartition("/")[0]
        return False

    def may_be_below(self, folder: str) -> bool:
        """Tells whether something below a folder may be meant."""
        if self.file(folder):
            return True
        steps = folder.split("/")
        for step, part in zip(steps, self.parts, strict=False):
            if part == "**":
                return True
            if not _one_name(part).fullmatch(step):
                return False
        return len(steps) < len(self.parts)


@dataclass(frozen=True)
class _Wanted:
    """What any of some patterns means."""

    patterns: tuple[_Matches, ...]
    dot_files: bool

    def file(self, path: str) -> bool:
        return any(each.file(path) for each in self.patterns)

    def may_be_below(self, folder: str) -> bool:
        return any(each.may_be_below(folder) for each in self.patterns)


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> _Matches:
    parts = tuple(part for part in pattern.strip().split("/") if part not in ("", "."))
    if ".." in parts or not parts:
        return _Matches(re.compile(r"(?!)"), ())
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += ".+" if last else "(?:[^/]+/)*"
        else:
            text += _one_name(part).pattern + ("" if last else "/")
    return _Matches(re.compile(text, re.DOTALL), parts)


@lru_cache(maxsize=1024)
def _one_name(part: str) -> re.Pattern[str]:
    words = re.split(r"(\*+|\?)", part)
    meaning = {"?": "[^/]"}
    text = "".join(
        "[^/]*" if word.startswith("*") else meaning.get(word, re.escape(word)) for word in words
    )
    return re.compile(text, re.DOTALL)


def _walk(
    folder: int, path: str, depth: int, wanted: _Wanted
) -> Iterator[tuple[str, os.stat_result]]:
    """Give what is meant in an open folder, and in those below it."""
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") and not wanted.dot_files:
            continue
        inner = f"{path}/{name}" if path else name
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                if wanted.file(inner) and _is_text(inner):
                    yield inner, status
                continue
            if depth >= DEEPEST or not wanted.may_be_below(inner):
                continue
            below = os.open(name, _FOLDER, dir_fd=folder)
        except OSError:  # gone meanwhile, or not ours to look into
            continue
        try:
            yield from _walk(below, inner, depth + 1, wanted)
        finally:
            os.close(below)


def _is_text(path: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in path)
