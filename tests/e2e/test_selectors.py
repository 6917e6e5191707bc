"""Tasks find the agents they need, wait for them, and say why."""

import time

import pytest

from generated.task.v1 import task_pb2
from tests.e2e.api import Api, soon
from tests.podman import without_engine

QUEUED, RUNNING, SUCCESS = 2, 3, 4
IN, NOT_IN, EXISTS, NOT_EXISTS, GT, LT = 1, 2, 3, 4, 5, 6


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server("--retry-backoff", "30", "--retry-backoff-max", "60")


@pytest.fixture(scope="module", autouse=True)
def _agents(shared, server):
    """Two machines that differ in every label."""
    small = {"zone": "a", "cores": "4", "spot": "yes"}
    shared.start_agent(server, "--name", "small", labels=small, slots=2)
    large = {"zone": "b", "cores": "16", "gpu": "nvidia"}
    shared.start_agent(server, "--name", "large", labels=large, slots=2)


def needs(*expressions, **labels):
    return task_pb2.LabelSelector(
        match_labels=labels,
        match_expressions=[
            task_pb2.LabelSelectorRequirement(key=key, operator=operator, values=values)
            for key, operator, values in expressions
        ],
    )


SELECTORS = {
    "equal": (needs(zone="a"), "small"),
    "in": (needs(("zone", IN, ["b", "c"])), "large"),
    "not in": (needs(("zone", NOT_IN, ["b", "c"])), "small"),
    "not in, absent": (needs(("gpu", NOT_IN, ["nvidia"])), "small"),
    "exists": (needs(("gpu", EXISTS, [])), "large"),
    "does not exist": (needs(("gpu", NOT_EXISTS, [])), "small"),
    "greater": (needs(("cores", GT, ["4"])), "large"),
    "less": (needs(("cores", LT, ["5"])), "small"),
    "as numbers": (needs(("cores", LT, ["+9"])), "small"),
    "all of it": (needs(("cores", GT, ["1"]), ("spot", NOT_EXISTS, []), zone="b"), "large"),
    "reported by the agent": (needs(agent="large", os="linux"), "large"),
}


@pytest.mark.parametrize(("selector", "fitting"), SELECTORS.values(), ids=SELECTORS)
async def test_a_task_runs_where_its_selector_fits(api: Api, selector, fitting):
    for _ in range(2):
        task_id = await api.create("true", label_selector=selector)
        task = await api.ended(task_id)
        assert (task.status, task.agent_id) == (SUCCESS, fitting)
    assert task.label_selector == selector


async def test_without_a_selector_both_take_part(api: Api, gate):
    task_ids = [await api.create(gate.wait) for _ in range(4)]
    where = sorted([(await api.runs(task_id)).agent_id for task_id in task_ids])
    assert where == ["large", "large", "small", "small"]
    gate.open()
    for task_id in task_ids:
        await api.ended(task_id)


async def test_a_task_waits_until_an_agent_fits_and_says_so(shared, server, api: Api):
    selector = needs(("cores", GT, ["100"]), zone="moon")
    task_id = await api.create("true", label_selector=selector)
    task = await api.task(task_id)
    assert task.status == QUEUED
    assert "None of the 2 connected agents fits zone=moon, cores > 100" in task.waiting_reason
    assert "It needs zone=moon, and zone is" in task.waiting_reason
    labels = {"zone": "moon", "cores": "128"}
    agent = shared.start_agent(server, "--name", "moon", labels=labels)
    ended = await api.ended(task_id)
    assert (ended.status, ended.agent_id, ended.waiting_reason) == (SUCCESS, "moon", "")
    assert ended.agent_labels["cores"] == "128"
    assert agent.terminate() == 0


async def test_new_labels_wake_waiting_work_at_once(api: Api):
    selector = needs(("disk", IN, ["ssd"]))
    task_id = await api.create("true", label_selector=selector)
    assert "there is no label disk" in (await api.task(task_id)).waiting_reason
    began = time.monotonic()
    await api.label("small", disk="ssd")
    task = await api.ended(task_id)
    assert time.monotonic() - began < 3  # not with the next heartbeat, which comes after 10 s
    assert (task.status, task.agent_id) == (SUCCESS, "small")
    assert (await api.agent("small")).labels["disk"] == "ssd"


async def test_a_label_of_the_operator_goes_over_that_of_the_agent(api: Api):
    await api.label("large", zone="z")
    assert (await api.ended(await api.create("true", label_selector=needs(zone="z")))).agent_id
    waiting = await api.create("true", label_selector=needs(zone="b"))
    assert "zone is" in (await api.task(waiting)).waiting_reason
    await api.label("large", zone="b")
    assert (await api.ended(waiting)).agent_id == "large"


async def test_a_full_agent_is_told_as_such(api: Api, gate):
    taken = [await api.create(gate.wait, label_selector=needs(zone="a")) for _ in range(2)]
    for task_id in taken:
        await api.runs(task_id)
    task_id = await api.create("true", label_selector=needs(zone="a"))
    full = "1 fitting agent is full; it is next when a slot gets free."

    async def told() -> bool:
        # Its tasks before were short, so it may hold this one ahead for a moment.
        return (await api.task(task_id)).waiting_reason == full

    await soon(told)
    gate.open()
    assert (await api.ended(task_id)).status == SUCCESS


async def test_a_dependency_is_told_as_such(api: Api, gate):
    first = await api.create(gate.wait, name="first one")
    await api.runs(first)
    task_id = await api.create("true", depends_on=[first])
    task = await api.task(task_id)
    assert task.waiting_reason == "It waits for first one (RUNNING)."
    gate.open()
    assert (await api.ended(task_id)).status == SUCCESS


async def test_a_wait_between_two_tries_is_told_as_such(api: Api):
    task_id = await api.create("exit 3", retry_count=1)
    await api.reaches(task_id, task_pb2.TASK_STATUS_PENDING)
    reason = (await api.task(task_id)).waiting_reason
    assert reason.startswith("Its next try is in ")
    assert reason.endswith("the last one failed: exit code 3.")
    await api.cancel(task_id)


@without_engine
async def test_an_image_waits_for_an_agent_that_runs_images_and_never_runs_on_the_host(api: Api):
    task_id = await api.create("true", image="alpine:3")
    reason = (await api.task(task_id)).waiting_reason
    assert "alpine:3" in reason
    assert "no connected agent" in reason
    await api.cancel(task_id)


async def test_without_any_agent_the_way_out_is_told(kit):
    lonely = kit.start_server()
    async with Api(lonely.grpc) as api:
        task_id = await api.create("true")
        assert (await api.task(task_id)).waiting_reason.startswith("No agent is connected")
        agent = kit.start_agent(lonely)
        await api.ended(task_id)
        assert agent.terminate() == 0
        task_id = await api.create("true")

        async def alone():
            return (await api.task(task_id)).waiting_reason.startswith("No agent is connected")

        await soon(alone)
