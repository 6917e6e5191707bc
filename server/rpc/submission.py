"""Request ids: the same id with the same request is answered the same."""

from collections.abc import Callable
from hashlib import sha256

from google.protobuf.message import Message

from server.auth import current_caller
from server.domain.checks import Checks
from server.domain.submitting import Idempotency


def idempotency(
    request: Message, request_id: str, digest: Callable[[bytes], str] | None = None
) -> Idempotency | None:
    """Return what makes a request safe to repeat, or None without a request id.

    What is kept of the request is its SHA-256, or what `digest` makes of it: nobody must be able to
    guess a secret from that.

    Raises:
        Invalid: the id is too long or has control characters.
    """
    if not request_id:
        return None
    checks = Checks()
    checks.name("request_id", request_id, limit=128)
    checks.done()
    kind = request.DESCRIPTOR.full_name.encode()
    told = kind + request.SerializeToString(deterministic=True)
    body = digest(told) if digest is not None else sha256(told).hexdigest()
    return Idempotency(current_caller().name, request_id, body)
