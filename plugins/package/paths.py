"""Paths inside a package: relative, plain, and the same file on every system."""

import unicodedata
from collections.abc import Iterator

MAX_PART = 255
"""Bytes in one part of a path, as most file systems have it."""

MAX_DEPTH = 32

FORBIDDEN = frozenset('\\:*?"<>|')
"""Letters that mean something else on some system."""


def path_problem(path: str) -> str:
    """Return why a path may not be in a package; empty where it may."""
    parts = path.split("/")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "is not text in UTF-8"
    if path.startswith("/"):
        return "is absolute"
    if ".." in parts:
        return "leaves the folder"
    if "" in parts or "." in parts:
        return "has an empty part"
    if len(parts) > MAX_DEPTH:
        return f"is deeper than {MAX_DEPTH} folders"
    if max(sizes) > MAX_PART:
        return f"has a part of more than {MAX_PART} bytes"
    if any(letter in FORBIDDEN or unicodedata.category(letter)[0] == "C" for letter in path):
        return "has a letter that not every system allows in a name"
    if any(part[-1] in ". " for part in parts):
        return "has a part that ends in a dot or a space"
    return ""


class Taken:
    """The paths that a package has so far; two that some system takes for one are refused."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: str) -> str:
        """Note a file; return with what it collides, or nothing when it is the first there."""
        key = _folded(path)
        other = self._files.get(key) or self._folders.get(key)
        if other is not None:
            return other
        folders = list(_folders(path))
        for folder in folders:
            other = self._files.get(_folded(folder))
            if other is None and self._folders.get(_folded(folder), folder) != folder:
                other = self._folders[_folded(folder)]
            if other is not None:
                return other
        self._files[key] = path
        self._folders.update((_folded(folder), folder) for folder in folders)
        return ""


def _folders(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _folded(path: str) -> str:
    """Return what a path is where case and ways to write an accent make no difference."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
