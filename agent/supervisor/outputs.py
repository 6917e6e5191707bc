"""Reads what a task has put into the file that MUSTER_OUTPUT names: values for later jobs."""

import os
import re
import stat
from bisect import bisect_left

from agent.supervisor.masking import Mask

NAME = ".muster-output"
"""The file, in the task's own temporary directory."""

LARGEST = 64 * 1024
"""Bytes of the file that are read."""

MOST = 1000
"""Values that are taken."""

_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_-]{0,63})(=|<<)(.*)", re.DOTALL)


def read_outputs(temporary: str, mask: Mask) -> tuple[dict[str, str], str]:
    """Returns the values by name, and what is wrong with the file, or nothing.

    What is fine is returned although something else is wrong. Secrets are masked as in the log.
    """
    try:
        data = _read(f"{temporary}/{NAME}")
    except FileNotFoundError:
        return {}, ""
    except OSError as error:
        return {}, f"MUSTER_OUTPUT cannot be read: {error.strerror}"
    if len(data) > LARGEST:
        return {}, f"MUSTER_OUTPUT is larger than {LARGEST >> 10} KiB; nothing of it is taken"
    if mask.hides:
        data = mask.feed(0, data) + mask.rest(0)
    return parse(data.decode("utf-8", "replace"))


def _read(path: str) -> bytes:
    """Returns the beginning of a plain file; a task may have put anything there."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise OSError(0, "it is no plain file of the task's own")
        return os.read(file, LARGEST + 1)
    finally:
        os.close(file)


def parse(text: str) -> tuple[dict[str, str], str]:
    """Returns the values by name, and what is wrong first, or nothing.

    A line is `NAME=VALUE`; `NAME<<MARK` begins a value of several lines, which a line with the mark
    alone ends. A name that comes again has its last value. What follows a value that does not end
    belongs to it, and is not taken.
    """
    values: dict[str, str] = {}
    wrong = ""
    lines = text.replace("\0", "\ufffd").split("\n")
    places: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        places.setdefault(line, []).append(number)
    place = 0
    while place < len(lines):
        line, number = lines[place], place + 1
        place += 1
        if not line.strip():
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            wrong = wrong or f"MUSTER_OUTPUT line {number} is neither NAME=VALUE nor NAME<<MARK"
        elif found[2] == "=":
            values[found[1]] = found[3]
        else:
            marks = places.get(found[3], []) if found[3] else []
            end = bisect_left(marks, place)
            if end == len(marks):
                wrong = wrong or f"MUSTER_OUTPUT line {number}: no later line is {found[3]!r} alone"
                break
            values[found[1]] = "\n".join(lines[place : marks[end]])
            place = marks[end] + 1
    if len(values) > MOST:
        return {}, f"MUSTER_OUTPUT has {len(values)} values; at most {MOST} are taken, and so none"
    return values, wrong


def sound(outputs: object) -> dict[str, str]:
    """Returns values that a file says which a task may have written: those that can be some."""
    if not isinstance(outputs, dict) or len(outputs) > MOST:
        return {}
    return {
        name: value
        for name, value in outputs.items()
        if isinstance(value, str) and _LINE.fullmatch(f"{name}=") and _is_text(value)
    }


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)
