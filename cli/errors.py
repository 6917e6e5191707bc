"""What a refused call means to people: one clear line with what to do next."""

import click
import grpc
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status

from cli.exit_codes import Exit
from cli.failure import Refusal

TLS_FAILURES = {
    "certificate has expired": "its certificate has expired — renew it: muster-server certificate",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is from an authority that is not trusted here"
    " — name the authority's file: --tls-ca FILE",
    "ostname Verification": "its certificate is for another name — use a name that is in it, or"
    " renew it: muster-server certificate HOST",
    "CERTIFICATE_REQUIRED": "it wants a certificate of yours: --tls-cert FILE --tls-key FILE",
    "WRONG_VERSION_NUMBER": "it does not encrypt — leave --tls and --tls-ca out",
    "Socket closed": "it hangs up without a word — it may want TLS: --tls-ca FILE or --tls",
}
"""Words of gRPC about a connection that fails, and what they mean to people."""

NOUNS = ("task", "pipeline", "run", "agent")


def refusal(error: grpc.aio.AioRpcError, server: str) -> Refusal:
    """Return what to tell people about a call to `server` that failed."""
    found = _details(error)
    said = error.details() or error.code().name.lower().replace("_", " ")
    violations = [
        (violation.field, violation.description)
        for request in found
        if isinstance(request, details.BadRequest)
        for violation in request.field_violations
    ]
    return Refusal(*_message(error.code(), said, found, server), violations)


def _message(
    code: grpc.StatusCode, said: str, found: list[object], server: str
) -> tuple[str, Exit]:
    """Return the line that tells a status code, and the exit code for it."""
    from_server = any(isinstance(detail, details.ErrorInfo) for detail in found)
    match code:
        case grpc.StatusCode.UNAVAILABLE if from_server:
            why = f"{said.rstrip('.')}{_retry_hint(found)}"
            return f"{server} cannot serve now: {why}", Exit.UNREACHABLE
        case grpc.StatusCode.UNAVAILABLE if why := _what_tls_lacks(said):
            return f"cannot speak with {server}: {why}", Exit.UNREACHABLE
        case grpc.StatusCode.UNAVAILABLE:
            hint = "is the server running? start one with: muster up"
            return f"cannot reach {server} — {hint}", Exit.UNREACHABLE
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"{server} did not answer in time — check it with: muster ping", Exit.UNREACHABLE
        case grpc.StatusCode.UNAUTHENTICATED:
            hint = "log in with: muster login (an administrator makes tokens: muster token create)"
            return f"{server} does not know you: {said.rstrip('.')} — {hint}", Exit.FAILED
        case grpc.StatusCode.PERMISSION_DENIED:
            return f"{said.rstrip('.')} — see what you may do: muster whoami", Exit.FAILED
        case grpc.StatusCode.NOT_FOUND:
            return f"{said.rstrip('.')}{_list_hint()}", Exit.NOT_FOUND
        case grpc.StatusCode.UNIMPLEMENTED if not from_server:
            return f"{server} does not offer this; it may be another version", Exit.FAILED
        case grpc.StatusCode.INTERNAL | grpc.StatusCode.UNKNOWN if not from_server:
            return f"the server failed: {said} — its log tells more", Exit.FAILED
        case _:
            return f"{said.rstrip('.')}{_retry_hint(found)}", Exit.FAILED


def _what_tls_lacks(said: str) -> str:
    """Return why the two do not agree how to encrypt, with what to do; empty where that is not it.

    gRPC tells it in words only.
    """
    return next((why for sign, why in TLS_FAILURES.items() if sign in said), "")


def _details(error: grpc.aio.AioRpcError) -> list[object]:
    """Return the `google.rpc` messages that came with an error."""
    try:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it has the same methods
    except ValueError:  # a proxy changed the status but kept the details
        return []
    known = (details.BadRequest, details.ErrorInfo, details.RetryInfo)
    found: list[object] = []
    for packed in status.details if status else ():
        for kind in known:
            if packed.Is(kind.DESCRIPTOR):
                message = kind()
                packed.Unpack(message)
                found.append(message)
    return found


def _retry_hint(found: list[object]) -> str:
    """Return when to try again, if the server said so."""
    for detail in found:
        if isinstance(detail, details.RetryInfo):
            return f" — try again in {detail.retry_delay.ToTimedelta().total_seconds():g} s"
    return ""


def _list_hint() -> str:
    """Return how to find what exists, when the command is about one kind of thing."""
    ctx = click.get_current_context(silent=True)
    words = ctx.command_path.split() if ctx else []
    noun = next((word for word in words if word in NOUNS), None)
    return f" — see what there is with: muster {noun} list" if noun else ""
