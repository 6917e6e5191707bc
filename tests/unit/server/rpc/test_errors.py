from datetime import timedelta

import pytest
from google.rpc import error_details_pb2

from generated.task.v1 import error_reason_pb2
from server.domain import errors
from server.domain.errors import Violation
from server.rpc.errors import ANSWERS, INTERNAL, to_status

EXAMPLES = [
    errors.Invalid([Violation("name", "should not be empty")]),
    errors.NotFound("task", "t-1"),
    errors.AlreadyExists("pipeline", "nightly"),
    errors.RequestIdReused("r-1"),
    errors.WrongState("task", "t-1", "has ended"),
    errors.NotLeaseHolder("a-1", "t-1"),
    errors.SessionSuperseded("a-1"),
    errors.LogGap("t-1", 5, 7),
    errors.Overloaded(10_000, timedelta(seconds=2)),
    errors.StoreUnavailable("database is locked"),
    errors.Draining(),
    errors.LimitReached("too large"),
]


def kinds(base=errors.MusterError):
    return {kind for child in base.__subclasses__() for kind in {child, *kinds(child)}}


def details_of(status):
    found = {}
    for packed in status.details:
        detail = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
        assert packed.Unpack(detail)
        found[type(detail).__name__] = detail
    return found


def test_every_refusal_has_its_line_in_the_table():
    ours = {kind for kind in kinds() if kind.__module__ == errors.__name__}
    assert ours == set(ANSWERS)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_refusal_tells_its_own_message_and_a_reason_of_the_api(error):
    status = to_status(error)
    info = details_of(status)["ErrorInfo"]
    assert status.message == str(error)
    assert info.domain == "muster"
    assert error_reason_pb2.ErrorReason.Value(info.reason) == ANSWERS[type(error)].reason
    assert status.code == ANSWERS[type(error)].code.value[0]


def test_a_malformed_request_names_each_bad_field():
    error = errors.Invalid([Violation("name", "is empty"), Violation("tasks[1].env", "has a NUL")])
    bad = details_of(to_status(error))["BadRequest"]
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("name", "is empty"),
        ("tasks[1].env", "has a NUL"),
    ]


@pytest.mark.parametrize("error", EXAMPLES[-4:-1], ids=lambda error: type(error).__name__)
def test_where_a_retry_helps_the_status_says_when(error):
    delay = details_of(to_status(error))["RetryInfo"].retry_delay.ToTimedelta()
    assert delay == getattr(error, "retry_after", timedelta(seconds=1))


def test_a_bug_tells_the_request_and_nothing_else():
    status = to_status(KeyError("password"), "r-7")
    assert status.code == INTERNAL.code.value[0]
    assert "password" not in str(status)
    assert "r-7" in status.message
    assert details_of(status)["ErrorInfo"].reason == "ERROR_REASON_INTERNAL"


@pytest.mark.parametrize("text", ["x" * 100_000, "€" * 50_000, "\ud800" * 9_000, "\0" * 9_000])
def test_a_status_always_fits_into_metadata(text):
    error = errors.Invalid([Violation(f"env[{text}]", text)] * 500)
    status = to_status(error)
    percent_encoded = 3 * len(status.message.encode())
    base64_encoded = 4 * status.ByteSize() / 3
    assert percent_encoded + base64_encoded < 7 * 1024
    assert details_of(status)["BadRequest"].field_violations
