"""Ids that follow from others, so that a repeated try makes the same ones."""

from hashlib import blake2b
from uuid import UUID

_PLACES = 1 << 24


def derived_id(parent: str, place: int) -> str:
    """Return the id of the n-th child of a UUIDv7: still ordered by time, and still a UUIDv7."""
    number = UUID(parent).int
    low = (number + 1 + place) % _PLACES
    return str(UUID(int=number - number % _PLACES + low))


def moment_id(parent: str, moment: int) -> str:
    """Return the id of what comes of a parent at a moment (Unix milliseconds): a UUIDv7 of then."""
    digest = blake2b(f"{parent} {moment}".encode(), digest_size=10).digest()
    rest = int.from_bytes(digest)
    number = (moment & (1 << 48) - 1) << 80 | rest
    number = number & ~(0xF << 76) | 0x7 << 76  # the version
    return str(UUID(int=number & ~(0x3 << 62) | 0x2 << 62))  # the variant
