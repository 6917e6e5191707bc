"""The races that lose or double work elsewhere, on real databases.

Answers are lost after the commit; two servers want the same row; a late agent meets a new lease.
"""

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from server.domain.attempt import AttemptStatus
from server.domain.claiming import Claim
from server.domain.defining import CreatePipeline, Description
from server.domain.errors import MusterError, NotFound, WrongState
from server.domain.holding import Held
from server.domain.lease import LeaseRef, VerdictAction
from server.domain.log import LogLine
from server.domain.log_keeping import AppendLog, LooseLines
from server.domain.pipeline import Definition, Job, Stage
from server.domain.placement import Offer
from server.domain.policy import Policy
from server.domain.registering import Attach, LoseSession, Profile, Register
from server.domain.reporting import Report
from server.domain.submitting import (
    CreateTask,
    DeleteTask,
    Idempotency,
    NewTask,
    RetryTask,
    task_class,
)
from server.domain.submitting_many import CreateTasks
from server.domain.task import Queue, TaskSpec, TaskStatus
from server.domain.triggering import Trigger, TriggerPipeline
from server.engine.clock import Clock
from server.engine.writer import decide
from server.stores.sql import tables
from server.stores.sql.database import PostgresDatabase
from server.stores.sql.reader import SqlReader

NAMESPACE = "default"
NEW = NewTask("x", TaskSpec(("true",)))
CLASS = task_class(NEW.selector, "").key
RUN_ID = "01900000-0000-7000-8000-000000000000"


async def do(database, *commands):
    """Decide commands in one transaction; return the last answer or raise its refusal."""
    work = partial(decide, commands, Clock(), Policy())
    answer = (await database.transact(work)).answers[-1]
    if isinstance(answer, MusterError):
        raise answer
    return answer


async def count(database, table):
    async with database.reading() as connection:
        return len((await connection.execute(select(table))).all())


async def task(database, task_id):
    return (await SqlReader(database).task(NAMESPACE, task_id)).task


def create(task_id):
    return CreateTask(NAMESPACE, task_id, NEW, "")


def register(agent_id, session=None, held=()):
    return Register(
        NAMESPACE, agent_id, session or f"{agent_id}-1", Profile(slots=4), Held(tuple(held))
    )


async def claim(database, agent_id, *, session=None, frame=1):
    """Let an agent claim one task; return the assignment, or None when there was none."""
    agent = (await SqlReader(database).agent(NAMESPACE, agent_id))[0]
    session = session or f"{agent_id}-1"
    offer = Offer(agent.key, agent_id, session, 1, frozenset([CLASS]), frame)
    claimed = await do(database, Claim((offer,), (Queue(CLASS, NAMESPACE),)))
    given = claimed.assignments.get(session, [])
    return given[0] if given else None


# ---- the connection is lost after COMMIT


class Forgetful(PostgresDatabase):
    """Loses its connection right after a commit, once: done, but nobody was told."""

    forgets = False

    async def _transact(self, work, *, replayed):
        answer = await super()._transact(work, replayed=replayed)
        if self.forgets and not replayed:
            raise DBAPIError("COMMIT", {}, Exception("cut"), connection_invalidated=True)
        return answer


@pytest.fixture
async def forgetful(postgres):
    database = Forgetful(postgres.url(await postgres.create()))
    await database.open()
    yield database
    await database.close()


async def test_a_connection_lost_after_commit_submits_once(forgetful):
    forgetful.forgets = True
    assert await do(forgetful, create("t")) == "t"
    assert await count(forgetful, tables.tasks) == 1
    assert await count(forgetful, tables.events) == 1


async def test_a_lost_answer_to_a_claim_hands_out_the_same_task_and_no_other(forgetful):
    await do(forgetful, create("first"), create("second"), register("a"))
    forgetful.forgets = True
    given = await claim(forgetful, "a")
    assert (given.task_id, given.lease_id) == ("first", "first.1")
    assert (await task(forgetful, "second")).ready
    assert await count(forgetful, tables.attempts) == 1


