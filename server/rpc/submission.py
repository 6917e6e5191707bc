"""Request ids: the same id with the same request is answered the same."""

from hashlib import sha256

from google.protobuf.message import Message

from server.auth import current_caller
from server.domain.checks import Checks
from server.domain.submitting import Idempotency


def idempotency(request: Message, request_id: str) -> Idempotency | None:
    """Return what makes a request safe to repeat, or None without a request id.

    Raises:
        Invalid: the id is too long or has control characters.
    """
    if not request_id:
        return None
    checks = Checks()
    checks.name("request_id", request_id, limit=128)
    checks.done()
    kind = request.DESCRIPTOR.full_name.encode()
    body = sha256(kind + request.SerializeToString(deterministic=True)).hexdigest()
    return Idempotency(current_caller().name, request_id, body)
