"""Numbers and sizes that agents and callers send are kept within reason, by field."""

import pytest

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from server.domain.errors import Invalid
from server.domain.log import LINE_LIMIT
from server.rpc.convert import lines_of
from server.rpc.convert_agent import FRAME_LIMIT, held_of, report_of, update_of


def fields(error):
    return [violation.field for violation in error.value.violations]


@pytest.mark.parametrize("seen_through", [-1, FRAME_LIMIT + 1, 2**63 - 1])
def test_a_frame_number_nobody_can_have_seen_is_refused(seen_through):
    with pytest.raises(Invalid) as error:
        held_of(agent_pb2.Held(seen_through=seen_through), "held")
    assert fields(error) == ["held.seen_through"]


def test_a_frame_number_within_reason_is_taken():
    assert held_of(agent_pb2.Held(seen_through=FRAME_LIMIT), "held").seen_through == FRAME_LIMIT


@pytest.mark.parametrize("field", ["start_time", "end_time"])
@pytest.mark.parametrize("seconds", [-1, 10**14])
def test_seconds_that_are_no_time_are_refused(field, seconds):
    request = agent_pb2.ReportTaskStatusRequest(status=4, **{field: seconds})
    with pytest.raises(Invalid) as error:
        report_of(request)
    assert fields(error) == [field]


def test_milliseconds_where_seconds_belong_still_fit_a_calendar():
    request = agent_pb2.ReportTaskStatusRequest(status=4, end_time=10**11)
    assert report_of(request).ended_at == 10**14


def test_a_stream_reports_milliseconds():
    update = stream_pb2.TaskStatusUpdate(status=4, timestamp=10**15)
    with pytest.raises(Invalid) as error:
        update_of("a", update)
    assert fields(error) == ["timestamp"]


@pytest.mark.parametrize("number", [-1, -(2**31)])
def test_a_negative_line_number_is_refused(number):
    with pytest.raises(Invalid, match="must not be negative") as error:
        lines_of([stream_pb2.LogChunk(line_number=number)], "logs")
    assert fields(error) == ["logs[0].line_number"]


@pytest.mark.parametrize("field", ["content", "raw"])
def test_a_line_that_no_page_could_hold_is_refused(field):
    text = "x" * (LINE_LIMIT + 1)
    value = text if field == "content" else text.encode()
    chunks = [stream_pb2.LogChunk(), stream_pb2.LogChunk(**{field: value})]
    with pytest.raises(Invalid) as error:
        lines_of(chunks, "logs")
    assert fields(error) == ["logs[1].content"]
