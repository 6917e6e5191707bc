"""An agent's stream, without a network."""

import asyncio
from contextlib import aclosing

from agent.log_block import BlockBuilder
from agent.log_lines import Run
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from server.auth import Caller, set_caller
from server.domain.lease import go_on
from server.domain.log_keeping import LogAnswer
from server.engine.log_intake import RowIntake
from server.rpc.agent_channel import FRAMES_AT_ONCE, AgentChannel
from server.rpc.handover import Handover
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time


def channel_of(shop, intake, issuer=None):
    set_caller(Caller(expires_at=900))
    return AgentChannel(
        shop.writer,
        intake,
        shop.attendance,
        shop.dispatcher,
        shop.clock,
        shop.policy,
        issuer,
        Handover(shop.policy, shop.writer),
    )


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
        channel = channel_of(shop, RowIntake(shop.writer))
        async with aclosing(channel.responses(talk(session))) as responses:
            welcome = await anext(responses)
            assert welcome.HasField("welcome")
            await asyncio.sleep(60)
            assert heard <= 3 * FRAMES_AT_ONCE
            for _ in range(10 * FRAMES_AT_ONCE):  # it goes on as soon as it is listened to
                await anext(responses)
            assert heard > 5 * FRAMES_AT_ONCE


class SlowIntake:
    """Takes each log longer than those that come after it."""

    async def append(self, agent_id, ref, batch):
        await asyncio.sleep(10 - batch.first_line)
        return LogAnswer(batch.first_line, go_on(ref))


@in_virtual_time
async def test_reports_are_answered_in_the_order_in_which_they_came():
    shop = Shop()

    async def talk(session):
        hello = stream_pb2.Hello(session_id=session.session_id, held=agent_pb2.Held())
        yield stream_pb2.AgentChannelRequest(agent_id="a", hello=hello)
        for line in (1, 2, 3):
            builder = BlockBuilder(line)
            builder.add(Run(1, 1, 1, b"text\n"))
            data = stream_pb2.LogData(job_id="t", lease_id="t.1", block=builder.build())
            reports = stream_pb2.Reports(logs=[data])
            yield stream_pb2.AgentChannelRequest(agent_id="a", reports=reports)
        await asyncio.Event().wait()

    async with shop.open():
        session = await shop.arrive("a", pushes=False)
        channel = channel_of(shop, SlowIntake())
        async with aclosing(channel.responses(talk(session))) as responses:
            await anext(responses)
            told = [(await anext(responses)).acks.logs[0].acked_through for _ in range(3)]
    assert told == [1, 2, 3]


class Keys:
    """An issuer whose keys all end soon."""

    def __init__(self):
        self.ended = []

    async def renewed(self, _caller, ends_at):
        self.ended.append(ends_at)
        return f"key-{len(self.ended)}", len(self.ended)


@in_virtual_time
async def test_heartbeats_bring_the_next_key_each_after_the_one_before():
    shop, keys = Shop(), Keys()

    async def talk(session):
        hello = stream_pb2.Hello(session_id=session.session_id, held=agent_pb2.Held())
        yield stream_pb2.AgentChannelRequest(agent_id="a", hello=hello)
        for _ in range(2):
            beat = stream_pb2.HeartbeatData()
            yield stream_pb2.AgentChannelRequest(agent_id="a", heartbeat=beat)
        await asyncio.Event().wait()

    async with shop.open():
        session = await shop.arrive("a", pushes=False)
        channel = channel_of(shop, RowIntake(shop.writer), keys)
        async with aclosing(channel.responses(talk(session))) as responses:
            await anext(responses)
            beats = [(await anext(responses)).heartbeat_ack for _ in range(2)]
    assert [beat.agent_key for beat in beats] == ["key-1", "key-2"]
    assert keys.ended == [900, 1]
