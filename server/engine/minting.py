"""Making tokens: the one place where their secret is drawn."""

import secrets

from server.domain.token import SECRET_LETTERS, TokenKind, digest_of, write

_COUNT = 62**SECRET_LETTERS


def mint(kind: TokenKind) -> tuple[str, str]:
    """Return a new token's text, which is shown once, and its digest, which is kept."""
    text = write(kind, secrets.randbelow(_COUNT))
    return text, digest_of(text)
