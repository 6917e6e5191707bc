"""URLs of the server's own HTTP door that count for a short time, for one file or part."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any

from server.domain.moment import SECOND
from server.engine.clock import Clock

Keys = Callable[[], Sequence[bytes]]
"""Returns the secrets: the first signs, all of them verify."""


class UrlSigner:
    """Signs what a URL is for, and reads it back."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self.base = ""
        """What the server's URLs begin with."""

    def token(self, seconds: int, **claims: Any) -> str:  # noqa: ANN401 (values of JSON)
        """Return a part of a path that says what may be done until when."""
        claims["e"] = self._clock.now() + seconds * SECOND
        body = _encoded(json.dumps(claims, separators=(",", ":")).encode())
        return f"{body}.{_encoded(_signed(self._keys()[0], body))}"

    def read(self, token: str, kind: str) -> dict[str, Any] | None:
        """Return what a token says; None where it is none, is of another kind, or has ended."""
        body, _, signature = token.partition(".")
        try:
            given = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
            if not any(hmac.compare_digest(given, _signed(key, body)) for key in self._keys()):
                return None
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (ValueError, binascii.Error):
            return None
        if not isinstance(claims, dict) or claims.get("k") != kind:
            return None
        return claims if claims["e"] > self._clock.now() else None


def _signed(key: bytes, body: str) -> bytes:
    return hmac.digest(hashlib.sha256(b"muster url\0" + key).digest(), body.encode(), "sha256")


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
