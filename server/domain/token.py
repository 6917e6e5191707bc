"""Tokens: what a caller shows to say who it is.

A token is random text that its owner alone knows; we keep its digest. It looks like

    muster_user_<40 letters and digits><6 more that are a checksum of all before>

so that scanners of source code and logs find one that was left lying about, and tell it from text
that only resembles one. 40 of 62 letters are 238 bits: nobody guesses one, so a plain SHA-256 of it
needs neither salt nor stretching.
"""

import hashlib
import re
import zlib
from dataclasses import dataclass, field
from enum import StrEnum

from server.domain.access import Role
from server.domain.moment import Moment

EVERYWHERE = "*"
"""The namespace of a token that counts in every namespace."""

SECRET_LETTERS = 40
CHECK_LETTERS = 6
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"muster_(user|enrol|agent|upload)_[0-9A-Za-z]{46}", re.ASCII)


class TokenKind(StrEnum):
    """What a token is for."""

    USER = "user"
    """A person or a program calls the API."""

    ENROL = "enrol"
    """A host becomes an agent."""

    AGENT = "agent"
    """An agent comes back after its key has ended."""

    UPLOAD = "upload"
    """A producer outside of tasks hands in files: an upload grant."""


@dataclass(slots=True)
class Token:
    """What is kept of a token."""

    key: int
    namespace: str
    """Where it counts; `EVERYWHERE` in every namespace."""
    public_id: str
    kind: TokenKind
    digest: str
    """SHA-256 of the token, in hexadecimal."""
    name: str
    """Whose it is, or what it is for, in the words of who made it."""
    role: Role | None
    """What a USER may do."""
    subject: str
    """The agent that an AGENT is, or that alone may use an ENROL; else empty."""
    created_at: Moment
    created_by: str
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that hosts which enrol with it get and cannot change."""
    uses_left: int | None = None
    """How often it may still be used; None is as often as one likes."""
    expires_at: Moment | None = None
    revoked_at: Moment | None = None
    used_at: Moment | None = None
    """When it was shown last, to the minute."""

    def counts(self, now: Moment) -> bool:
        """Tell whether who shows it now is let in."""
        return (
            self.revoked_at is None
            and (self.expires_at is None or now < self.expires_at)
            and (self.uses_left is None or self.uses_left > 0)
        )


def write(kind: TokenKind, number: int) -> str:
    """Return a token's text; `number` is random, from 0 to below `62**SECRET_LETTERS`."""
    body = f"muster_{kind.value}_{_letters(number, SECRET_LETTERS)}"
    return body + _checksum(body)


def kind_of(text: str) -> TokenKind | None:
    """Return what sort of token a text is, or None where it is none or was mistyped."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    body, given = text[:-CHECK_LETTERS], text[-CHECK_LETTERS:]
    if _checksum(body) != given:  # no secret: anybody can work it out
        return None
    return TokenKind(found[1])


def digest_of(text: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _letters(zlib.crc32(body.encode()), CHECK_LETTERS)


def _letters(number: int, count: int) -> str:
    letters = []
    for _ in range(count):
        number, digit = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[digit])
    return "".join(reversed(letters))
