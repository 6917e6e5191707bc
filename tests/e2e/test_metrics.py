"""What Prometheus is told of a server is what happened there."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from generated.task.v1 import task_pb2
from tests.e2e.api import Api, soon

OTHER = "other"


@pytest.fixture
def server(kit):
    return kit.start_server()


@pytest.fixture
def figures(kit, server):
    """Return a function that asks for one series' values, by their labels' values."""

    def figures(name):
        status, text = kit.get(server, "/metrics")
        assert status == 200
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples]
        return {tuple(s.labels.values()): s.value for s in samples if s.name == name}

    return figures


async def test_what_waits_and_how_it_was_handed_out_is_told(kit, server, figures, api: Api, gate):
    kit.start_agent(server, "--name", "a", slots=2)
    running = [await api.create(gate.wait, name=f"r{n}") for n in range(2)]
    for task_id in running:
        await api.runs(task_id)
    selector = task_pb2.LabelSelector(match_labels={"gpu": "yes"})
    line = [await api.create("true") for _ in range(3)]
    for _ in range(2):
        await api.create("true", label_selector=selector)
    group = task_pb2.ConcurrencyGroup(key="g")
    members = [await api.create("true", concurrency=group) for _ in range(3)]
    waiting = {("any agent",): 4.0, ("gpu=yes",): 2.0, (OTHER,): 0.0}

    async def told():
        return figures("muster_queue_tasks") == waiting

    await soon(told)
    assert figures("muster_queue_oldest_seconds").keys() == waiting.keys()
    assert figures("muster_queue_oldest_seconds")["any agent",] > 0
    assert figures("muster_group_waiting_tasks") == {(): 2}
    assert figures("muster_waiting_groups") == {(): 1}
    assert figures("muster_agents")["busy",] == 1
    gate.open()
    for task_id in (*line, *members):
        await api.ended(task_id)
    assert figures("muster_queue_wait_seconds_count") == {(): 8}
    assert figures("muster_dispatch_claims_total") == {(): 8}
    claims = figures("muster_dispatch_claim_seconds_count")[()]
    assert 1 <= claims <= 8
    assert figures("muster_writer_commit_seconds_count")[()] >= claims
    assert figures("muster_writer_batch_commands_sum")[()] >= 8 + claims
    del waiting["any agent",]
    await soon(told)
    assert figures("muster_group_waiting_tasks") == {(): 0}
