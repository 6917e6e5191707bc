"""Globs of branches, tags and paths: `*` and `?` stay inside one part, `**` crosses slashes.

Both the globs and the names are other people's. Python's `re` is quick, but tries every way to
share a name out among the stars, so with many of them a name is read letter by letter instead, in a
time that grows with its length and the glob's.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

FEW = 2
"""Stars that share a name out in no more ways than its length squared."""

MAYBE = ""
"""Before a `**/`, which may also stand for nothing."""


def selects(globs: Sequence[str], name: str) -> bool:
    """Whether globs take a name; without any every name is taken.

    They are asked in order and the last that fits decides; `!` in front takes out. When all take
    out, every other name is taken.
    """
    if not globs:
        return True
    taken = all(each.startswith("!") for each in globs)
    for each in globs:
        if _fits(each.removeprefix("!"))(name):
            taken = not each.startswith("!")
    return taken


def selects_any(globs: Sequence[str], names: Iterable[str]) -> bool:
    """Whether globs take at least one of some names."""
    return any(selects(globs, name) for name in names)


@dataclass(frozen=True, slots=True)
class _Letters:
    """Compares a name with a glob letter by letter: with letters, stars, and MAYBE."""

    tokens: tuple[str, ...]

    def fit(self, name: str) -> bool:
        """Tells whether a name fits."""
        reached = self._with_skipped({0})
        for letter in name:
            reached = self._after(reached, letter)
        return len(self.tokens) in reached

    def _after(self, reached: set[int], letter: str) -> set[int]:
        """Returns which tokens may come next when a letter has been read."""
        further = set()
        for place in reached:
            wanted = self.tokens[place] if place < len(self.tokens) else None
            if wanted == "**" or (wanted == "*" and letter != "/"):
                further.add(place)
            elif wanted == letter or (wanted == "?" and letter != "/"):
                further.add(place + 1)
        return self._with_skipped(further)

    def _with_skipped(self, reached: set[int]) -> set[int]:
        """Adds what comes after stars that stand for nothing."""
        waiting = list(reached)
        while waiting:
            place = waiting.pop()
            if place == len(self.tokens):
                continue
            more = {MAYBE: (place + 1, place + 3), "*": (place + 1,), "**": (place + 1,)}
            for each in more.get(self.tokens[place], ()):
                if each not in reached:
                    reached.add(each)
                    waiting.append(each)
        return reached


@lru_cache(maxsize=1024)
def _fits(glob: str) -> Callable[[str], object]:
    """Return what tells whether a name fits a glob."""
    tokens = re.findall(r"\*\*/|\*\*|.", glob, re.DOTALL)
    if sum(each.startswith("*") for each in tokens) <= FEW:
        meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        text = "".join(meanings.get(each) or re.escape(each) for each in tokens)
        return re.compile(text, re.DOTALL).fullmatch
    read: list[str] = []
    for each in tokens:
        read += [MAYBE, "**", "/"] if each == "**/" else [each]
    return _Letters(tuple(read)).fit
