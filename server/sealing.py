"""Encrypting secrets: AES-256-GCM, each value under a data key of its own.

The data keys are wrapped by a key-encryption key, of which there may be several versions: the first
of the file wraps, all unwrap. The file has a `VERSION:KEY` a line, the key as 32 bytes in base64.
What a ciphertext belongs to is bound to it, so that none can be put in another's place.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.domain.kept_secret import KeptSecret, Sealed
from server.private_file import make_private

KEY_BYTES = 32
NONCE_BYTES = 12
KEY_FILE = "secret-keys"
CREDENTIAL = "secret-keys"
"""What the file is called among systemd's credentials."""

FROM_ENVIRONMENT = "env:"

_VERSION = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class SealingError(Exception):
    """A value cannot be decrypted; the message says which, and never what."""


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One of the key-encryption keys."""

    name: str
    key: bytes


class Sealer:
    """See the module."""

    def __init__(self, keys: list[KeyVersion]) -> None:
        self._keys = {each.name: each.key for each in keys}
        self.current = keys[0].name
        self._fingerprint_key = hashlib.sha256(b"fingerprint" + keys[0].key).digest()

    @property
    def versions(self) -> frozenset[str]:
        """The keys there are."""
        return frozenset(self._keys)

    def seal(self, value: str, *bound: str) -> Sealed:
        """Return a value encrypted, bound to these words."""
        data_key = secrets.token_bytes(KEY_BYTES)
        about = _about(bound)
        data = _encrypt(data_key, value.encode(), about)
        return Sealed(self.current, _encrypt(self._keys[self.current], data_key, about), data)

    def open(self, sealed: Sealed, *bound: str) -> str:
        """Return the value.

        Raises:
            SealingError: its key is gone, or it was made of other words, or it is damaged.
        """
        about = _about(bound)
        data_key = self._unwrap(sealed.kek, sealed.wrapped, about, bound)
        try:
            return _decrypt(data_key, sealed.data, about).decode()
        except ValueError:
            raise SealingError(f"{bound[-1]}: the ciphertext is damaged or another's") from None

    def rewrap(self, kek: str, wrapped: bytes, *bound: str) -> bytes:
        """Return a data key under the current key.

        Raises:
            SealingError: the key it is under is gone, or it is damaged.
        """
        about = _about(bound)
        return _encrypt(self._keys[self.current], self._unwrap(kek, wrapped, about, bound), about)

    def seal_all(self, values: Mapping[str, str], namespace: str) -> str:
        """Return values that a task brings along, as one text that can lie beside it."""
        sealed = self.seal(json.dumps(dict(values)), "task", namespace)
        parts = (sealed.wrapped, sealed.data)
        return ":".join([sealed.kek, *(base64.b64encode(part).decode() for part in parts)])

    def open_all(self, text: str, namespace: str) -> dict[str, str]:
        """Return the values that `seal_all` was given.

        Raises:
            SealingError: they cannot be decrypted.
        """
        try:
            kek, wrapped, data = text.split(":")
            sealed = Sealed(kek, base64.b64decode(wrapped), base64.b64decode(data))
        except ValueError:
            raise SealingError("the task's secrets are damaged") from None
        opened: dict[str, str] = json.loads(self.open(sealed, "task", namespace))
        return opened

    def rewrap_all(self, text: str, namespace: str) -> str:
        """Return what `seal_all` gave under the current key.

        Raises:
            SealingError: its key is gone, or it is damaged.
        """
        try:
            kek, wrapped, data = text.split(":")
            anew = self.rewrap(kek, base64.b64decode(wrapped), "task", namespace)
        except ValueError:
            raise SealingError("the task's secrets are damaged") from None
        return ":".join([self.current, base64.b64encode(anew).decode(), data])

    def fingerprint(self, data: bytes) -> str:
        """Return 64 digits by which equal data is known, and guessed only by who has the key."""
        return hmac.new(self._fingerprint_key, data, hashlib.sha256).hexdigest()

    def _unwrap(self, kek: str, wrapped: bytes, about: bytes, bound: tuple[str, ...]) -> bytes:
        if kek not in self._keys:
            raise SealingError(f"{bound[-1]}: the key {kek!r} that it is encrypted under is gone")
        try:
            return _decrypt(self._keys[kek], wrapped, about)
        except ValueError:
            raise SealingError(f"{bound[-1]}: its data key is damaged or another's") from None


def bound_to(secret: KeptSecret) -> tuple[str, str, str, str]:
    """Return the words that a kept secret's ciphertext is bound to."""
    return ("secret", secret.namespace, str(secret.version), secret.name)


def load_keys(where: str, data_dir: Path, *, make: bool) -> list[KeyVersion]:
    """Return the key-encryption keys; none where there is no file and none is to be made.

    `where` names a file, or `env:VARIABLE`; empty takes systemd's credential `secret-keys` where
    there is one, and `secret-keys` in the data folder otherwise.

    Raises:
        OSError: they cannot be read or made, or are malformed; no key is in the message.
    """
    if where.startswith(FROM_ENVIRONMENT):
        variable = where.removeprefix(FROM_ENVIRONMENT)
        text = os.environ.get(variable)
        if text is None:
            raise OSError(f"the variable {variable} that should hold the secret keys is not set")
        return _checked(text.replace(",", "\n"), variable)
    path = Path(where) if where else _usual(data_dir)
    if not where and not path.exists():
        if not make:
            return []
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        make_private(path, f"k1:{key}\n")
    try:
        return _checked(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise OSError(f"{path}: is not text") from None


def _usual(data_dir: Path) -> Path:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and (file := Path(credentials) / CREDENTIAL).exists():
        return file
    return data_dir / KEY_FILE


def _checked(text: str, source: str) -> list[KeyVersion]:
    try:
        return parse(text)
    except ValueError as error:
        raise OSError(f"{source}: {error}") from None


def parse(text: str) -> list[KeyVersion]:
    """Return the keys of a file's lines.

    Raises:
        ValueError: a line is something else, or there is none.
    """
    found: list[KeyVersion] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        version, colon, encoded = line.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not colon or not _VERSION.fullmatch(version) or len(key) != KEY_BYTES:
            raise ValueError(f"line {number} should be VERSION:KEY, the key as 32 bytes in base64")
        if version in {each.name for each in found}:
            raise ValueError(f"line {number}: {version} is there twice")
        found.append(KeyVersion(version, key))
    if not found:
        raise ValueError("has no line VERSION:KEY")
    return found


def _about(bound: tuple[str, ...]) -> bytes:
    return json.dumps(bound).encode()  # no two lists of words look the same


def _encrypt(key: bytes, data: bytes, about: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # late: most keep no secrets

    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, data, about)


def _decrypt(key: bytes, data: bytes, about: bytes) -> bytes:
    """Return what was encrypted.

    Raises:
        ValueError: it was not, with this key and about this.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], about)
    except InvalidTag:
        raise ValueError("damaged, or another's") from None
