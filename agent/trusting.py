"""Whose tasks an agent runs, where it runs only signed ones.

A file has the trusted keys, `KEY_ID:PUBLIC_KEY` a line (Ed25519, 32 bytes in base64).
"""

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from generated.agent.v1 import agent_pb2

HEAD = b"muster-task-v1\n"
KEY_BYTES = 32
OWN_SECRETS = ("MUSTER_TOKEN",)
"""What the control plane adds to every task."""


class TrustError(Exception):
    """The file of trusted keys cannot be used; the message says why."""


@dataclass(frozen=True)
class TrustedKeys:
    """The keys, by id; None trusts everybody."""

    keys: Mapping[str, bytes] | None = None
    now: Callable[[], float] = field(default=time.time)

    def refusal(self, task: agent_pb2.Task) -> str:
        """Returns why a task is not run here, or an empty text."""
        if self.keys is None:
            return ""
        signature = task.signature
        if not signature.signature:
            return "this agent runs only signed tasks, and it is not signed"
        key = self.keys.get(signature.key_id)
        if key is None:
            return f"this agent does not trust the key {signature.key_id[:64]!r} that signed it"
        if signature.not_after <= self.now() * 1000:
            return "its signature has ended"
        if task.steps or task.plugins or task.inputs:
            return "it has plugins or files of other jobs, which no signature is over"
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature.signature, signed_bytes(task))
        except InvalidSignature:
            return "it is not what its signer has signed"
        return ""


def signed_bytes(task: agent_pb2.Task) -> bytes:
    """Returns what a task's signature is over, as docs/agent-hardening.md says."""
    told = {
        "artifacts": [[each.name, each.path, each.destination] for each in task.artifacts],
        "commands": list(task.commands),
        "env": dict(task.env),
        "executor": task.executor,
        "image": task.image,
        "not_after": task.signature.not_after,
        "secrets": sorted(set(task.secrets).difference(OWN_SECRETS)),
        "timeout": task.timeout,
        "workspace": task.workspace,
    }
    return HEAD + json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def read(file: Path | None) -> TrustedKeys:
    """Returns the keys in a file; without one everybody is trusted.

    Raises:
        TrustError: It cannot be read, or holds something else.
    """
    if file is None:
        return TrustedKeys()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrustError(f"{file}: {error}") from None
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        key_id, colon, encoded = line.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not (key_id and colon) or len(key) != KEY_BYTES:
            raise TrustError(f"{file}: line {number} should be KEY_ID:PUBLIC_KEY")
        keys[key_id] = key
    if not keys:
        raise TrustError(f"{file}: has no line KEY_ID:PUBLIC_KEY, so no task could ever run")
    return TrustedKeys(keys)
