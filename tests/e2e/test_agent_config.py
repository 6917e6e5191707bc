"""What agents measure, and settings that reach them while they work."""

import grpc
import pytest

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from tests.e2e.api import Api, refusal, soon
from tests.e2e.kit import eventually


@pytest.fixture
def server(kit):
    return kit.start_server("--heartbeat-interval", "1", "--lease", "8", "--kill-grace", "1")


def configure(agent_id="a", **settings):
    return agent_pb2.ConfigureAgentRequest(agent_id=agent_id, **settings)


async def test_what_an_agent_measures_is_seen_live_and_kept(kit, server, api: Api):
    kit.start_agent(server, "--name", "a")
    call = api.streams.StreamAgentStatus(stream_pb2.StreamAgentStatusRequest(), timeout=60)
    async for answer in call:
        if answer.HasField("metrics"):
            break
    call.cancel()
    assert 0 < answer.metrics.memory_usage <= 100
    assert 0 < answer.metrics.disk_usage <= 100
    assert float(answer.metrics.custom_metrics["load_1m"]) >= 0

    async def kept():
        return (await api.agent("a")).measurements.memory_usage

    assert await soon(kept) == pytest.approx(answer.metrics.memory_usage, abs=0.01)
    server.restart()
    async with Api(server.grpc) as again:
        assert (await again.agent("a")).measurements.memory_usage


async def test_measurements_of_ones_own_are_seen_wherever_the_others_are(
    kit, server, api: Api, tmp_path
):
    (tmp_path / "room.prom").write_text("room_celsius 21.5\nload_1m 99999\ncpu_usage 1\n")
    kit.start_agent(server, "--name", "a", "--metrics-dir", str(tmp_path))
    call = api.streams.StreamAgentStatus(stream_pb2.StreamAgentStatusRequest(), timeout=60)
    async for answer in call:
        if answer.HasField("metrics"):
            break
    call.cancel()
    told = answer.metrics.custom_metrics
    assert told["room_celsius"] == "21.5"
    assert float(told["load_1m"]) < 99999  # the agent's own word stands
    assert "cpu_usage" not in told

    async def kept():
        measurements = (await api.agent("a")).measurements
        return measurements.custom_metrics.get("room_celsius") == "21.5"

    await soon(kept)
    assert "room_celsius=21.5" in kit.cli("agent", "get", "a", server=server).stdout
    _, figures = kit.get(server, "/metrics")
    assert 'muster_agents_custom{measurement="room_celsius",stat="mean"} 21.5' in figures


async def test_slots_change_while_the_agent_works_and_outlive_both(kit, server, api: Api, gate):
    agent = kit.start_agent(server, "--name", "a", slots=1)
    tasks = [await api.create(gate.wait) for _ in range(3)]
    await api.runs(tasks[0])
    answer = await api.agents.ConfigureAgent(configure(max_concurrent_jobs=3), timeout=60)
    assert answer.agent.max_concurrent_jobs == answer.agent.config.max_concurrent_jobs == 3
    for task_id in tasks:
        await api.runs(task_id)
    gate.open()
    for task_id in tasks:
        await api.ended(task_id)
    agent.restart()
    server.restart()
    async with Api(server.grpc) as again:

        async def beats():
            return (await again.agent("a")).last_seen > answer.agent.last_seen

        await soon(beats)
        assert (await again.agent("a")).max_concurrent_jobs == 3
        await again.agents.ConfigureAgent(configure(max_concurrent_jobs=0), timeout=60)
        assert (await again.agent("a")).config.max_concurrent_jobs == 0


async def test_a_config_update_is_sent_to_an_open_stream_and_to_a_new_one(server, api: Api):
    register = agent_pb2.RegisterRequest(agent_id="a", held=agent_pb2.Held())
    session = (await api.agents.Register(register, timeout=60)).session_id
    hello = stream_pb2.AgentChannelRequest(
        agent_id="a", hello=stream_pb2.Hello(session_id=session, held=agent_pb2.Held())
    )
    for _ in range(2):
        call = api.streams.AgentChannel(timeout=60)
        await call.write(hello)
        assert (await call.read()).WhichOneof("payload") == "welcome"
        await api.agents.ConfigureAgent(
            configure(heartbeat_interval=2, log_delay_ms=50), timeout=60
        )
        update = (await call.read()).config_update
        assert update.heartbeat_interval == 2
        assert update.config["log_delay_ms"] == "50"
        call.cancel()
    beat = agent_pb2.HeartbeatRequest(agent_id="a", session_id=session)
    config = (await api.agents.Heartbeat(beat, timeout=60)).config
    assert (config.heartbeat_interval, config.log_delay_ms) == (2, 50)


async def test_what_makes_no_sense_is_refused_by_its_field(api: Api):
    register = agent_pb2.RegisterRequest(agent_id="a")
    await api.agents.Register(register, timeout=60)
    call = api.agents.ConfigureAgent
    bad = configure(heartbeat_interval=3, max_concurrent_jobs=-1, log_delay_ms=9999)
    assert set((await refusal(call(bad, timeout=60))).fields) == {
        "heartbeat_interval",
        "max_concurrent_jobs",
        "log_delay_ms",
    }
    unknown = await refusal(call(configure("nobody", log_delay_ms=1), timeout=60))
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    beat = agent_pb2.HeartbeatRequest(agent_id="a", metrics={"cpu_usage": "nan", "mine": "x"})
    refused = await refusal(api.agents.Heartbeat(beat, timeout=60))
    assert list(refused.fields) == ["metrics.cpu_usage"]
    beat.metrics["cpu_usage"] = "12.5"
    await api.agents.Heartbeat(beat, timeout=60)

    async def kept():
        return (await api.agent("a")).measurements.cpu_usage == 12.5

    await soon(kept)
    assert (await api.agent("a")).measurements.custom_metrics == {"mine": "x"}


def test_settings_are_made_and_shown_by_commands(kit, server):
    kit.start_agent(server, "--name", "a")
    assert kit.cli("agent", "configure", "a", server=server).returncode == 2
    done = kit.cli("agent", "configure", "a", "--slots", "4", "--log-delay", "40", server=server)
    assert (done.returncode, done.stdout) == (0, "The settings are kept.\n")
    shown = kit.cli("agent", "get", "a", server=server).stdout
    assert "slots 4" in shown
    assert "output gathered for 40 ms" in shown
    eventually(lambda: "memory" in kit.cli("agent", "get", "a", server=server).stdout, within=60)
