"""JSON as other people's tools print it."""

import json
from typing import Any


def objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects that follow one another in a text."""
    found, decoder, rest = [], json.JSONDecoder(), text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        found.append(value)
        rest = rest[end:].strip()
    return found
