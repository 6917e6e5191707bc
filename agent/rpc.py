"""How the agent calls the control plane, and how it reads the errors it gets."""

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from agent.config import Tls
from generated.task.v1 import error_reason_pb2

CALL_SECONDS = 15.0
"""Limit of a single call."""

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.enable_retries", 0),  # the session retries; two retrying layers multiply
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
]

_BY_NUMBER: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}


def open_channel(server: str, tls: Tls | None) -> grpc.aio.Channel:
    """Returns a channel to the control plane at HOST:PORT.

    Raises:
        OSError: A certificate or key cannot be read.
    """
    if tls is None:
        return grpc.aio.insecure_channel(server, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        tls.ca.read_bytes() if tls.ca else None,
        tls.key.read_bytes() if tls.key else None,
        tls.certificate.read_bytes() if tls.certificate else None,
    )
    return grpc.aio.secure_channel(server, credentials, options=_OPTIONS)


_TLS_FAILURES = {
    "certificate has expired": "its certificate has expired; renew it: muster-server certificate",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is from an authority that is not trusted here;"
    " name the authority's file: --tls-ca FILE",
    "ostname Verification": "its certificate is for another name; use a name that is in it, or"
    " renew it: muster-server certificate HOST",
    "CERTIFICATE_REQUIRED": "it wants a certificate: --tls-cert FILE --tls-key FILE",
    "WRONG_VERSION_NUMBER": "it does not encrypt; leave --tls and --tls-ca out",
    "Socket closed": "it hangs up without a word; it may want TLS: --tls-ca FILE or --tls",
}


def what_to_do(error: grpc.aio.AioRpcError) -> str:
    """Returns what a failed connection lacks, where gRPC's words tell, or an empty string."""
    said = error.details() or ""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return ""
    return next((why for sign, why in _TLS_FAILURES.items() if sign in said), "")


def status_code(number: int) -> grpc.StatusCode:
    """Returns the status with a number, UNKNOWN for a number without a name."""
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def is_transient(code: grpc.StatusCode) -> bool:
    """Tells whether the same report may be taken when it is sent again."""
    return code in _TRANSIENT


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """Returns the reason an error carries in its details, or an empty string."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


def is_superseded(error: grpc.aio.AioRpcError) -> bool:
    """Tells whether a newer instance has taken over the agent's id."""
    name = error_reason_pb2.ErrorReason.Name(error_reason_pb2.ERROR_REASON_SESSION_SUPERSEDED)
    return error.code() is grpc.StatusCode.ABORTED and reason_of(error) == name
