"""Measurements of the host's owner: `NAME VALUE` lines in files of one folder."""

import math
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

SUFFIX = ".prom"
FILES = 32
FILE_BYTES = 64 * 1024
LIMIT = 50
"""Measurements, at most; with the agent's own the server takes 64."""
NAME_LIMIT = 200
VALUE_LIMIT = 64

_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:.]*(?:\{[^{}]*\})?)[ \t]+(\S+)(?:[ \t]+-?\d+)?")


def read(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Returns measurements by name, and a sentence for each thing that was left out.

    Files are `*.prom`, read in the order of their names, in the form of Prometheus' text files; of
    a name that comes twice the first counts. Reads at most 32 files of 64 KiB.
    """
    found: dict[str, str] = {}
    complaints: list[str] = []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        return {}, [f"{folder}: {error.strerror}"]
    if len(paths) > FILES:
        complaints.append(f"{folder}: more than {FILES} files")
    for path in paths[:FILES]:
        try:
            text = _text(path)
        except (OSError, ValueError) as error:
            complaints.append(f"{path}: {getattr(error, 'strerror', None) or error}")
            continue
        for number, line in _lines(text):
            sample = _sample(line)
            if sample is None:
                complaints.append(f"{path}: line {number} is not NAME VALUE")
            elif len(found) < LIMIT or sample[0] in found:
                found.setdefault(*sample)
            else:
                complaints.append(f"{folder}: more than {LIMIT} measurements")
                return found, complaints
    return found, complaints


def _text(path: Path) -> str:
    """Returns a file's text.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no file, too long, or no UTF-8.
    """
    # Something that is no file must not make the agent wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - it is open already
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is not a file")
        content = file.read(FILE_BYTES + 1)
    if len(content) > FILE_BYTES:
        raise ValueError(f"is longer than {FILE_BYTES} bytes")
    return content.decode()


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line.strip()


def _sample(line: str) -> tuple[str, str] | None:
    """Returns name and value of a line that has them; no number and no end are no value."""
    match = _SAMPLE.fullmatch(line)
    if match is None:
        return None
    name, value = match.groups()
    if len(name) > NAME_LIMIT or len(value) > VALUE_LIMIT or not name.isprintable():
        return None
    try:
        finite = math.isfinite(float(value))
    except ValueError:
        return None
    return (name, value) if finite else None
