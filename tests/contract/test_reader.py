"""What the Reader promises over every SQL database."""

import pytest
from sqlalchemy import text

from server.domain.audit import AuditEntry
from server.domain.changes import Changes
from server.domain.errors import NotFound, StoreUnavailable
from server.domain.log import LogLine
from server.domain.run import RunStatus
from server.domain.task import TaskStatus
from server.domain.token import TokenKind
from server.stores.interfaces import AuditFilter, Order, PageSpec, TaskFilter
from server.stores.log_blocks import PAGE_BYTES
from server.stores.sql.database import PostgresDatabase
from server.stores.sql.reader import SqlReader
from tests.blocks import batch
from tests.records import agent, attempt, changed, event, full, new, pipeline, run, task, token

HERE = TaskFilter("default")


@pytest.fixture
def reader(sql_database):
    return SqlReader(sql_database)


@pytest.fixture
def save(sql_database):
    async def save(**records):
        await sql_database.transact(lambda source: source.save(new(**records)))

    return save


def keys(page):
    return [item.key for item in page.items]


# ---- one thing


async def test_a_task_comes_with_all_that_belongs_to_it(reader, save, sql_database):
    await save(
        agents=[agent(1, labels={"disk": "ssd"})],
        tasks=[task(1, name="first", status=TaskStatus.SUCCESS), task(2, last_agent=1)],
        attempts=[attempt(2, 2), attempt(2, 1), attempt(1, 1)],
        dependencies=[(2, 1)],
    )
    classes = Changes(new_classes={"any": "{}"})
    await sql_database.transact(lambda source: source.save(classes))
    view = await reader.task("default", "task-2")
    assert view.task == task(2, last_agent=1)
    assert view.attempts == [attempt(2, 1), attempt(2, 2)]
    assert view.depends_on == [("task-1", "first", TaskStatus.SUCCESS)]
    assert view.agent_labels == {"disk": "ssd", "agent": "agent-1"}
    assert view.canonical_class == "{}"


async def test_a_run_comes_with_its_pipelines_name_and_its_tasks_in_order(reader, save):
    await save(pipelines=[pipeline(1)], runs=[run(1)])
    rows = [task(1, run_key=1, position=1), task(2, run_key=1, position=0), task(3)]
    await save(tasks=rows, dependencies=[(1, 2), (3, 1)])
    found, name, tasks = await reader.run("default", "run-1")
    assert (found, name, [t.key for t in tasks]) == (run(1), "pipeline 1", [2, 1])
    assert await reader.dependencies_of_run(1) == [(1, 2)]


async def test_an_agent_comes_with_the_tasks_it_holds(reader, save):
    await save(agents=[agent(1), agent(2)])
    await save(tasks=[task(2, lease_agent=1), task(1, lease_agent=1), task(3, last_agent=1)])
    assert await reader.agent("default", "agent-1") == (agent(1), ["task-1", "task-2"])
    assert await reader.agents("default") == [(agent(1), 2), (agent(2), 0)]


async def test_a_pipeline_comes_by_its_id(reader, save):
    await save(pipelines=[pipeline(1)])
    assert await reader.pipeline("default", "pipeline-1") == pipeline(1)


ASK = {
    "task": lambda reader, ns, i: reader.task(ns, f"task-{i}"),
    "log": lambda reader, ns, i: reader.log(ns, f"task-{i}", 0, 1, 9),
    "pipeline": lambda reader, ns, i: reader.pipeline(ns, f"pipeline-{i}"),
    "run": lambda reader, ns, i: reader.run(ns, f"run-{i}"),
    "agent": lambda reader, ns, i: reader.agent(ns, f"agent-{i}"),
}


@pytest.mark.parametrize("ask", ASK.values(), ids=ASK)
async def test_nobody_sees_into_another_namespace(reader, save, ask):
    await save(agents=[agent(1)], pipelines=[pipeline(1)], runs=[run(1)], tasks=[task(1)])
    await ask(reader, "default", 1)
    for namespace, number in [("other", 1), ("default", 2)]:
        with pytest.raises(NotFound):
            await ask(reader, namespace, number)


@pytest.mark.parametrize("shape", ["", "x" * 5000, "1 OR 1=1", "ü", "a\0b"])
async def test_an_id_of_any_shape_is_not_found(reader, shape):
    with pytest.raises(NotFound):
        await reader.task("default", shape)


# ---- lists


