"""Signing tasks, for agents that run only what a key they trust has signed.

What is signed is in docs/agent-hardening.md; the agent works it out by itself.
"""

import base64
import hashlib
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cli.failure import CommandFailed
from generated.task.v1 import task_pb2

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

HEAD = b"muster-task-v1\n"
TIMEOUT_DEFAULT = 3600
KEY_ID_DIGITS = 16
NEEDED = "signing needs the package cryptography: pip install 'muster[signing]'"


def make_key(file: Path) -> str:
    """Make a key in a file of mode 0600; return the line by which agents trust it.

    Raises:
        CommandFailed: the file exists or cannot be written, or a library is missing.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise CommandFailed(NEEDED) from None
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(secret)
    except OSError as error:
        raise CommandFailed(f"cannot make {file}: {error.strerror}") from None
    return public_line(key)


def sign(request: task_pb2.CreateTaskRequest, file: Path, lasting: timedelta) -> None:
    """Sign a request with the key in a file, for so long.

    Raises:
        CommandFailed: the file holds no key of ours, or a library is missing.
    """
    key = _read(file)
    signature = request.signature
    signature.key_id = public_line(key).partition(":")[0]
    signature.not_after = int((time.time() + lasting.total_seconds()) * 1000)
    signature.signature = key.sign(signed_bytes(request))


def signed_bytes(request: task_pb2.CreateTaskRequest) -> bytes:
    """Return what a task's signature is over."""
    told = {
        "artifacts": [[each.name, each.path, each.destination] for each in request.artifacts],
        "commands": list(request.commands),
        "env": dict(request.env),
        "executor": request.executor,
        "image": request.image,
        "not_after": request.signature.not_after,
        "secrets": sorted({*request.secrets, *request.secret_refs}),
        "timeout": request.timeout or TIMEOUT_DEFAULT,
        "workspace": request.workspace,
    }
    return HEAD + json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def public_line(key: "Ed25519PrivateKey") -> str:
    """Return KEY_ID:PUBLIC_KEY, as a file of trusted keys has it."""
    public = key.public_key().public_bytes_raw()
    key_id = hashlib.sha256(public).hexdigest()[:KEY_ID_DIGITS]
    return f"{key_id}:{base64.b64encode(public).decode()}"


def _read(file: Path) -> "Ed25519PrivateKey":
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError:
        raise CommandFailed(NEEDED) from None
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise CommandFailed(f"{file}: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise CommandFailed(f"{file}: is no key that `muster key create` makes")
    return key
