"""Keys of agents and tasks: short-lived JSON Web Tokens, signed by a set of secrets that rotates.

The set is a file with a `kid:secret` a line. The first signs; all verify, so an old one stays valid
until its line is removed. The file is read again when it changes.
"""

import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from server.domain.errors import Unauthenticated
from server.domain.moment import SECOND, Moment
from server.engine.clock import Clock
from server.private_file import make_private

ALGORITHM = "HS256"
ISSUER = "muster"
KEY_FILE = "signing-keys"
SHORTEST_SECRET = 32
"""Characters; the algorithm wants as many bits as it makes."""

_KID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_REQUIRED = ["exp", "iat", "aud", "iss", "sub", "ns"]
_LOOK_SECONDS = 1.0

INVALID = "This key does not count: it has ended, its secret is gone, or it is damaged."

log = structlog.get_logger(__name__)


class Audience(StrEnum):
    """Whom a key is for: one for an agent is none for a task."""

    AGENT = "muster-agent"
    TASK = "muster-task"


@dataclass(frozen=True, slots=True)
class Secret:
    """One of the secrets that sign."""

    kid: str
    value: str


class SigningKeys:
    """The secrets in a file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        import jwt  # late: a server that asks nobody who they are does not need it

        self._jwt = jwt
        self._path = path
        self._clock = clock
        self._secrets: list[Secret] = []
        self._stamp: tuple[int, int] = (0, 0)
        self._looked = float("-inf")

    def open(self, *, make: bool) -> None:
        """Read the file; make one with a new secret when there is none and `make` says so.

        Raises:
            OSError: it cannot be read or made, or does not hold what it should.
        """
        if make and not self._path.exists():
            make_private(self._path, f"k1:{secrets.token_urlsafe(SHORTEST_SECRET)}\n")
        try:
            self._read()
        except ValueError as error:
            raise OSError(f"{self._path}: {error}") from None

    def secrets(self) -> list[bytes]:
        """Return the secrets, the one that signs first."""
        self._look()
        return [each.value.encode() for each in self._secrets]

    def sign(
        self, audience: Audience, subject: str, ends_at: Moment, claims: dict[str, Any]
    ) -> str:
        """Return a key that counts until a moment."""
        self._look()
        secret = self._secrets[0]
        payload = {
            "iss": ISSUER,
            "aud": audience.value,
            "sub": subject,
            "iat": self._clock.now() // SECOND,
            "exp": ends_at // SECOND,
            **claims,
        }
        return self._jwt.encode(payload, secret.value, ALGORITHM, headers={"kid": secret.kid})

    def verify(self, text: str, *audiences: Audience) -> dict[str, Any]:
        """Return the claims of a key that is for one of these; `aud` says for which.

        Raises:
            Unauthenticated: it does not count.
        """
        self._look()
        try:
            kid = self._jwt.get_unverified_header(text).get("kid")
            secret = next((each.value for each in self._secrets if each.kid == kid), None)
            if secret is None:
                raise Unauthenticated(INVALID)
            claims: dict[str, Any] = self._jwt.decode(
                text,
                secret,
                algorithms=[ALGORITHM],
                audience=audiences,
                issuer=ISSUER,
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
            )
        except self._jwt.InvalidTokenError:
            raise Unauthenticated(INVALID) from None
        ends, texts = claims["exp"], (claims["sub"], claims["ns"], claims["aud"])
        if type(ends) is not int or not all(isinstance(each, str) for each in texts):
            raise Unauthenticated(INVALID)
        if ends * SECOND <= self._clock.now():  # by the clock that also made it
            raise Unauthenticated(INVALID)
        return claims

    def _look(self) -> None:
        """Read the file again when it has changed; one that is damaged changes nothing."""
        now = self._clock.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            if _stamp(self._path) != self._stamp:
                self._read()
                log.info("signing keys read again", kids=[each.kid for each in self._secrets])
        except (OSError, ValueError) as error:
            log.warning("signing keys stay as they were", file=str(self._path), reason=str(error))

    def _read(self) -> None:
        stamp = _stamp(self._path)
        self._secrets = parse(self._path.read_text(encoding="utf-8"))
        self._stamp = stamp


def parse(text: str) -> list[Secret]:
    """Return the secrets of a file's lines.

    Raises:
        ValueError: a line is something else, or there is none; secrets are not in the message.
    """
    found: list[Secret] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        kid, colon, value = line.strip().partition(":")
        if not colon or not _KID.fullmatch(kid):
            raise ValueError(f"line {number} should be KID:SECRET, with letters and digits as KID")
        if len(value) < SHORTEST_SECRET:
            raise ValueError(f"line {number}: a secret has at least {SHORTEST_SECRET} characters")
        if kid in {each.kid for each in found}:
            raise ValueError(f"line {number}: {kid} is there twice")
        found.append(Secret(kid, value))
    if not found:
        raise ValueError("has no line KID:SECRET")
    return found


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino
