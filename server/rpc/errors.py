"""The one table from our errors to gRPC: a code, a reason, and what else helps the caller."""

from dataclasses import dataclass
from datetime import timedelta

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from generated.task.v1 import error_reason_pb2 as reasons
from server.domain import errors

DOMAIN = "muster"
RETRY_AFTER = timedelta(seconds=1)

# A status travels in trailing metadata, which peers may refuse from 8 KiB on. The message is
# in it twice, once with up to three characters a byte.
MESSAGE_BYTES = 512
DETAIL_BYTES = 2048
FIELD_BYTES = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """How one type of error is told."""

    code: grpc.StatusCode
    reason: "reasons.ErrorReason.ValueType"
    retry: bool = False


INTERNAL = Answer(grpc.StatusCode.INTERNAL, reasons.ERROR_REASON_INTERNAL)

ANSWERS: dict[type[errors.MusterError], Answer] = {
    errors.Invalid: Answer(
        grpc.StatusCode.INVALID_ARGUMENT, reasons.ERROR_REASON_INVALID_FIELD
    ),
    errors.Unauthenticated: Answer(
        grpc.StatusCode.UNAUTHENTICATED, reasons.ERROR_REASON_UNAUTHENTICATED
    ),
    errors.Forbidden: Answer(
        grpc.StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_FORBIDDEN
    ),
    errors.NotAsked: Answer(
        grpc.StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_FORBIDDEN
    ),
    errors.StillEnrolled: Answer(
        grpc.StatusCode.PERMISSION_DENIED, reasons.ERROR_REASON_FORBIDDEN
    ),
    errors.NotFound: Answer(
        grpc.StatusCode.NOT_FOUND, reasons.ERROR_REASON_UNKNOWN_RESOURCE
    ),
    errors.AlreadyExists: Answer(
        grpc.StatusCode.ALREADY_EXISTS, reasons.ERROR_REASON_NAME_TAKEN
    ),
    errors.RequestIdReused: Answer(
        grpc.StatusCode.ALREADY_EXISTS, reasons.ERROR_REASON_REQUEST_ID_REUSED
    ),
    errors.WrongState: Answer(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_WRONG_STATE
    ),
    errors.NotLeaseHolder: Answer(
        grpc.StatusCode.ABORTED, reasons.ERROR_REASON_NOT_LEASE_HOLDER
    ),
    errors.SessionSuperseded: Answer(
        grpc.StatusCode.ABORTED, reasons.ERROR_REASON_SESSION_SUPERSEDED
    ),
    errors.LogGap: Answer(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_LOG_GAP
    ),
    errors.CursorExpired: Answer(
        grpc.StatusCode.OUT_OF_RANGE, reasons.ERROR_REASON_CURSOR_EXPIRED
    ),
    errors.DamagedLog: Answer(
        grpc.StatusCode.DATA_LOSS, reasons.ERROR_REASON_LOG_DAMAGED
    ),
    errors.DamagedPlugin: Answer(
        grpc.StatusCode.DATA_LOSS, reasons.ERROR_REASON_PLUGIN_DAMAGED
    ),
    errors.Overloaded: Answer(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_OVERLOADED, retry=True
    ),
    errors.TooManyCalls: Answer(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_LIMIT, retry=True
    ),
    errors.TooManyStreams: Answer(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_LIMIT
    ),
    errors.TooManyTasks: Answer(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_LIMIT, retry=True
    ),
    errors.LimitReached: Answer(
        grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.ERROR_REASON_LIMIT
    ),
    errors.StoreUnavailable: Answer(
        grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_STORE_UNAVAILABLE, retry=True
    ),
    errors.BlockUnreadable: Answer(
        grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_STORE_UNAVAILABLE, retry=True
    ),
    errors.Draining: Answer(
        grpc.StatusCode.UNAVAILABLE, reasons.ERROR_REASON_DRAINING, retry=True
    ),
    errors.SecretsRefused: Answer(
        grpc.StatusCode.FAILED_PRECONDITION, reasons.ERROR_REASON_NO_SECRET_KEY
    ),
}  # fmt: skip


def answer_to(error: BaseException) -> Answer:
    """Return how this error is told; what is not ours is a bug and told as one."""
    for kind in type(error).__mro__:
        if answer := ANSWERS.get(kind):
            return answer
    return INTERNAL


def to_status(error: BaseException, request_id: str = "") -> Status:
    """Return the `google.rpc.Status` for an error, small enough for metadata."""
    answer = answer_to(error)
    if answer is INTERNAL:
        message = f"A bug in the server; its log tells more about request {request_id}."
    else:
        message = _cut(str(error), MESSAGE_BYTES)
    status = Status(code=_number(answer.code), message=message)
    for detail in _details(error, answer):
        status.details.add().Pack(detail)
    return status


def _details(error: BaseException, answer: Answer) -> list[Message]:
    reason = reasons.ErrorReason.Name(answer.reason)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)
    if isinstance(error, errors.CursorExpired):
        info.metadata["oldest_cursor"] = str(error.oldest)
    details: list[Message] = [info]
    if isinstance(error, errors.Invalid):
        details.append(_bad_request(error))
    if answer.retry:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(getattr(error, "retry_after", RETRY_AFTER))
        details.append(retry)
    return details


def _bad_request(error: errors.Invalid) -> error_details_pb2.BadRequest:
    """Return as many of the violations as fit."""
    bad = error_details_pb2.BadRequest()
    for violation in error.violations:
        bad.field_violations.add(
            field=_cut(violation.field, FIELD_BYTES),
            description=_cut(violation.description, FIELD_BYTES),
        )
        if bad.ByteSize() > DETAIL_BYTES:
            del bad.field_violations[-1]
            break
    return bad


def _cut(text: str, limit: int) -> str:
    """Return at most this many bytes of text, as valid UTF-8."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode("utf-8", "ignore") + "…"


def _number(code: grpc.StatusCode) -> int:
    number: int = code.value[0]
    return number
