"""A session that finds a supervisor from before tasks had plugins."""

import asyncio
import time

import pytest

from agent.supervisor import frames
from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until


@pytest.fixture
async def older(data_dir):
    """A supervisor that knows no plans; the orders that it gets, which end well at once."""
    orders = []

    async def serve(reader, writer):
        splitter = frames.Splitter()
        while data := await reader.read(65536):
            for message in splitter.feed(data):
                if message["kind"] == "hello":
                    answer = {"kind": "welcome", "protocol": frames.PROTOCOL, "attempts": []}
                    writer.write(frames.encode(answer))
                elif message["kind"] == "start":
                    orders.append(message)
                    writer.write(frames.encode(ended(message)))
        writer.close()

    with frames.ShortPath(data_dir) as path:
        server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield orders


def ended(order):
    now = time.time_ns() // 1_000_000
    end = {"cause": "exited", "exit_code": 0, "message": "", "failure": "task", "silent": True}
    times = {"started_at": now, "ended_at": now}
    state = {"lease": order["lease"], "started_at": now, "running": True}
    return {"kind": "ended", **state, "end": {**end, **times}}


async def test_it_runs_what_it_can_and_the_rest_goes_back_with_the_reason(
    plane, older, start_agent
):
    start_agent()
    steps = [agent_pb2.Step(name="one", commands=["true"])]
    planned = plane.assign(steps=steps)
    plain = plane.assign("true")
    await until(lambda: planned.handed_back and plain.whole)
    assert planned.why_back == (
        "the running supervisor is of an earlier version; stop the agent with SIGTERM"
    )
    assert planned.statuses == []
    assert plain.end.status == task_pb2.TASK_STATUS_SUCCESS
    assert [order["lease"] for order in older] == [plain.task.lease_id]
