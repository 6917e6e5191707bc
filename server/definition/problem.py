"""What is wrong with a pipeline file, each problem with its place."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from server.domain.checks import Checks
from server.domain.errors import Violation

MOST_PROBLEMS = 100
"""A file with more is told of these, and how many there are."""
MOST_COMPARED = 1000
"""Names that a word is held against to find what was meant; the first of them."""

_LAST_STEP = re.compile(r"(\.?[^.\[\]]+|\[[^\]]*\])$")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands in a file; both count from 1."""

    line: int = 1
    column: int = 1

    def right(self, characters: int) -> "Place":
        """Return the place so many characters further on the same line."""
        return Place(self.line, self.column + characters)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, which field, and what would be right."""

    place: Place
    path: str
    """The field as in `stages[0].jobs[1].needs[0]`; empty for the file as a whole."""
    why: str

    def describe(self, file: str) -> str:
        """Return the problem in one line: `muster.yaml:7:9: stages[0].name: must not be empty`."""
        path = f"{self.path}: " if self.path else ""
        return f"{file}:{self.place.line}:{self.place.column}: {path}{self.why}"


class Refused(Exception):  # noqa: N818 - reads as what it says
    """A pipeline file, an event or an input is not what it should be; has every problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems), key=lambda problem: (problem.place, problem.path))
        super().__init__("\n".join(self.describe("muster.yaml")))

    def describe(self, file: str) -> list[str]:
        """Return the problems, one a line, and how many more there are."""
        lines = [problem.describe(file) for problem in self.problems[:MOST_PROBLEMS]]
        if more := len(self.problems) - len(lines):
            lines.append(f"{file}: and {more} more")
        return lines


class Report:
    """Collects problems, and knows where each field stands."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.places: dict[str, Place] = {"": Place()}

    def stands(self, path: str, place: Place) -> None:
        """Note where a field stands."""
        self.places[path] = place

    def place(self, path: str) -> Place:
        """Return where a field stands, or the nearest one around it that is in the file."""
        while path not in self.places:
            shorter = _LAST_STEP.sub("", path)
            path = shorter if shorter != path else ""
        return self.places[path]

    def fail(self, path: str, why: str, place: Place | None = None) -> None:
        """Note a problem, at a place of its own or where the field stands."""
        self.problems.append(Problem(place or self.place(path), path, why))

    def hint(self, word: str, known: Iterable[str]) -> str:
        """Return what `did_you_mean` does; nothing any more once there are more than are told."""
        return did_you_mean(word, known) if len(self.problems) < MOST_PROBLEMS else ""

    @contextmanager
    def checks(self) -> Iterator[Checks]:
        """Give the domain's checks, and take in what they find."""
        checks = Checks()
        yield checks
        self.take(checks.violations)

    def take(self, violations: Iterable[Violation]) -> None:
        """Note what a rule of the domain found; its paths are those of this file."""
        for violation in violations:
            self.fail(violation.field, violation.description)

    def done(self) -> None:
        """End the checks.

        Raises:
            Refused: anything was noted.
        """
        if self.problems:
            raise Refused(self.problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'needs'?` for a word that is nearly a known one, or nothing."""
    some = list(islice(known, MOST_COMPARED))
    close = difflib.get_close_matches(word[:64], some, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(words: Iterable[str]) -> str:
    """Return words as people list them: `a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
