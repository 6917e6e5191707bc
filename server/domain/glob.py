"""Globs of branches, tags and paths: `*` and `?` stay inside one part, `**` crosses slashes."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache


def selects(globs: Sequence[str], name: str) -> bool:
    """Whether globs take a name; without any every name is taken.

    They are asked in order and the last that fits decides; `!` in front takes out. When all take
    out, every other name is taken.
    """
    if not globs:
        return True
    taken = all(each.startswith("!") for each in globs)
    for each in globs:
        if _pattern(each.removeprefix("!")).fullmatch(name):
            taken = not each.startswith("!")
    return taken


def selects_any(globs: Sequence[str], names: Iterable[str]) -> bool:
    """Whether globs take at least one of some names."""
    return any(selects(globs, name) for name in names)


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    parts, place = [], 0
    while place < len(glob):
        if glob.startswith("**/", place):
            parts.append("(?:.*/)?")
            place += 3
        elif glob.startswith("**", place):
            parts.append(".*")
            place += 2
        else:
            character = glob[place]
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character)))
            place += 1
    return re.compile("".join(parts), re.DOTALL)
