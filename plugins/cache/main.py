#!/usr/bin/env python3
"""Keeps folders between tasks of one host, under a key with fallbacks.

An entry is a tar file that appears whole or not at all. Whoever saves what is there already changes
nothing; the entries that were not used for longest go when there are too many bytes.
"""

import contextlib
import hashlib
import os
import sys
import tarfile
import tempfile
from pathlib import Path

from plugins.parameters import Parameters, fail, tell

MOST_MIB = 4096
_PARTIAL = ".partial-"


def main() -> None:
    """Restore or save what the parameters say."""
    given = Parameters()
    store = _store()
    key = given.text("key")
    if files := given.words("hash"):
        key = f"{key}-{_digest(files)}"
    if given.text("do") == "save":
        _save(store, key, given.words("paths"), int(given.number("most", MOST_MIB)))
        return
    found = _find(store, [key, *given.words("fallbacks")])
    tell("hit", "true" if found is not None and found.name == f"{key}.tar" else "false")
    if found is None:
        sys.stdout.write(f"nothing is kept for {key}\n")
        return
    _restore(found)
    sys.stdout.write(f"restored {found.stem}\n")


def _store() -> Path:
    folder = os.environ.get("MUSTER_CACHE_DIR")
    if not folder:
        fail("this agent keeps no cache: it did not say where (MUSTER_CACHE_DIR)")
    return Path(folder)


def _digest(files: list[str]) -> str:
    """Return what a key gets for the contents of files; one that is missing counts as such."""
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(name.encode() + b"\0")
        with contextlib.suppress(OSError), (Path.cwd() / name).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:16]


def _find(store: Path, keys: list[str]) -> Path | None:
    """Return the entry of the first key that has one; a fallback also means what begins so."""
    for place, key in enumerate(keys):
        exact = store / f"{key}.tar"
        if exact.is_file():
            return exact
        if place:
            found = [(path.stat().st_mtime, path) for path in store.glob(f"{key}*.tar")]
            if found:
                return max(found)[1]
    return None


def _restore(entry: Path) -> None:
    """Unpack an entry into the workspace; nothing in it leads outside, whoever made it."""
    with contextlib.suppress(OSError):
        os.utime(entry)
    try:
        with tarfile.open(entry) as archive:
            archive.extractall(Path.cwd(), filter="data")
    except (tarfile.TarError, OSError) as error:
        fail(f"{entry.stem} cannot be restored: {error}")


def _save(store: Path, key: str, paths: list[str], most: int) -> None:
    target = store / f"{key}.tar"
    if target.exists():
        sys.stdout.write(f"{key} is kept already\n")
        return
    here = Path.cwd().resolve()
    descriptor, partial = tempfile.mkstemp(dir=store, prefix=_PARTIAL)
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w") as archive:
            for name in paths:
                path = (here / name).resolve()
                if not path.is_relative_to(here):
                    fail(f"paths: {name!r} leads outside of the workspace")
                if path.exists():
                    archive.add(path, arcname=str(path.relative_to(here)))
                else:
                    sys.stdout.write(f"{name} is not there and is left out\n")
        Path(partial).rename(target)
    except OSError as error:
        fail(f"{key} cannot be kept: {error.strerror or error}")
    finally:
        Path(partial).unlink(missing_ok=True)
    sys.stdout.write(f"kept {key}: {target.stat().st_size} bytes\n")
    _make_room(store, target, most << 20)


def _make_room(store: Path, newest: Path, limit: int) -> None:
    entries = sorted(
        (path.stat().st_mtime, path.stat().st_size, path) for path in store.glob("*.tar")
    )
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= limit:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            total -= size


if __name__ == "__main__":
    main()