async def test_a_connection_lost_after_commit_submits_a_batch_once(forgetful):
    forgetful.forgets = True
    tasks = (replace(NEW, key="a"), replace(NEW, depends_on=("a",)))
    assert await do(forgetful, CreateTasks(NAMESPACE, ("t", "u"), tasks, "")) == ["t", "u"]
    assert await count(forgetful, tables.tasks) == 2
    assert await count(forgetful, tables.dependencies) == 1


async def test_a_connection_lost_after_commit_ends_a_task_once(forgetful):
    await do(forgetful, create("t"), register("a"))
    given = await claim(forgetful, "a")
    forgetful.forgets = True
    ref = LeaseRef("t", given.lease_id)
    verdict = await do(forgetful, Report("a", ref, TaskStatus.FAILED, exit_code=3))
    assert verdict.action is VerdictAction.CONTINUE
    assert (await task(forgetful, "t")).failed_attempts == 1
    events = await SqlReader(forgetful).events(0, 100)
    ends = [e for e in events if e.data.get("status") == int(TaskStatus.FAILED)]
    assert len(ends) == 1


async def test_a_connection_lost_after_commit_stores_lines_once(forgetful):
    await do(forgetful, create("t"), register("a"))
    given = await claim(forgetful, "a")
    forgetful.forgets = True
    lines = (LogLine(1, "stdout", "info", "one"), LogLine(1, "stdout", "info", "two"))
    answer = await do(
        forgetful, AppendLog("a", LeaseRef("t", given.lease_id), LooseLines(1, lines))
    )
    assert answer.acked_through == 2
    page = await SqlReader(forgetful).log(NAMESPACE, "t", 1, 1, 10)
    assert [line.text for line in page.lines] == ["one", "two"]


async def test_a_connection_lost_after_commit_starts_one_run(forgetful):
    definition = Definition((Stage("s", (Job("j", ("true",)), Job("k", ("true",)))),))
    forgetful.forgets = True
    await do(forgetful, CreatePipeline(NAMESPACE, "p", Description("pipe", definition)))
    answer = await do(forgetful, TriggerPipeline(NAMESPACE, "p", RUN_ID, Trigger()))
    assert (len(answer), answer[0]) == (3, RUN_ID)
    assert await count(forgetful, tables.runs) == 1
    assert await count(forgetful, tables.tasks) == 2


async def test_a_connection_lost_after_commit_deletes_and_retries_once(forgetful):
    await do(forgetful, create("t"), register("a"))
    given = await claim(forgetful, "a")
    await do(forgetful, Report("a", LeaseRef("t", given.lease_id), TaskStatus.SUCCESS))
    forgetful.forgets = True
    assert await do(forgetful, RetryTask(NAMESPACE, "t", "again", "")) == "again"
    await do(forgetful, DeleteTask(NAMESPACE, "t"))
    with pytest.raises(NotFound):
        await SqlReader(forgetful).task(NAMESPACE, "t")
    assert await count(forgetful, tables.tasks) == 1


# ---- two want the same


async def test_delete_racing_claim_leaves_the_task_gone_or_held_never_both(sql_database):
    await do(sql_database, register("a"))
    outcomes = set()
    for number in range(20):
        task_id = f"t{number}"
        await do(sql_database, create(task_id))
        deleted, given = await asyncio.gather(
            do(sql_database, DeleteTask(NAMESPACE, task_id)),
            claim(sql_database, "a", frame=number + 1),
            return_exceptions=True,
        )
        if given is None:
            assert deleted is None
            outcomes.add("deleted")
            continue
        assert isinstance(deleted, WrongState), "it was deleted in its agent's hands"
        outcomes.add("held")
        await do(sql_database, Report("a", LeaseRef(task_id, given.lease_id), TaskStatus.SUCCESS))
    assert outcomes


