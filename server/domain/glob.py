"""Globs of branches, tags and paths: `*` and `?` stay inside one part, `**` crosses slashes.

Both the globs and the names are other people's, so RE2 compares them: in a time that grows with
their lengths, where Python's own `re` tries every way to share a name out among the stars.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache


def selects(globs: Sequence[str], name: str) -> bool:
    """Whether globs take a name; without any every name is taken.

    They are asked in order and the last that fits decides; `!` in front takes out. When all take
    out, every other name is taken.
    """
    if not globs:
        return True
    readable = name.encode("utf-8", "replace").decode()
    taken = all(each.startswith("!") for each in globs)
    for each in globs:
        if _pattern(each.removeprefix("!"))(readable):
            taken = not each.startswith("!")
    return taken


def selects_any(globs: Sequence[str], names: Iterable[str]) -> bool:
    """Whether globs take at least one of some names."""
    return any(selects(globs, name) for name in names)


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> Callable[[str], object]:
    """Return what tells whether a name fits."""
    import re2  # late: only those who filter need it

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
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(character, re2.escape(character)))
            place += 1
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    fits: Callable[[str], object] = re2.compile("".join(parts), options).fullmatch
    return fits
