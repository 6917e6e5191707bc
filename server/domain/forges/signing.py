"""Whether a call is signed by whom it says: over the bytes as they came, before they are read."""

import base64
import binascii
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from server.domain.hook import HookKind
from server.domain.moment import SECOND, Moment

TOLERANCE = 300 * SECOND
"""How far a signed time may be from the clock."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A call whose signature is right."""

    forge_id: str
    """What the caller calls the delivery, or empty."""
    id_is_signed: bool


_IDS: Mapping[HookKind, tuple[str, ...]] = {
    HookKind.GITHUB: ("x-github-delivery",),
    HookKind.GITLAB: ("x-gitlab-event-uuid", "idempotency-key"),
    HookKind.GITEA: ("x-gitea-delivery", "x-forgejo-delivery"),
    HookKind.BITBUCKET: ("x-request-uuid",),
    HookKind.HMAC: ("x-delivery-id", "x-request-id"),
    HookKind.STANDARD: ("webhook-id",),
}


_OF_GITEA = ("x-gitea-event", "x-forgejo-event")


def check(
    kind: HookKind,
    header: str,
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[str],
    now: Moment,
) -> Signed | None:
    """Return what a call is, or None when none of the secrets has signed it.

    `headers` have names in small letters; `header` is where an HMAC hook has its signature.
    """
    forge_id = next((headers[name] for name in _IDS[kind] if headers.get(name)), "")[:128]
    of_gitlab = "x-gitlab-event" in headers
    if kind is HookKind.GITLAB and not of_gitlab:
        return None
    if kind is HookKind.STANDARD or (of_gitlab and "webhook-signature" in headers):
        good = _standard(headers, body, secrets, now)
        return Signed(headers.get("webhook-id", "")[:128], True) if good else None
    if kind is HookKind.GITLAB:
        token = headers.get("x-gitlab-token", "")
        good = any(_same(token, secret) for secret in secrets)
        return Signed(forge_id, False) if good else None
    if kind is HookKind.GITHUB and not headers.keys().isdisjoint(_OF_GITEA):
        return None  # Gitea and Forgejo also send GitHub's headers
    shown = _shown(kind, header, headers)
    good = any(_same(shown, _hex(secret, body)) for secret in secrets)
    return Signed(forge_id, False) if good else None


def _shown(kind: HookKind, header: str, headers: Mapping[str, str]) -> str:
    """Return the signature that a call shows, in hexadecimal digits."""
    if kind is HookKind.GITHUB:
        return _after(headers.get("x-hub-signature-256", ""))
    if kind is HookKind.BITBUCKET:
        return _after(headers.get("x-hub-signature", ""))
    if kind is HookKind.GITEA:
        return headers.get("x-gitea-signature") or headers.get("x-forgejo-signature", "")
    shown = headers.get(header, "")
    return _after(shown) if "=" in shown else shown


def _after(shown: str) -> str:
    name, _, rest = shown.partition("=")
    return rest if name.strip().lower() == "sha256" else ""


def _hex(secret: str, body: bytes) -> str:
    return hmac.digest(secret.encode(), body, "sha256").hex()


def _same(shown: str, right: str) -> bool:
    return bool(right) and hmac.compare_digest(shown.strip().encode(), right.encode())


def _standard(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: Moment) -> bool:
    told_id, told_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not told_id or not (told_at.isascii() and told_at.isdigit()) or len(told_at) > 12:
        return False
    if abs(int(told_at) * SECOND - now) > TOLERANCE:
        return False
    signed = f"{told_id}.{told_at}.".encode() + body
    shown = [
        part.partition(",")[2]
        for part in headers.get("webhook-signature", "").split()
        if part.startswith("v1,")
    ]
    right = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in _keys(secrets)]
    return any(hmac.compare_digest(one.encode(), other) for one in shown for other in right)


def _keys(secrets: Sequence[str]) -> Iterator[bytes]:
    """Yield the keys that secrets stand for: base64 behind `whsec_`, or their very text."""
    for secret in secrets:
        if not secret.startswith("whsec_"):
            yield secret.encode()
            continue
        try:
            yield base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            continue