FILTERS = {
    "namespace": (TaskFilter("other"), [9]),
    "pipeline": (TaskFilter("default", pipeline_id="p"), [2]),
    "run": (TaskFilter("default", run_id="r"), [3]),
    "status": (TaskFilter("default", status=TaskStatus.FAILED), [4]),
    "agent": (TaskFilter("default", agent_id="a"), [5]),
    "ids": (TaskFilter("default", task_ids=("task-1", "task-9")), [1]),
    "no such text": (TaskFilter("default", agent_id="a\0", task_ids=("task-1\0",)), []),
    "all at once": (TaskFilter("default", pipeline_id="p", run_id="r"), []),
}


@pytest.mark.parametrize(("wanted", "expected"), FILTERS.values(), ids=FILTERS)
async def test_filters_choose_tasks(reader, save, wanted, expected):
    await save(
        tasks=[
            task(1),
            task(2, pipeline_id="p"),
            task(3, run_id="r"),
            task(4, status=TaskStatus.FAILED),
            task(5, last_agent_id="a"),
            task(9, namespace="other"),
        ]
    )
    page = await reader.tasks(wanted, PageSpec(size=10))
    assert (keys(page), page.total) == (expected, len(expected))


async def test_pages_by_key_are_stable_under_inserts(reader, save):
    await save(tasks=[task(k) for k in range(1, 6)])
    first = await reader.tasks(HERE, PageSpec(size=2))
    await save(tasks=[task(6)])
    second = await reader.tasks(HERE, PageSpec(size=2, after=first.next_after))
    third = await reader.tasks(HERE, PageSpec(size=2, after=second.next_after))
    assert [keys(first), keys(second), keys(third)] == [[5, 4], [3, 2], [1]]
    assert (first.total, third.total, third.next_after) == (5, 6, None)


async def test_pages_by_number_cover_everything_once(reader, save):
    await save(tasks=[task(k) for k in range(1, 6)])
    pages = [await reader.tasks(HERE, PageSpec(size=2, number=n)) for n in (1, 2, 3, 4)]
    assert [keys(page) for page in pages] == [[5, 4], [3, 2], [1], []]
    assert {page.total for page in pages} == {5}


async def test_the_last_full_page_has_no_next(reader, save):
    await save(tasks=[task(1), task(2)])
    assert (await reader.tasks(HERE, PageSpec(size=2))).next_after is None


async def test_a_list_is_sorted_by_a_column_with_unset_ones_last(reader, save):
    finished = {1: 20, 2: None, 3: 10, 4: 20}
    await save(tasks=[task(key, finished_at=at) for key, at in finished.items()])
    for descending, expected in [(False, [3, 1, 4, 2]), (True, [1, 4, 3, 2])]:
        order = Order("finished_at", descending)
        page = await reader.tasks(HERE, PageSpec(size=9, order=order))
        assert keys(page) == expected


async def test_pipelines_are_chosen_by_name_and_status(reader, save):
    rows = [pipeline(1, name="a"), pipeline(2, name="b", last_status=RunStatus.FAILED)]
    await save(pipelines=[*rows, pipeline(3, namespace="other", name="a")])
    page = PageSpec(size=9)
    assert keys(await reader.pipelines("default", 0, "", page)) == [2, 1]
    assert keys(await reader.pipelines("default", 0, "a", page)) == [1]
    assert keys(await reader.pipelines("default", RunStatus.FAILED, "", page)) == [2]


async def test_runs_are_chosen_and_counted_by_pipeline_and_status(reader, save):
    await save(pipelines=[pipeline(1), pipeline(2)])
    await save(runs=[run(int(status), status=status) for status in RunStatus])
    await save(runs=[run(9, pipeline_key=2, pipeline_id="pipeline-2", status=RunStatus.FAILED)])
    page = await reader.runs("default", "pipeline-2", 0, PageSpec(size=9))
    assert [(found.key, name) for found, name in page.items] == [(9, "pipeline 2")]
    page = await reader.runs("default", "", RunStatus.FAILED, PageSpec(size=9))
    assert [found.key for found, _ in page.items] == [9, int(RunStatus.FAILED)]
    assert await reader.run_counts([1, 2, 3]) == {1: (2, 1), 2: (0, 1)}


async def test_tasks_come_with_the_position_they_reflect(reader, save):
    last = event()
    await save(tasks=[task(1), task(2)], events=[event(), last])
    found, position = await reader.tasks_with_position(HERE, 1)
    assert ([t.key for t in found], position) == ([2], last.position)


