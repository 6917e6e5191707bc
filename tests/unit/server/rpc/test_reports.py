"""A report is taken whatever it tells besides: an end that is refused would never be one."""

import pytest

from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from server.rpc.convert_agent import report_of


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"a": "1"}, {"a": "1"}),
        ({"a": "1\0"}, {"a": "1"}),
        ({"a b": "1", "c": "2"}, {"c": "2"}),
        ({f"a{n}": "" for n in range(1001)}, {}),
        ({"a": "x" * 90_000}, {}),
    ],
)
def test_outputs_that_are_none_are_left_out(told, kept):
    request = agent_pb2.ReportTaskStatusRequest(
        agent_id="a", task_id="t", status=task_pb2.TASK_STATUS_SUCCESS, outputs=told
    )
    assert report_of(request).outputs == kept
