"""Runs go along on real databases: gates, conditions, outputs, turns, versions, links, hooks."""

import asyncio
from functools import partial

import pytest

from server.definition.expanding import read_definition
from server.definition.expression import CelExpressions
from server.definition.times import CronTimes
from server.domain.approving import AnswerApproval
from server.domain.claiming import Claim
from server.domain.defining import CreatePipeline, DeletePipeline, Description, UpdatePipeline
from server.domain.delivering import (
    ClaimDeliveries,
    CreateHook,
    DeleteHook,
    FinishDelivery,
    PruneDeliveries,
    ReceiveDelivery,
    Redeliver,
    RotateHook,
)
from server.domain.errors import Invalid, MusterError, NotFound
from server.domain.holding import Held
from server.domain.hook import DeliveryState, HookKind
from server.domain.lease import LeaseRef
from server.domain.placement import Offer
from server.domain.policy import Policy
from server.domain.registering import Profile, Register
from server.domain.reporting import Report
from server.domain.retrying import RetryRun, RetryScope
from server.domain.run import RunStatus
from server.domain.task import Queue, TaskSpec, TaskStatus
from server.domain.trigger_event import TriggerEvent
from server.domain.triggering import Trigger, TriggerPipeline
from server.domain.waiting import WaitingFor
from server.engine.clock import Clock
from server.engine.explainer import Explainer
from server.engine.sessions import Sessions
from server.engine.writer import decide
from server.stores.sql.reader import SqlReader

NAMESPACE = "default"
RUN = "01900000-0000-7000-8000-0000%02x000000"

WIDE = """
name: wide
concurrency: {group: one}
stages:
  - name: one
    parallel: true
    jobs:
      - {name: a, commands: x, matrix: {n: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}, outputs: v}
  - name: two
    parallel: true
    jobs:
      - {name: b, commands: x, matrix: {n: [1, 2, 3, 4, 5, 6, 7, 8, 9]}}
      - {name: tell, if: failure(), commands: x}
  - name: three
    jobs:
      - {name: ok?, approval: [olga]}
      - name: c
        needs: a
        if: needs.a.outputs.v == '7'
        env: {V: "${{ needs.a.result }}"}
        commands: x
"""
SMALL = """
name: p
stages:
  - {name: s, jobs: [{name: j, commands: x}]}
"""


class Shop:
    """A database, and short words for what is done to it."""

    def __init__(self, database):
        self.database = database
        self.reader = SqlReader(database)

    async def do(self, command):
        work = partial(
            decide,
            [command],
            Clock(),
            Policy(),
            expressions=CelExpressions(),
            times=CronTimes(),
        )
        (answer,) = (await self.database.transact(work)).answers
        if isinstance(answer, MusterError):
            raise answer
        return answer

    async def pipeline(self, text, pipeline_id="p"):
        file, definition = read_definition(text)
        wanted = Description(file.name, definition, source=text)
        return await self.do(CreatePipeline(NAMESPACE, pipeline_id, wanted))

    async def trigger(self, number, pipeline_id="p", **chosen):
        command = TriggerPipeline(NAMESPACE, pipeline_id, RUN % number, Trigger(**chosen))
        return (await self.do(command))[0]

    async def join(self):
        await self.do(Register(NAMESPACE, "a", "a-1", Profile(slots=100), Held()))

    async def work(self, fails=(), **outputs):
        """Have the agent do what is ready until nothing is."""
        agent, _ = await self.reader.agent(NAMESPACE, "a")
        while True:
            ready = await self.reader.ready_queues()
            queues = tuple(Queue(*queue) for queue in ready)
            classes = frozenset(queue.class_key for queue in queues)
            offer = Offer(agent.key, "a", "a-1", 20, classes, 1)
            claimed = await self.do(Claim((offer,), queues)) if queues else None
            given = claimed.assignments.get("a-1", []) if claimed else []
            if not given:
                return
            for each in given:
                name = (await self.reader.task(NAMESPACE, each.task_id)).task.name
                status = TaskStatus.FAILED if name in fails else TaskStatus.SUCCESS
                ref = LeaseRef(each.task_id, each.lease_id)
                await self.do(Report("a", ref, status, outputs=outputs))

    async def run(self, run_id):
        """Return a run's status, and how each of its jobs stands."""
        run, _, tasks = await self.reader.run(NAMESPACE, run_id)
        return run.status, {task.name: task.status.name for task in tasks}

    async def explain(self, run_id, name):
        _, _, tasks = await self.reader.run(NAMESPACE, run_id)
        (task,) = (each for each in tasks if each.name == name)
        explainer = Explainer(self.reader, Sessions(), Clock(), Policy())
        return await explainer.explain(await self.reader.task(NAMESPACE, task.public_id))


@pytest.fixture
async def shop(sql_database):
    shop = Shop(sql_database)
    await shop.join()
    return shop


async def test_a_run_goes_through_gates_conditions_and_an_approval(shop):
    await shop.pipeline(WIDE)
    first = await shop.trigger(1)
    second = await shop.trigger(2)
    assert (await shop.explain(first, "b (1)")).sentence == (
        "It waits for 10 jobs of the stage before."
    )
    waits = await shop.explain(second, "a (1)")
    assert waits.waiting_for is WaitingFor.TURN_OF_RUN
    assert f"run 1 ({first})" in waits.sentence
    await shop.work(v="7")
    status, jobs = await shop.run(first)
    assert status is RunStatus.RUNNING
    assert (jobs["b (9)"], jobs["tell"], jobs["ok?"]) == ("SUCCESS", "SKIPPED", "PENDING")
    assert (await shop.explain(first, "ok?")).waiting_for is WaitingFor.APPROVAL
    await shop.do(AnswerApproval(NAMESPACE, first, "", True, "olga", frozenset(["olga"])))
    await shop.work()
    status, jobs = await shop.run(first)
    assert (status, jobs["c"]) == (RunStatus.SUCCESS, "SUCCESS")
    _, _, tasks = await shop.reader.run(NAMESPACE, first)
    assert TaskSpec.from_json(tasks[-1].spec).env["V"] == "success"
    status, jobs = await shop.run(second)
    assert jobs["a (1)"] == "SUCCESS"  # its turn came when the first had ended


