"""Hides a task's secrets in what it prints, before anything reaches the disk."""

import base64
import json
import re
import urllib.parse
from collections.abc import Iterable

_SHOWN = b"***"
_SHORTEST = 4
"""Shorter values are not hidden: they would blot out ordinary text."""

_LINE = 76
_ESCAPE = re.compile("%[0-9A-F]{2}")


class Mask:
    """Replaces secrets in several streams of bytes, also where a read cuts one in two."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms = sorted(_forms(secrets), key=len, reverse=True)
        self._longest = len(self._forms[0]) if self._forms else 0
        self._held: dict[int, bytes] = {}

    @property
    def hides(self) -> bool:
        """Whether there is anything to look for, which takes time."""
        return bool(self._forms)

    def feed(self, stream: int, data: bytes) -> bytes:
        """Returns what may be shown by now; holds back what could be the start of a secret."""
        if not self._forms:
            return data
        text = self._held.get(stream, b"") + data
        # No form holds a line end, so nothing before the last one can still grow into a secret.
        free = max(text.rfind(b"\n") + 1, len(text) - self._longest + 1, 0)
        shown = bytearray()
        done = 0
        for found in self._found(text):
            if found.start() >= free:
                break
            shown += text[done : found.start()] + _SHOWN
            done = found.end()
        free = max(free, done)
        shown += text[done:free]
        self._held[stream] = text[free:]
        return bytes(shown)

    def rest(self, stream: int) -> bytes:
        """Returns what was held back, at the stream's end."""
        held = self._held.pop(stream, b"")
        pattern = self._pattern(held)
        return pattern.sub(_SHOWN, held) if pattern else held

    def _found(self, text: bytes) -> Iterable[re.Match[bytes]]:
        pattern = self._pattern(text)
        return pattern.finditer(text) if pattern else ()

    def _pattern(self, text: bytes) -> re.Pattern[bytes] | None:
        """Returns what finds the forms that are in a text: one for all takes seconds for keys."""
        forms = [form for form in self._forms if form in text]
        return re.compile(b"|".join(map(re.escape, forms))) if forms else None


def _forms(secrets: Iterable[str]) -> set[bytes]:
    forms: set[bytes] = set()
    for secret in secrets:
        for value in {secret, *secret.splitlines()}:
            if len(value) >= _SHORTEST:
                forms.update(_spellings(value))
    return {form for form in forms if b"\n" not in form}


def _spellings(value: str) -> Iterable[bytes]:
    raw = value.encode()
    yield raw
    for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        yield encoded.rstrip(b"=")
        # `base64` breaks what it prints into lines.
        lines = [encoded[n : n + _LINE] for n in range(0, len(encoded), _LINE)]
        yield from (line.rstrip(b"=") for line in lines if len(line.rstrip(b"=")) >= _SHORTEST)
    for quoted in (
        urllib.parse.quote(value, safe=""),
        urllib.parse.quote(value),
        urllib.parse.quote_plus(value),
        urllib.parse.quote_plus(value, safe="/"),
    ):
        yield quoted.encode()
        yield _ESCAPE.sub(lambda found: found[0].lower(), quoted).encode()
    for escaped in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield escaped.encode()
        yield escaped.replace("/", "\\/").encode()  # as some write it
