"""An agent's stream ends however its agent leaves."""

import asyncio
from types import SimpleNamespace

from generated.stream.v1 import stream_pb2
from server.domain.policy import Policy
from server.rpc.agent_channel import AgentChannel


class Attendance:
    """Opens every stream, and notes that it was closed."""

    def __init__(self):
        self.closed = 0

    async def open_stream(self, *_):
        return SimpleNamespace(agent_id="a", lost=False), ()

    def close_stream(self, *_):
        self.closed += 1


async def hello_and_silence():
    hello = stream_pb2.Hello(session_id="s")
    yield stream_pb2.AgentChannelRequest(agent_id="a", request_id="1", hello=hello)
    await asyncio.Event().wait()


async def test_a_stream_that_nobody_reads_any_more_is_closed_without_an_error():
    attendance = Attendance()
    channel = AgentChannel(None, attendance, None, None, Policy())
    responses = channel.responses(hello_and_silence())
    assert (await anext(responses)).HasField("welcome")
    await responses.aclose()
    assert attendance.closed == 1
