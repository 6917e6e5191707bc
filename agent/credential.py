"""Who the agent is to the control plane: what it shows when it registers, and after that.

At first it shows an enrolment token. With it goes the digest of a token that the agent has made and
that nobody else knows; from then on it shows that one to register. Registering gives it a key that
counts for minutes, which is what all its other calls show; answers to heartbeats bring the next.
"""

import hashlib
import os
import secrets
import zlib
from pathlib import Path

_FILE = "credential"
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LETTERS = 40
_CHECK_LETTERS = 6


class CredentialError(Exception):
    """A token cannot be read or kept; the message says why."""


class Credential:
    """What one agent shows.

    Attributes:
        key: What calls show now; empty until the agent is registered, or where nobody asks.
    """

    def __init__(self, data_dir: Path, enrolment: str) -> None:
        self._path = data_dir / _FILE
        self._enrolment = enrolment
        self._own = _kept(self._path)
        self._enrolled = bool(self._own)
        self.key = ""

    @property
    def any(self) -> bool:
        """Whether there is anything to show, so that the connection should be a safe one."""
        return bool(self._own or self._enrolment)

    @property
    def digest(self) -> str:
        """What the control plane keeps of the agent's own token; empty where it has none."""
        return hashlib.sha256(self._own.encode()).hexdigest() if self._own else ""

    def to_register(self) -> list[str]:
        """Returns what to show when registering, the best first; makes the agent's own token.

        Raises:
            CredentialError: It cannot be kept.
        """
        if not self._own and self._enrolment:
            self._own = _make()
            _keep(self._path, self._own)
        own = [self._own] if self._enrolled else []
        # An answer that was lost may have enrolled it already: its own token tells.
        self._enrolled = bool(self._own)
        return [*own, *([self._enrolment] if self._enrolment else [])] or [""]


def enrolment_token(file: Path | None) -> str:
    """Returns the token in a file, or in MUSTER_AGENT_ENROLMENT_TOKEN, or an empty text.

    Raises:
        CredentialError: The file cannot be read.
    """
    if file is None:
        # Taken out: the supervisor and its children have no use for it.
        return os.environ.pop("MUSTER_AGENT_ENROLMENT_TOKEN", "").strip()
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(f"enrolment token: {error}") from error


def _kept(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise CredentialError(f"the agent's credential: {error}") from error


def _keep(path: Path, token: str) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{token}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CredentialError(f"cannot keep the agent's credential: {error}") from error


def _make() -> str:
    """Returns a new token, in the form that docs/access.md describes."""
    drawn = "".join(secrets.choice(_LETTERS) for _ in range(_SECRET_LETTERS))
    body = f"muster_agent_{drawn}"
    check, letters = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK_LETTERS):
        check, digit = divmod(check, len(_LETTERS))
        letters = _LETTERS[digit] + letters
    return body + letters
