"""What a label's key and value may look like.

Keys are those of Kubernetes: an optional prefix and a slash, then a name. Values are freer, up
to 256 characters without control characters.
"""

import re
import unicodedata
from collections.abc import Mapping

from server.domain.errors import Violation

LONGEST_PREFIX = 253
LONGEST_NAME = 63
LONGEST_VALUE = 256
LARGEST = 2**63 - 1
MOST_LABELS = 256
LARGEST_SET = 16 * 1024

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")


def as_integer(text: str) -> int | None:
    """Return the 64-bit integer that this text writes in ASCII digits, or None."""
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -LARGEST - 1 <= number <= LARGEST else None


def key_problem(key: str) -> str | None:
    """Return what is wrong with a label's key, or None."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > LONGEST_PREFIX or not _PREFIX.fullmatch(prefix)):
        return f"a prefix should be a lower-case DNS name of up to {LONGEST_PREFIX} characters"
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        return (
            f"a key should be 1-{LONGEST_NAME} letters, digits, '.', '_' or '-',"
            " with a letter or digit at both ends"
        )
    return None


def value_problem(value: str) -> str | None:
    """Return what is wrong with a label's value, or None."""
    if len(value) > LONGEST_VALUE:
        return f"a value should have at most {LONGEST_VALUE} characters"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        return "a value should have no control characters"
    return None


def check_labels(labels: Mapping[str, str], path: str) -> list[Violation]:
    """Return what is wrong with a label set that is found at this path of a request."""
    if not labels:
        return []
    size = sum(len(key) + len(value) for key, value in labels.items())
    if len(labels) > MOST_LABELS or size > LARGEST_SET:
        text = f"should have at most {MOST_LABELS} labels and {LARGEST_SET} characters in all"
        return [Violation(path, text)]
    return [
        Violation(f"{path}[{key}]", problem)
        for key, value in sorted(labels.items())
        for problem in (key_problem(key), value_problem(value))
        if problem
    ]