async def test_two_agents_that_claim_at_once_never_get_the_same_task(sql_database):
    agents = ["a", "b", "c", "d"]
    await do(sql_database, *map(register, agents), *(create(f"t{n}") for n in range(10)))
    given = []
    for frame in (1, 2, 3):
        claims = (claim(sql_database, agent, frame=frame) for agent in agents)
        given += [g.task_id for g in await asyncio.gather(*claims) if g is not None]
    assert len(given) == len(set(given))
    # Rows another claim had locked were skipped; what is left is ready for the next look.
    left = [n for n in range(10) if (await task(sql_database, f"t{n}")).ready]
    assert len(given) + len(left) == 10


async def test_two_registrations_of_one_agent_at_once_leave_one_session(sql_database):
    both = [register("a", "one"), register("a", "two")]
    await asyncio.gather(*(do(sql_database, each) for each in both))
    assert await count(sql_database, tables.agents) == 1
    agent, _ = await SqlReader(sql_database).agent(NAMESPACE, "a")
    older = "one" if agent.session_id == "two" else "two"
    with pytest.raises(MusterError, match="newer session"):
        await do(sql_database, Attach("a", older, Held()))


async def test_a_submit_repeated_to_another_server_at_once_makes_one_task(postgres):
    name = await postgres.create()
    servers = [PostgresDatabase(postgres.url(name)) for _ in range(4)]
    for server in servers:
        await server.open()
    try:
        for number in range(15):
            key = Idempotency("me", f"request-{number}", "body")
            answers = await asyncio.gather(
                *(
                    do(server, CreateTask(NAMESPACE, f"t{number}-{place}", NEW, "", key))
                    for place, server in enumerate(servers)
                )
            )
            assert len(set(answers)) == 1, "callers were told of different tasks"
        assert await count(servers[0], tables.tasks) == 15
    finally:
        for server in servers:
            await server.close()


# ---- a late agent


async def test_a_stale_completion_after_reassignment_changes_nothing(sql_database):
    await do(sql_database, create("t"), register("a"), register("b"))
    old = await claim(sql_database, "a")
    agent, _ = await SqlReader(sql_database).agent(NAMESPACE, "a")
    assert await do(sql_database, LoseSession("a", "a-1", agent.last_seen))
    new = await claim(sql_database, "b")
    verdict = await do(
        sql_database, Report("a", LeaseRef("t", old.lease_id), TaskStatus.FAILED, exit_code=9)
    )
    assert verdict.action is VerdictAction.SUPERSEDED
    now = await task(sql_database, "t")
    assert (now.status, now.last_agent_id, now.exit_code) == (TaskStatus.QUEUED, "b", 0)
    await do(sql_database, Report("b", LeaseRef("t", new.lease_id), TaskStatus.SUCCESS))
    assert (await task(sql_database, "t")).status is TaskStatus.SUCCESS


async def test_a_late_completion_before_the_next_claim_is_adopted(sql_database):
    await do(sql_database, create("t"), register("a"))
    given = await claim(sql_database, "a")
    agent, _ = await SqlReader(sql_database).agent(NAMESPACE, "a")
    await do(sql_database, LoseSession("a", "a-1", agent.last_seen))
    assert (await task(sql_database, "t")).infra_retries == 1
    await do(sql_database, Report("a", LeaseRef("t", given.lease_id), TaskStatus.SUCCESS))
    view = await SqlReader(sql_database).task(NAMESPACE, "t")
    assert (view.task.status, view.task.infra_retries) == (TaskStatus.SUCCESS, 0)
    assert [attempt.status for attempt in view.attempts] == [AttemptStatus.SUCCESS]


async def test_a_lost_assignment_frame_is_released_when_the_stream_opens_again(sql_database):
    await do(sql_database, create("t"), register("a"))
    await claim(sql_database, "a", frame=7)
    await do(sql_database, Attach("a", "a-1", Held((), seen_through=6), complete=True))
    view = await SqlReader(sql_database).task(NAMESPACE, "t")
    assert view.task.ready
    assert (view.task.infra_retries, view.attempts[0].status) == (0, AttemptStatus.RELEASED)
