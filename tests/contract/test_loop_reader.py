"""What loops ask of a Reader: every implementation, the one of their tests included."""

from dataclasses import replace

import pytest

from server.domain.agent import SessionState
from server.domain.attempt import AttemptStatus, LogState
from server.domain.changes import Changes
from server.domain.errors import DamagedLog, NotFound
from server.domain.event import Event
from server.domain.log import LogLine
from server.domain.run import RunStatus
from server.domain.task import Queue, TaskStatus
from server.stores.interfaces import (
    AgentStanding,
    Backlog,
    GroupWaits,
    LiveSession,
    LogPlace,
    RunFilter,
)
from server.stores.sql.reader import SqlReader
from tests import blocks
from tests.fakes.memory_reader import MemoryReader
from tests.fakes.memory_source import MemoryDatabase
from tests.records import agent, attempt, event, full, new, pipeline, run, task


@pytest.fixture
def reader(database):
    return MemoryReader(database) if isinstance(database, MemoryDatabase) else SqlReader(database)


@pytest.fixture
def save(database):
    async def save(**records):
        await database.transact(lambda source: source.save(new(**records)))

    return save


# ---- logs


def lines(first, count):
    return [LogLine(5, "stdout", "info", f"line {n}") for n in range(first, first + count)]


def batch(first, count, number=1):
    return blocks.batch(1, number, first, lines(first, count))


@pytest.fixture
async def log(save):
    await save(
        tasks=[task(1, attempt=2, status=TaskStatus.RUNNING)],
        attempts=[
            attempt(1, 1, log_lines=0, status=AttemptStatus.LOST),
            attempt(1, 2, log_lines=7, log_state=LogState.OPEN),
        ],
        logs=[batch(6, 2, 2), batch(1, 3, 2), batch(4, 2, 2)],
    )


@pytest.mark.parametrize("first", range(1, 10))
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 9])
async def test_a_log_is_read_from_any_line_on(reader, log, first, limit):
    page = await reader.log("default", "task-1", 2, first, limit)
    assert page.lines == lines(1, 7)[first - 1 : first - 1 + limit]
    assert (page.total, page.first_line, page.state) == (7, first, LogState.OPEN)


@pytest.mark.parametrize("tail", [0, 1, 4, 7, 9])
@pytest.mark.parametrize(("since", "at"), [(0, 1), (1, 1), (4, 4), (7, 7), (8, 8)])
async def test_a_log_is_read_from_its_end_and_since_a_moment(reader, save, tail, since, at):
    timed = [LogLine(n, "stdout", "info", f"line {n}") for n in range(1, 8)]
    await save(
        tasks=[task(1, attempt=2, status=TaskStatus.RUNNING)],
        attempts=[attempt(1, 1, status=AttemptStatus.LOST), attempt(1, 2, log_lines=7)],
        logs=[blocks.batch(1, 2, 1, timed[:3]), blocks.batch(1, 2, 4, timed[3:])],
    )
    line = max(at, 8 - tail) if tail and tail < 7 else at
    assert await reader.log_place("default", "task-1", 2, tail, since) == LogPlace(2, line)
    assert await reader.log_place("default", "task-1", 0, tail, since) == LogPlace(2, line)
    with pytest.raises(NotFound):
        await reader.log_place("default", "task-1", 3, tail, since)


async def test_a_task_without_an_attempt_has_nothing_to_go_back_to(reader, save):
    await save(tasks=[task(1)])
    assert await reader.log_place("default", "task-1", 0, 5, 1) == LogPlace(0, 1)


async def test_damaged_lines_are_told_and_what_lies_before_is_given(reader, save):
    good, bad = blocks.batch(1, 1, 1, lines(1, 2)), blocks.batch(1, 1, 3, lines(3, 2))
    flipped = bytes([bad.block.data[0] ^ 1]) + bad.block.data[1:]
    await save(
        tasks=[task(1, attempt=1, status=TaskStatus.RUNNING)],
        attempts=[attempt(1, 1, log_lines=4)],
        logs=[good, replace(bad, block=replace(bad.block, data=flipped))],
    )
    page = await reader.log("default", "task-1", 1, 1, 10)
    assert page.lines == lines(1, 2)
    with pytest.raises(DamagedLog, match="begins with line 3"):
        await reader.log("default", "task-1", 1, 3, 10)


async def test_attempt_zero_is_the_latest(reader, log):
    page = await reader.log("default", "task-1", 0, 1, 9)
    assert (page.attempt, page.last_attempt, page.given_up) == (2, 2, False)
    earlier = await reader.log("default", "task-1", 1, 1, 9)
    assert (earlier.attempt, earlier.lines, earlier.given_up) == (1, [], True)


async def test_an_attempt_that_never_was_is_not_found(reader, log):
    with pytest.raises(NotFound):
        await reader.log("default", "task-1", 3, 1, 9)


