"""How an agent stands, in words."""

from cli.states import short_name
from cli.times import age, moment, until
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2

STATUS = agent_pb2.AgentStatus.DESCRIPTOR
SCHEDULING = agent_pb2.SchedulingState.DESCRIPTOR
ACTIVE = agent_pb2.SCHEDULING_STATE_ACTIVE
DRAINING = agent_pb2.SCHEDULING_STATE_DRAINING


def status_of(agent: agent_pb2.AgentDetail | stream_pb2.StreamAgentStatusResponse) -> str:
    """Return an agent's status in a list, with what keeps work from it."""
    words = [short_name(STATUS, agent.status)]
    if agent.scheduling not in (0, ACTIVE):
        words.append(short_name(SCHEDULING, agent.scheduling))
    if agent.quarantined_until:
        words.append("QUARANTINED")
    return ",".join(words)


def work_of(agent: agent_pb2.AgentDetail) -> str:
    """Return what keeps work from an agent, since when and why, or nothing."""
    return "\n".join([*_of_its_operator(agent), *_of_its_faults(agent)])


def _of_its_faults(agent: agent_pb2.AgentDetail) -> list[str]:
    if not agent.faults:
        return []
    times = "1 failure" if agent.faults == 1 else f"{agent.faults} failures in a row"
    lines = [f"{times} by its own fault, the last: {agent.fault}"]
    if agent.quarantined_until:
        left = until(agent.quarantined_until / 1000)
        lines.insert(0, f"QUARANTINED: work again {left}")
    return lines


def _of_its_operator(agent: agent_pb2.AgentDetail) -> list[str]:
    if agent.scheduling in (0, ACTIVE):
        return []
    lines = [
        f"{short_name(SCHEDULING, agent.scheduling)} since {moment(agent.scheduling_since / 1000)}"
    ]
    if agent.scheduling == DRAINING and agent.drain_deadline:
        lines.append(f"tasks are stopped {until(agent.drain_deadline / 1000)}")
    return [*lines, *agent.note.splitlines()]


def settings_of(agent: agent_pb2.AgentDetail) -> str:
    """Return the settings that were made for an agent, or nothing."""
    config = agent.config
    said = (
        (config.max_concurrent_jobs, "slots {}"),
        (config.heartbeat_interval, "heartbeat every {} s"),
        (config.log_delay_ms, "output gathered for {} ms"),
    )
    return "\n".join(text.format(value) for value, text in said if value)


def measured_of(agent: agent_pb2.AgentDetail) -> str:
    """Return what an agent measured last, or nothing."""
    if not agent.HasField("measurements"):
        return ""
    m = agent.measurements
    shares = f"CPU {m.cpu_usage:.0f}%, memory {m.memory_usage:.0f}%, disk {m.disk_usage:.0f}%"
    others = [f"{name}={value}" for name, value in sorted(m.custom_metrics.items())]
    return "\n".join([f"{shares} ({age(m.measured_at / 1000)} ago)", *others])
