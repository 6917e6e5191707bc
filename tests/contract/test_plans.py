"""What the hot path asks SQLite is answered through an index, however much history there is."""

import pytest
from sqlalchemy import event

from server.domain.claiming import Claim
from server.domain.holding import Held
from server.domain.lease import LeaseRef
from server.domain.placement import Offer
from server.domain.policy import Policy
from server.domain.registering import Attach, Profile, Register
from server.domain.reporting import Report
from server.domain.submitting import NewTask, task_class
from server.domain.submitting_many import CreateTasks
from server.domain.task import Queue, TaskSpec, TaskStatus
from server.domain.timing import RunTimers
from server.engine.writer import decide
from server.stores.sql.database import SqliteDatabase
from server.stores.sql.reader import SqlReader
from tests.fakes.clock import HandClock

NAMESPACE = "default"
NEW = NewTask("n", TaskSpec(("true",)), key="a")
NEXT = NewTask("m", TaskSpec(("true",)), depends_on=("a",))
QUEUE = Queue(task_class(NEW.selector, "").key, NAMESPACE)
LARGE = ("tasks", "attempts", "events", "dependencies", "logs", "log_blobs")
"""Tables that grow with history."""


@pytest.fixture
async def asked(tmp_path):
    """Return a database, and the statements that its writer is asked, with their parameters in."""
    database = SqliteDatabase(tmp_path / "muster.db")
    await database.open()
    statements = set()

    def listen(connection, *_):
        connection.set_trace_callback(statements.add)

    event.listen(database._writer, "checkout", listen)
    yield database, statements
    await database.close()


async def do(database, *commands):
    clock = HandClock()
    committed = await database.transact(lambda source: decide(commands, clock, Policy(), source))
    for answer in committed.answers:
        assert not isinstance(answer, Exception), answer
    return committed.answers


async def live(database):
    """Take tasks through their whole life; agents come, are heard, and timers look."""
    await do(database, Register(NAMESPACE, "a", "s", Profile(slots=9), Held()))
    agent, _ = await SqlReader(database).agent(NAMESPACE, "a")
    tasks = tuple(f"t{number}" for number in range(6))
    await do(database, CreateTasks(NAMESPACE, tasks, (NEW, *[NEXT] * 5), ""))
    for frame in (1, 2):
        offer = Offer(agent.key, "a", "s", 9, frozenset([QUEUE.class_key]), frame)
        (claimed,) = await do(database, Claim((offer,), (QUEUE,)))
        leases = [LeaseRef(a.task_id, a.lease_id) for a in claimed.assignments["s"]]
        await do(database, *(Report("a", each, TaskStatus.RUNNING) for each in leases))
        await do(database, Attach("a", "s", Held(tuple(leases), frame)), RunTimers())
        await do(database, *(Report("a", each, TaskStatus.SUCCESS) for each in leases))


async def test_no_statement_of_the_hot_path_looks_at_every_row(asked):
    database, statements = asked
    await live(database)
    assert len(statements) > 15

    def plans():
        with database._writer.connect() as connection:
            for statement in list(statements):
                if statement.split()[0] in ("SELECT", "UPDATE", "DELETE", "WITH"):
                    explain = f"EXPLAIN QUERY PLAN {statement}"
                    for step in connection.exec_driver_sql(explain):
                        yield step[3], statement

    scans = [
        (step, statement)
        for step, statement in await database._in_thread(lambda: list(plans()))
        if any(step.startswith(f"SCAN {table}") and "INDEX" not in step for table in LARGE)
    ]
    assert scans == []
