"""An agent's stream, without a network."""

import asyncio
from contextlib import aclosing

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from server.engine.log_intake import RowIntake
from server.rpc.agent_channel import FRAMES_AT_ONCE, AgentChannel
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time


@in_virtual_time
async def test_an_agent_that_speaks_and_never_listens_is_not_heard_for_ever():
    shop = Shop()
    heard = 0

    async def talk(session):
        nonlocal heard
        hello = stream_pb2.Hello(session_id=session.session_id, held=agent_pb2.Held())
        yield stream_pb2.AgentChannelRequest(agent_id="a", hello=hello)
        while True:
            heard += 1
            beat = stream_pb2.HeartbeatData()
            yield stream_pb2.AgentChannelRequest(agent_id="a", heartbeat=beat)

    async with shop.open():
        session = await shop.arrive("a", pushes=False)
        channel = AgentChannel(
            shop.writer,
            RowIntake(shop.writer),
            shop.attendance,
            shop.dispatcher,
            shop.clock,
            shop.policy,
        )
        async with aclosing(channel.responses(talk(session))) as responses:
            welcome = await anext(responses)
            assert welcome.HasField("welcome")
            await asyncio.sleep(60)
            assert heard <= 3 * FRAMES_AT_ONCE
            for _ in range(10 * FRAMES_AT_ONCE):  # it goes on as soon as it is listened to
                await anext(responses)
            assert heard > 5 * FRAMES_AT_ONCE