async def test_a_failure_before_a_gate_and_a_retry(shop):
    await shop.pipeline(WIDE.replace("concurrency: {group: one}", ""))
    run_id = await shop.trigger(1)
    await shop.work(fails={"a (3)"}, v="7")
    status, jobs = await shop.run(run_id)
    assert status is RunStatus.FAILED
    assert (jobs["b (1)"], jobs["tell"], jobs["ok?"]) == ("SKIPPED", "SUCCESS", "SKIPPED")
    again = RetryRun(NAMESPACE, run_id, RUN % 9, RetryScope.FAILED)
    new_id, *_ = await shop.do(again)
    await shop.work(v="7")
    await shop.do(AnswerApproval(NAMESPACE, new_id, "ok?", True))
    await shop.work(v="7")
    status, jobs = await shop.run(new_id)
    assert (status, jobs["c"]) == (RunStatus.SUCCESS, "SUCCESS")


async def test_runs_that_end_at_once_on_two_servers_give_their_turns_once(shop):
    await shop.pipeline(SMALL + "concurrency: {group: g, limit: 2}")
    runs = await asyncio.gather(*(shop.trigger(number) for number in range(8)))
    going_on = [run for run in runs if (await shop.run(run))[1]["j"] == "QUEUED"]
    assert len(going_on) == 2
    await shop.work()
    assert [(await shop.run(run))[0] for run in runs] == [RunStatus.SUCCESS] * 8


async def test_versions_links_and_deletion(shop):
    text = SMALL.replace("name: p", "name: one")
    await shop.pipeline(text, "p1")
    await shop.pipeline(text.replace("one", "two") + "\non: {pipeline: one}", "p2")
    with pytest.raises(Invalid, match="for ever"):
        await shop.do(
            UpdatePipeline(
                NAMESPACE,
                "p1",
                Description("one", read_definition(text + "\non: {pipeline: two}")[1]),
            )
        )
    _, definition = read_definition(text.replace("name: j", "name: k"))
    assert await shop.do(UpdatePipeline(NAMESPACE, "p1", Description("one", definition))) == 2
    pipeline = await shop.reader.pipeline(NAMESPACE, "p1")
    versions = await shop.reader.pipeline_versions(pipeline, 1, 9)
    assert [version.number for version in versions] == [2, 1]
    await shop.trigger(1, "p1")
    await shop.work()
    assert (await shop.reader.pipeline(NAMESPACE, "p2")).runs == 1
    assert (await shop.reader.last_runs([pipeline.key]))[pipeline.key].number == 1
    await shop.do(DeletePipeline(NAMESPACE, "p1"))
    with pytest.raises(NotFound):
        await shop.reader.pipeline(NAMESPACE, "p1")
    await shop.pipeline(text, "p3")


async def test_deliveries_are_kept_once_and_looked_at_once(shop):
    await shop.pipeline(SMALL)
    await shop.do(CreateHook(NAMESPACE, "h", "p", HookKind.GITHUB, "s"))
    await shop.do(RotateHook(NAMESPACE, "h", "t"))
    (hook,) = await shop.reader.hooks(NAMESPACE, "p")
    assert (hook.secret, hook.previous_secret) == ("t", "s")

    def receive(delivery_id, forge_id="", digest=""):
        return shop.do(
            ReceiveDelivery(NAMESPACE, "h", delivery_id, forge_id, digest, "push", 2, b"x")
        )

    assert await receive("d1", "f1", "aa") == ("d1", False)
    assert await receive("d1", "f1", "aa") == ("d1", False)  # a lost answer
    assert await receive("d2", "f1", "bb") == ("d1", True)
    assert await receive("d3", "f3", "aa") == ("d1", True)
    alike = await asyncio.gather(*(receive(f"e{n}", "f9", "cc") for n in range(6)))
    assert sorted(duplicate for _, duplicate in alike) == [False, *[True] * 5]
    taken = await shop.do(ClaimDeliveries())
    assert len(taken) == 2
    assert await shop.do(ClaimDeliveries()) == []
    event = TriggerEvent(kind="push", branch="main", commit="c")
    finish = FinishDelivery(NAMESPACE, "d1", HookKind.GITHUB, (event,))
    started = await shop.do(finish)
    assert await shop.do(finish) == started
    await shop.do(Redeliver(NAMESPACE, "d1", "d7"))
    ignored = FinishDelivery(NAMESPACE, "d7", HookKind.GITHUB, (), "not now")
    await shop.do(ignored)
    listed = await shop.reader.deliveries(NAMESPACE, "p", 0, 10)
    assert next((d.public_id, d.state, d.outcome) for d in listed if d.body is None) == (
        "d7",
        DeliveryState.IGNORED,
        "not now",
    )
    assert (await shop.reader.delivery(NAMESPACE, "d1")).run_ids == started
    assert len(await shop.do(PruneDeliveries(2**62))) == 2
    await shop.do(DeleteHook(NAMESPACE, "h"))
    assert await shop.reader.deliveries(NAMESPACE, "p", 0, 10) == []