@pytest.mark.parametrize(
    ("status", "state"),
    [(TaskStatus.QUEUED, LogState.OPEN), (TaskStatus.SKIPPED, LogState.COMPLETE)],
)
async def test_a_task_without_attempts_has_an_empty_log(reader, save, status, state):
    await save(tasks=[task(1, status=status)])
    page = await reader.log("default", "task-1", 0, 1, 9)
    assert (page.attempt, page.lines, page.state) == (0, [], state)


# ---- events, classes, sessions, timers


async def test_events_come_back_in_order_after_a_position(reader, save):
    told = [full(Event, position=0, data={"n": n, "text": "ü"}) for n in range(5)]
    await save(events=told)
    assert await reader.last_position() == told[-1].position
    assert await reader.events(0, 9) == told
    assert await reader.events(told[1].position, 2) == told[2:4]


async def test_without_events_the_last_position_is_zero(reader):
    assert await reader.last_position() == 0
    assert await reader.events(0, 9) == []


async def test_the_oldest_cursor_lies_before_the_oldest_event_that_is_kept(reader, save, database):
    assert await reader.oldest_cursor() == 0
    await save(events=[event(at=at) for at in (1, 2, 3)])
    assert await reader.oldest_cursor() == 0
    for before, oldest in ((3, 2), (9, 3)):
        await database.transact(lambda source, before=before: source.prune_events(before, 0, 9))
        assert await reader.oldest_cursor() == oldest


async def test_positions_have_no_holes_even_after_a_transaction_that_failed(reader, save, database):
    await save(events=[event()])

    def fail(source):
        source.save(new(events=[event(), event()]))
        raise LookupError

    with pytest.raises(LookupError):
        await database.transact(fail)
    await save(events=[event()])
    assert [each.position for each in await reader.events(0, 9)] == [1, 2]


# ---- where runs and agents stand


@pytest.fixture
async def runs(save):
    rows = [
        run(1, status=RunStatus.SUCCESS, finished_at=5),
        run(2, running=1, stage=2),
        run(3, namespace="other"),
        run(4, pipeline_key=2, pipeline_id="pipeline-2"),
    ]
    await save(pipelines=[pipeline(1), pipeline(2)], runs=rows, events=[event(), event()])
    return rows


async def test_without_names_the_active_runs_of_the_namespace_stand(reader, runs):
    found, position = await reader.runs_with_position(RunFilter("default"), 9)
    assert found == [(runs[1], "pipeline 1"), (runs[3], "pipeline 2")]
    assert position == 2
    assert (await reader.runs_with_position(RunFilter("default"), 1))[0] == found[:1]


async def test_runs_that_are_named_stand_ended_or_not(reader, runs):
    wanted = RunFilter("default", run_ids=("run-1", "run-3", "run-4", "a\0b"))
    found, _ = await reader.runs_with_position(wanted, 9)
    assert [each.public_id for each, _ in found] == ["run-1", "run-4"]
    wanted = RunFilter("default", pipeline_ids=("pipeline-2",), run_ids=("run-1", "run-4"))
    found, _ = await reader.runs_with_position(wanted, 9)
    assert [each.public_id for each, _ in found] == ["run-4"]


async def test_agents_stand_with_the_number_of_tasks_that_run_on_them(reader, save):
    agents = [agent(1), agent(2), agent(3, namespace="other")]
    leased = {"lease_session": "session-1", "lease_agent": 1}
    await save(
        agents=agents,
        tasks=[
            task(1, status=TaskStatus.RUNNING, **leased),
            task(2, status=TaskStatus.RUNNING, **leased),
            task(3, status=TaskStatus.QUEUED, **leased),
        ],
        events=[event()],
    )
    everybody = [AgentStanding(agents[0], 2), AgentStanding(agents[1], 0)]
    assert await reader.agents_with_position("default", []) == (everybody, 1)
    named = ["agent-1", "agent-3", "a\0b"]
    assert await reader.agents_with_position("default", named) == (everybody[:1], 1)


async def test_queues_with_ready_tasks_are_known_with_their_class(reader, save, database):
    await save(
        tasks=[
            task(1, class_key="a"),
            task(2, class_key="a"),
            task(4, class_key="a", namespace="other"),
            task(3, class_key="b", status=TaskStatus.PENDING),
        ]
    )
    classes = Changes(new_classes={"a": "text a", "b": "text b"})
    await database.transact(lambda source: source.save(classes))
    assert await reader.ready_queues() == {
        Queue("a", "default"): "text a",
        Queue("a", "other"): "text a",
    }
    assert await reader.class_text(["a", "b", "c"]) == {"a": "text a", "b": "text b"}


