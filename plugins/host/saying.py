"""Writes into the task's log: whole, at once, and whatever the locale."""

import os

OUT = 1
ERR = 2


def write(descriptor: int, data: bytes) -> None:
    """Writes bytes, however long their reader takes."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def say(descriptor: int, text: str) -> None:
    """Writes a line."""
    write(descriptor, f"{text}\n".encode(errors="replace"))
