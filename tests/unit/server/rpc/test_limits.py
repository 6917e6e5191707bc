"""Numbers and sizes that agents and callers send are kept within reason, by field."""

import pytest

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from server.domain.errors import Invalid
from server.domain.log import BLOCK_LIMIT, LINE_LIMIT
from server.rpc.convert import batch_of, block_of, lines_of
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


BLOCK = {"first_line": 1, "lines": 1, "bytes": 2, "encoding": 1, "unpacked_bytes": 21}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first_line", 0),
        ("first_line", 2**31),
        ("lines", 0),
        ("bytes", 0),
        ("first_at", -1),
        ("last_at", -1),
        ("encoding", 0),
        ("encoding", 9),
        ("unpacked_bytes", BLOCK_LIMIT + 1),
        ("data_crc32", 1),
        ("data", b"x"),
    ],
)
def test_a_block_that_contradicts_itself_is_refused(field, value):
    message = agent_pb2.LogBlock(**{**BLOCK, field: value})
    with pytest.raises(Invalid) as error:
        block_of(message)
    named = "data_crc32" if field == "data" else field
    assert f"block.{named}" in fields(error)


def test_a_block_stands_alone_and_names_its_lease():
    block = agent_pb2.LogBlock(**BLOCK)
    with pytest.raises(Invalid) as error:
        batch_of(stream_pb2.LogData(block=block, logs=[stream_pb2.LogChunk()], lease_id="t.1"))
    assert fields(error) == ["logs"]
    with pytest.raises(Invalid) as error:
        batch_of(stream_pb2.LogData(block=block))
    assert fields(error) == ["lease_id"]