async def test_what_waits_in_queues_is_counted_up_to_a_limit(reader, save, database):
    classes = Changes(new_classes={"a": "text a", "b": "text b", "c": "text c"})
    await database.transact(lambda source: source.save(classes))
    await save(agents=[agent(1)])
    await save(
        tasks=[
            task(1, class_key="a", sort_key=3, ready_at=10),
            task(2, class_key="a", sort_key=2, ready_at=30),
            task(3, class_key="a", sort_key=1, ready_at=20),
            task(4, class_key="a", namespace="other", ready_at=40),
            task(5, class_key="a", lease_agent=1, ready_at=1),
            task(6, class_key="b", status=TaskStatus.RUNNING, ready_at=1),
            task(7, class_key="c", created_at=50),
        ]
    )
    here, there, none = Queue("a", "default"), Queue("a", "other"), Queue("b", "default")
    late = Queue("c", "default")
    assert await reader.backlogs([here, there, none, late], 9, 9) == {
        here: Backlog(3, 10),
        there: Backlog(1, 40),
        late: Backlog(1, 50),
    }
    assert await reader.backlogs([here], 2, 9) == {here: Backlog(2, 10)}
    assert await reader.backlogs([here], 9, 2) == {here: Backlog(3, 20)}
    assert await reader.backlogs([], 9, 9) == {}


async def test_who_waits_for_a_place_is_counted_group_by_group(reader, save, database):
    groups = {("default", "g"): 1, ("default", "h"): 1, ("x", "g"): 1, ("x", "full"): 1}
    await database.transact(lambda source: source.lock_groups(groups))
    waiting = {"status": TaskStatus.PENDING, "group_key": "g"}
    await save(
        tasks=[
            *(task(n, **waiting) for n in range(1, 4)),
            task(5, **waiting, unmet=1),
            task(6, **waiting, not_before=5),
            task(7, **{**waiting, "group_key": "h"}),
            task(8, **waiting, namespace="x"),
            task(9, group_key="full", namespace="x"),
            task(10, status=TaskStatus.PENDING),
        ]
    )
    assert await reader.group_waits(9) == GroupWaits(5, 3)
    assert await reader.group_waits(2) == GroupWaits(4, 3)


async def test_live_sessions_are_those_not_lost_and_not_closed(reader, save):
    await save(agents=[agent(n, session_state=s) for n, s in enumerate(SessionState, 1)])
    assert await reader.live_sessions() == [LiveSession("agent-1", "session-1", 1, 30_000)]


@pytest.mark.parametrize(
    "dues", [(None, None, None), (5, None, None), (None, 7, 9), (5, 7, 6), (7, 5, 9), (9, 7, 3)]
)
async def test_the_next_due_moment_is_the_earliest(reader, save, dues):
    of_task, of_log, of_agent = dues
    await save(tasks=[task(1, due_at=of_task)], attempts=[attempt(1, log_due=of_log)])
    await save(agents=[agent(1, due_at=of_agent)])
    assert await reader.next_due() == min((due for due in dues if due), default=None)


async def test_connected_agents_are_those_with_a_live_session_and_their_leases(reader, save):
    await save(agents=[agent(n, session_state=s) for n, s in enumerate(SessionState, 1)])
    await save(agents=[agent(8, public_id="A", namespace="other")])
    await save(tasks=[task(n, lease_agent=holder) for n, holder in enumerate([1, 1, 2, None], 1)])
    found = await reader.connected_agents()
    assert [(each.public_id, held) for each, held in found] == [("A", 0), ("agent-1", 2)]


async def test_ready_tasks_before_one_are_counted_by_class_up_to_a_limit(database, reader, save):
    classes = {"a": "text a", "b": "text b", "c": "text c"}
    others = {20: "another", 21: "zebra", 22: "zebra"}
    await database.transact(lambda source: source.save(Changes(new_classes=classes)))
    await save(agents=[agent(1)])
    rows = [
        task(1, class_key="a", sort_key=9),
        task(2, class_key="a", sort_key=5),
        task(3, class_key="b", sort_key=5),
        task(4, class_key="b", sort_key=5),
        task(5, class_key="a", sort_key=1, status=TaskStatus.PENDING),
        task(6, class_key="a", sort_key=1, lease_agent=1),
        task(7, class_key="a", sort_key=1),
        task(8, class_key="a", sort_key=2),
        task(9, class_key="c", sort_key=6),
        *(task(n, class_key="b", sort_key=99, namespace=name) for n, name in others.items()),
    ]
    await save(tasks=rows)

    async def before(row, limit=9):
        found = await reader.ready_before(row, limit)
        return {text: (own, foreign) for text, own, foreign in found}

    assert await before(rows[3]) == {"text a": (3, 0), "text b": (1, 3)}
    assert await before(rows[2]) == {"text a": (3, 0), "text b": (0, 3)}
    every = {"text a": (3, 0), "text b": (2, 3), "text c": (1, 0)}
    assert await before(rows[0]) == every
    every |= {"text a": (2, 0), "text b": (2, 2)}
    assert await before(rows[0], limit=2) == every
    assert await before(rows[6]) == {"text b": (0, 3)}


async def test_measurements_are_those_of_connected_agents(reader, save):
    agents = [agent(1, measured={"at": 1}), agent(2), agent(3, measured={"at": 2})]
    agents[2].session_state = SessionState.LOST
    await save(agents=agents)
    assert await reader.measured() == {"agent-1": {"at": 1}}
