"""Ids that follow from others, so that a repeated try makes the same ones."""

from uuid import UUID

_PLACES = 1 << 24


def derived_id(parent: str, place: int) -> str:
    """Return the id of the n-th child of a UUIDv7: still ordered by time, and still a UUIDv7."""
    number = UUID(parent).int
    low = (number + 1 + place) % _PLACES
    return str(UUID(int=number - number % _PLACES + low))
