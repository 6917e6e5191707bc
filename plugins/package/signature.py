"""Signatures of packages: Ed25519 over BLAKE2b, in the files of minisign.

Files made here verify with the minisign program and the other way round. Secret keys are read
and written without a password, as `minisign -G -W` makes them; keys with one sign with minisign.
"""

import base64
import binascii
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from plugins.package.refusal import PackageRefused, refused

SUFFIX = ".minisig"
MAX_TEXT = 8192
"""Bytes in a file of keys or a signature."""

_KEY = b"Ed"
_HASHED = b"ED"
_NO_PASSWORD = b"\0\0"
_CHECKSUM = b"B2"
_UNTRUSTED = "untrusted comment: "
_TRUSTED = "trusted comment: "


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with; `id` is 8 bytes, shown as minisign shows them."""

    id: bytes
    key: bytes

    @property
    def name(self) -> str:
        """Return the key's id as minisign writes it."""
        return self.id[::-1].hex().upper()

    def text(self) -> str:
        """Return the contents of the key's file."""
        line = base64.b64encode(_KEY + self.id + self.key).decode()
        return f"{_UNTRUSTED}minisign public key {self.name}\n{line}\n"


@dataclass(frozen=True)
class SecretKey:
    """A key that signs; `seed` is its 32 secret bytes."""

    id: bytes
    seed: bytes

    def __repr__(self) -> str:
        return f"SecretKey({self.id.hex()})"  # never the seed

    def public(self) -> PublicKey:
        """Return the key that checks what this one signs."""
        return PublicKey(self.id, self._private().public_key().public_bytes_raw())

    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def sign(self, file: BufferedReader, comment: str) -> str:
        """Return the signature file of a file, with a comment that is signed too.

        Raises:
            PackageRefused: the comment is more than one line.
        """
        if not comment.isprintable():
            raise refused("comment", "has letters that cannot be printed")
        private = self._private()
        signature = private.sign(_hash(file))
        whole = private.sign(signature + comment.encode())
        line = base64.b64encode(_HASHED + self.id + signature).decode()
        return (
            f"{_UNTRUSTED}signature of a Muster plugin\n{line}\n"
            f"{_TRUSTED}{comment}\n{base64.b64encode(whole).decode()}\n"
        )

    def text(self) -> str:
        """Return the contents of the key's file."""
        pair = self.seed + self.public().key
        data = _KEY + _NO_PASSWORD + _CHECKSUM + bytes(48) + self.id + pair + _check(self.id, pair)
        return f"{_UNTRUSTED}minisign secret key\n{base64.b64encode(data).decode()}\n"


def new_key() -> SecretKey:
    """Return a key that nobody had before."""
    return SecretKey(os.urandom(8), os.urandom(32))


def parse_public_key(text: str) -> PublicKey:
    """Return the key in a file's text, or in its second line alone.

    Raises:
        PackageRefused: there is none.
    """
    lines = text.strip().splitlines()
    if len(lines) not in (1, 2):
        raise refused("public key", "is not a file of minisign's")
    data = _decoded("public key", lines[-1], 42)
    if data[:2] != _KEY:
        raise refused("public key", "is not an Ed25519 key of minisign's")
    return PublicKey(data[2:10], data[10:])


def parse_secret_key(text: str) -> SecretKey:
    """Return the key in a file's text.

    Raises:
        PackageRefused: there is none, or it has a password.
    """
    lines = text.strip().splitlines()
    if len(lines) != 2:
        raise refused("secret key", "is not a file of minisign's")
    data = _decoded("secret key", lines[1], 158)
    if data[:2] != _KEY or data[4:6] != _CHECKSUM:
        raise refused("secret key", "is not an Ed25519 key of minisign's")
    if data[2:4] != _NO_PASSWORD:
        raise refused("secret key", "has a password; sign with it by: minisign -S -m PACKAGE")
    id_, pair, check = data[54:62], data[62:126], data[126:]
    key = SecretKey(id_, pair[:32])
    # minisign -W leaves the checksum empty in some versions; the pair must fit in any case.
    if check not in (_check(id_, pair), bytes(32)) or key.public().key != pair[32:]:
        raise refused("secret key", "is damaged")
    return key


def verify(
    file: BufferedReader, signature: str, trusted: Iterable[PublicKey]
) -> tuple[PublicKey, str]:
    """Return the trusted key that signed a file, and the comment that was signed with it.

    Raises:
        PackageRefused: none of them did, the file is another, or the signature is malformed.
    """
    lines = signature.splitlines()
    if len(lines) != 4 or not lines[2].startswith(_TRUSTED):
        raise refused("signature", "is not a file of minisign's")
    data = _decoded("signature", lines[1], 74)
    if data[:2] != _HASHED:
        raise refused("signature", "is in the old form without a hash; sign with: minisign -S -H")
    id_, body = data[2:10], data[10:]
    whole = _decoded("signature", lines[3], 64)
    comment = lines[2].removeprefix(_TRUSTED)
    candidates = [key for key in trusted if key.id == id_]
    if not candidates:
        name = id_[::-1].hex().upper()
        raise refused("signature", f"is by the key {name}, which is not trusted here")
    hashed = _hash(file)
    for key in candidates:
        public = Ed25519PublicKey.from_public_bytes(key.key)
        try:
            public.verify(body, hashed)
            public.verify(whole, body + comment.encode())
        except InvalidSignature:
            continue
        return key, comment
    raise refused("signature", "is not of this file")


def read_text(path: Path) -> str:
    """Return the text of a key's or signature's file.

    Raises:
        PackageRefused: it is too large or no text.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_TEXT + 1)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > MAX_TEXT:
        raise PackageRefused([(str(path), "is not a file of minisign's")])
    return text


def _hash(file: BufferedReader) -> bytes:
    file.seek(0)
    return hashlib.file_digest(file, hashlib.blake2b).digest()


def _check(id_: bytes, pair: bytes) -> bytes:
    return hashlib.blake2b(_KEY + id_ + pair, digest_size=32).digest()


def _decoded(what: str, line: str, size: int) -> bytes:
    try:
        data = base64.b64decode(line.strip(), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise refused(what, "is not a file of minisign's")
    return data
