"""What is over goes, oldest first; what is still needed stays. Over every Database."""

from server.domain.changes import Changes, ChoreKind, LogChore, RequestRecord
from server.domain.run import RunStatus
from server.domain.task import TaskStatus
from tests.records import agent, attempt, event, new, pipeline, run, task

OVER = {"status": TaskStatus.SUCCESS}


async def save(database, changes):
    await database.transact(lambda source: source.save(changes))


async def ask(database, question):
    return await database.transact(question)


async def prunable(database, before, limit=10):
    found = await ask(database, lambda source: source.prunable_tasks(before, limit))
    return [task.key for task in found]


async def test_ended_tasks_come_oldest_first_up_to_the_limit(database):
    tasks = [task(key, finished_at=at, **OVER) for key, at in ((1, 30), (2, 10), (3, 20), (4, 99))]
    await save(database, new(tasks=[*tasks, task(5)]))
    assert await prunable(database, 50) == [2, 3, 1]
    assert await prunable(database, 50, limit=2) == [2, 3]


async def test_tasks_of_an_active_run_stay(database):
    runs = [run(1, status=RunStatus.RUNNING), run(2, status=RunStatus.SUCCESS, finished_at=5)]
    await save(database, new(pipelines=[pipeline(1)], runs=runs))
    tasks = [task(key, run_key=key, finished_at=5, **OVER) for key in (1, 2)]
    await save(database, new(tasks=tasks))
    assert await prunable(database, 50) == [2]


async def test_a_task_that_an_open_one_depends_on_stays(database):
    over = [task(key, finished_at=5, **OVER) for key in (1, 2)]
    others = [task(3, status=TaskStatus.PENDING), task(4, finished_at=99, **OVER)]
    await save(database, new(tasks=[*over, *others], dependencies=[(3, 1), (4, 2)]))
    assert await prunable(database, 50) == [2]


async def test_a_task_stays_whose_log_has_a_chore_that_is_not_to_be_lost(database):
    tasks = [task(key, finished_at=4 + key, **OVER) for key in (1, 2, 3)]
    chores = [LogChore(ChoreKind.ARCHIVE, (1, 1), 5), LogChore(ChoreKind.SEAL, (2, 1), 5)]
    await save(database, new(tasks=tasks))
    await save(database, Changes(chores=chores))
    assert await prunable(database, 50) == [1, 2, 3]
    left = await ask(
        database, lambda source: source.prunable_tasks(50, 10, without=ChoreKind.ARCHIVE)
    )
    assert [task.key for task in left] == [2, 3]


async def test_a_task_goes_with_its_attempts_and_dependencies_on_either_side(database):
    tasks = [task(key, finished_at=5, **OVER) for key in (1, 2, 3)]
    pairs = [(2, 1), (3, 2)]
    await save(
        database,
        new(agents=[agent(1)], tasks=tasks, attempts=[attempt(2, 1)], dependencies=pairs),
    )
    await save(database, Changes(deleted_tasks=[tasks[1]]))
    assert await ask(database, lambda s: [t.key for t in s.tasks_by_key([1, 2, 3])]) == [1, 3]
    assert await ask(database, lambda s: s.attempts([(2, 1)])) == []
    assert await ask(database, lambda s: s.dependents([1, 2])) == []


async def test_events_go_without_leaving_holes_when_a_clock_was_set(database):
    await save(database, Changes(events=[event(at=at) for at in (10, 90, 20, 80)]))
    assert await ask(database, lambda s: s.prune_events(25, 0, 10)) == 3
    assert await ask(database, lambda s: s.prune_events(25, 0, 10)) == 0


async def test_events_go_by_age_or_by_position_from_the_oldest_on(database):
    await save(database, Changes(events=[event(at=at) for at in (10, 20, 30, 40)]))
    assert await ask(database, lambda s: s.prune_events(25, 0, 10)) == 2
    assert await ask(database, lambda s: s.prune_events(0, 3, 10)) == 1
    assert await ask(database, lambda s: s.prune_events(99, 0, 10)) == 1
    assert await ask(database, lambda s: s.prune_events(99, 99, 10)) == 0


async def test_events_go_in_steps(database):
    await save(database, Changes(events=[event(at=at) for at in range(5)]))
    steps = [await ask(database, lambda s: s.prune_events(99, 0, 2)) for _ in range(4)]
    assert steps == [2, 2, 1, 0]


async def test_a_run_goes_when_its_tasks_are_gone(database):
    runs = [run(key, status=RunStatus.SUCCESS, finished_at=5) for key in (1, 2)]
    await save(database, new(pipelines=[pipeline(1)], runs=[*runs, run(3)]))
    await save(database, new(tasks=[task(1, run_key=1, finished_at=5, **OVER)]))
    assert await ask(database, lambda s: s.prune_runs(50, 10)) == 1
    assert await ask(database, lambda s: [r.key for r in s.runs_by_key([1, 2, 3])]) == [1, 3]


async def test_expired_request_ids_are_forgotten(database):
    records = [RequestRecord("n", "c", str(at), "hash", "answer", at) for at in (10, 20, 30)]
    await save(database, Changes(requests=records))
    assert await ask(database, lambda s: s.prune_requests(25, 10)) == 2
    assert await ask(database, lambda s: s.request("n", "c", "30")) is not None