# ---- consistency


async def test_a_read_sees_one_state(sql_database, save):
    """Also when somebody commits between two of its statements."""
    count = text("SELECT count(*) FROM tasks")
    async with sql_database.reading() as connection:
        before = await connection.scalar(count)
        await save(tasks=[task(1)])
        assert await connection.scalar(count) == before
    async with sql_database.reading() as connection:
        assert await connection.scalar(count) == before + 1


async def test_a_read_sees_what_was_committed_before_it(reader, save, sql_database):
    await save(tasks=[task(1)])
    for name in ("one", "two", "three"):
        edit = changed(tasks=[task(1, name=name)])
        await sql_database.transact(lambda source, edit=edit: source.save(edit))
        assert (await reader.task("default", "task-1")).task.name == name


async def test_it_says_whether_the_database_answers(postgresql, tmp_path, reader):
    await reader.ping()
    gone = PostgresDatabase(postgresql._engine.url.set(query={"host": str(tmp_path)}))
    with pytest.raises(StoreUnavailable):
        await SqlReader(gone).ping()
    await gone.close()


# ---- pages are bounded by size


async def test_a_page_of_wide_lines_is_cut_and_the_next_goes_on(reader, save):
    wide = [LogLine(1, "stdout", "info", f"{n}" + "x" * (PAGE_BYTES // 3)) for n in range(7)]
    await save(
        tasks=[task(1, attempt=1, status=TaskStatus.RUNNING)],
        attempts=[attempt(1, 1, log_lines=7)],
        logs=[batch(1, 1, 1, wide)],
    )
    texts, first = [], 1
    while first <= 7:
        page = await reader.log("default", "task-1", 1, first, 1000)
        assert 0 < sum(len(line.text) for line in page.lines) <= PAGE_BYTES
        texts += [line.text for line in page.lines]
        first += len(page.lines)
    assert texts == [line.text for line in wide]


async def test_one_line_wider_than_a_page_is_read_all_the_same(reader, save):
    line = LogLine(1, "stdout", "info", "x" * (PAGE_BYTES + 1))
    await save(
        tasks=[task(1, attempt=1, status=TaskStatus.RUNNING)],
        attempts=[attempt(1, 1, log_lines=1)],
        logs=[batch(1, 1, 1, [line])],
    )
    assert (await reader.log("default", "task-1", 1, 1, 10)).lines == [line]


# ---- tokens


async def test_a_token_is_found_by_its_digest_alone(reader, save):
    await save(tokens=[token(1), token(2)])
    assert await reader.token("digest 2") == token(2)
    assert await reader.token("token-2") is None


async def test_tokens_are_listed_by_kind_and_where_they_count(reader, save):
    enrol = token(3, kind=TokenKind.ENROL)
    await save(tokens=[token(2, namespace="*"), token(1), enrol, token(4, namespace="b")])
    assert await reader.tokens(["default"], TokenKind.USER) == [token(1)]
    assert await reader.tokens(["default", "*"], TokenKind.USER) == [
        token(1),
        token(2, namespace="*"),
    ]
    assert await reader.tokens(["default"], TokenKind.ENROL) == [enrol]


# ---- the audit log


def entry(key, **chosen):
    return full(AuditEntry, key=key, **{"namespace": "default", "at": key, **chosen})


async def test_the_audit_log_is_read_backwards_and_by_what_is_asked(reader, sql_database):
    entries = [
        entry(n, caller=f"c{n % 2}", action="task.x" if n < 4 else "taskless") for n in range(1, 6)
    ]
    foreign = entry(9, namespace="other")
    changes = Changes(audit=[*entries, foreign])
    await sql_database.transact(lambda source: source.save(changes))

    async def found(limit=10, **wanted):
        return [each.key for each in await reader.audit(AuditFilter("default", **wanted), limit)]

    assert await found() == [5, 4, 3, 2, 1]
    assert await found(2) == [5, 4]
    assert await found(before=3) == [2, 1]
    assert await found(since=4) == [5, 4]
    assert await found(caller="c1") == [5, 3, 1]
    assert await found(action="task.") == [3, 2, 1]
    assert await found(action="taskless") == [5, 4]
    assert await found(subject=entries[0].subject) == [1]
    assert await reader.audit(AuditFilter("default"), 1) == [entries[-1]]
    removed = await sql_database.transact(lambda source: source.prune_audit(3, 10))
    assert (removed, await found()) == (2, [5, 4, 3])
