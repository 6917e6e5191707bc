"""Short reads for the doors, over a pool of their own."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    ScalarSelect,
    Select,
    exists,
    false,
    func,
    literal_column,
    null,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from server.domain.agent import Agent, SessionState
from server.domain.artifact import Artifact
from server.domain.attempt import Attempt, AttemptStatus, LogState
from server.domain.audit import AuditEntry
from server.domain.errors import NotFound
from server.domain.event import Event
from server.domain.gate import Gate
from server.domain.hook import Delivery, Hook
from server.domain.kept_secret import KeptSecret
from server.domain.log import LogBlock, LogKey
from server.domain.moment import Moment
from server.domain.pipeline import Pipeline, PipelineVersion
from server.domain.plugin import PublishedPlugin
from server.domain.run import Run, RunStatus
from server.domain.schedule import Fire, Schedule
from server.domain.task import Queue, Task, TaskStatus
from server.domain.token import Token, TokenKind
from server.domain.waiting import Crowd, RunTurn
from server.stores.interfaces import (
    AgentStanding,
    AuditFilter,
    Backlog,
    BlobStore,
    GroupWaits,
    LiveSession,
    LogPage,
    LogPlace,
    Page,
    PageSpec,
    RowPlace,
    RunFilter,
    StoredLog,
    TaskFilter,
    TaskView,
)
from server.stores.log_blocks import PAGE_BYTES, PageOfLines
from server.stores.log_journal import LogJournal
from server.stores.sql import log_rows, tables
from server.stores.sql.database import SqlDatabase
from server.stores.sql.log_library import LogLibrary
from server.stores.sql.rows import (
    AGENT,
    ARTIFACT,
    ATTEMPT,
    AUDIT,
    DELIVERY,
    EVENT,
    FIRE,
    GATE,
    HOOK,
    PIPELINE,
    PLUGIN,
    RUN,
    SCHEDULE,
    SECRET,
    TASK,
    TOKEN,
    VERSION,
    Record,
)
from server.stores.sql.source import AWAITS_PLACE, CHUNK

R = TypeVar("R")

HELD_LIMIT = 1000
HOLDERS_SHOWN = 5
SCHEDULES_SHOWN = 1000
CLASSES_A_QUERY = 500


class SqlReader:
    """See interfaces.Reader."""

    def __init__(
        self,
        database: SqlDatabase,
        journal: LogJournal | None = None,
        blobs: BlobStore | None = None,
    ) -> None:
        self._database = database
        self._logs = LogLibrary(database, journal, blobs)

    # ---- tasks

    async def task(self, namespace: str, task_id: str) -> TaskView:
        """See Reader."""
        async with self._database.reading() as connection:
            task = await _one(connection, TASK, "task", namespace, task_id)
            attempts = tables.attempts
            query = select(*ATTEMPT.columns).where(attempts.c.task_key == task.key)
            rows = await connection.execute(query.order_by(attempts.c.number))
            return TaskView(
                task,
                [self._with_its_lines(ATTEMPT.load(row)) for row in rows],
                await _depends_on(connection, task),
                await _labels_of(connection, task.last_agent),
                await _class_text(connection, task.class_key),
                await _crowd_around(connection, task),
                await _gate_of(connection, task),
                await _turn_of_run(connection, task),
            )

    def _with_its_lines(self, attempt: Attempt) -> Attempt:
        """Return an attempt with the lines that came since the database was told of them."""
        last = self._logs.last_line((attempt.task_key, attempt.number))
        attempt.log_lines = max(attempt.log_lines, last)
        return attempt

    async def tasks(self, wanted: TaskFilter, page: PageSpec) -> Page[Task]:
        """See Reader."""
        async with self._database.reading() as connection:
            return await _page(connection, TASK, _task_conditions(wanted), page)

    async def tasks_with_position(self, wanted: TaskFilter, limit: int) -> tuple[list[Task], int]:
        """See Reader."""
        async with self._database.reading() as connection:
            position = await _last_position(connection)
            query = select(*TASK.columns).where(*_task_conditions(wanted))
            rows = await connection.execute(query.order_by(tables.tasks.c.key.desc()).limit(limit))
            return [TASK.load(row) for row in reversed(rows.all())], position

    async def log(
        self,
        namespace: str,
        task_id: str,
        attempt: int,
        first_line: int,
        limit: int,
        size: int = PAGE_BYTES,
    ) -> LogPage:
        """See Reader."""
        async with self._database.reading() as connection:
            task = await _one(connection, TASK, "task", namespace, task_id)
            found = await _attempt(connection, task, attempt)
            if found is None:
                state = LogState.COMPLETE if task.status.ended else LogState.OPEN
                return LogPage(0, 1, [], 0, state, task.status.ended, 0, given_up=False)
        found_page = LogPage(
            found.number,
            first_line,
            [],
            found.log_lines,
            found.log_state,
            task.status.ended,
            task.attempt,
            given_up=found.status in (AttemptStatus.LOST, AttemptStatus.RELEASED),
            key=(task.key, found.number),
        )
        return await self._filled(found_page, first_line, PageOfLines(first_line, limit, size))

    async def more_of_log(self, page: LogPage, first_line: int, limit: int) -> LogPage:
        """See Reader."""
        return await self._filled(page, first_line, PageOfLines(first_line, limit, PAGE_BYTES))

    async def _filled(self, page: LogPage, first_line: int, lines: PageOfLines) -> LogPage:
        if page.key is None:
            raise LookupError("a log without an attempt has no lines")
        total = max(page.total, self._logs.last_line(page.key))
        if first_line <= total:
            await self._logs.fill(page.key, lines)
            lines.end(total)
        return replace(
            page,
            first_line=lines.first_line,
            lines=lines.lines,
            total=total,
            omitted_from=lines.omitted_from,
        )

    async def log_place(
        self, namespace: str, task_id: str, attempt: int, tail: int, since: Moment
    ) -> LogPlace:
        """See Reader."""
        async with self._database.reading() as connection:
            task = await _one(connection, TASK, "task", namespace, task_id)
            found = await _attempt(connection, task, attempt)
        if found is None:
            return LogPlace(0, 1)
        key = (task.key, found.number)
        total = max(found.log_lines, self._logs.last_line(key))
        line = max(1, total - tail + 1) if tail else 1
        if since:
            line = max(line, await self._logs.line_since(key, since) or total + 1)
        return LogPlace(found.number, line)

    async def ended_logs(
        self, after: Moment, before: Moment, limit: int, namespace: str = ""
    ) -> list[StoredLog]:
        """See Reader."""
        async with self._database.reading() as connection:
            return await log_rows.ended_logs(connection, after, before, limit, namespace)

    async def log_bytes_by_namespace(self) -> dict[str, int]:
        """See Reader."""
        async with self._database.reading() as connection:
            return await log_rows.bytes_by_namespace(connection)

    async def stored_log_bytes(self) -> int:
        """See Reader."""
        async with self._database.reading() as connection:
            return await log_rows.stored_bytes(connection)

    async def blocks_in_rows(
        self, keys: Sequence[LogKey], after: RowPlace, size: int
    ) -> list[tuple[LogKey, list[LogBlock]]]:
        """See Reader."""
        async with self._database.reading() as connection:
            return await log_rows.in_rows(connection, keys, after, size)

    async def used_blobs(self, names: Sequence[str]) -> set[str]:
        """See Reader."""
        column = tables.logs.c.blob
        async with self._database.reading() as connection:
            return set(await connection.scalars(select(column).where(column.in_(names)).distinct()))

    # ---- pipelines and runs

    async def waiting_tasks(self, namespace: str, limit: int) -> int:
        """See Reader."""
        table = tables.tasks
        ready = (
            select(table.c.key)
            .where(
                table.c.namespace == namespace,
                table.c.status == literal_column(str(int(TaskStatus.QUEUED))),
                table.c.lease_agent.is_(None),
            )
            .limit(limit)
            .subquery()
        )
        async with self._database.reading() as connection:
            return int(await connection.scalar(select(func.count()).select_from(ready)) or 0)

    async def audit(self, wanted: AuditFilter, limit: int) -> list[AuditEntry]:
        """See Reader."""
        table = tables.audit
        query = select(*AUDIT.columns).where(table.c.namespace == wanted.namespace)
        if wanted.since:
            query = query.where(table.c.at >= wanted.since)
        if wanted.before is not None:
            query = query.where(table.c.key < wanted.before)
        for column, value in ((table.c.caller, wanted.caller), (table.c.subject, wanted.subject)):
            if value:
                query = query.where(_is(column, value))
        if wanted.action.endswith("."):
            query = query.where(table.c.action.startswith(wanted.action, autoescape=True))
        elif wanted.action:
            query = query.where(_is(table.c.action, wanted.action))
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.key.desc()).limit(limit))
            return [AUDIT.load(row) for row in rows]

    async def secrets(self, namespace: str, names: Sequence[str] | None = None) -> list[KeptSecret]:
        """See Reader."""
        table = tables.secrets
        all_of_it = select(*SECRET.columns).where(table.c.namespace == namespace)
        queries = [all_of_it]
        if names is not None:
            ordered = sorted(names)
            parts = [ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK)]
            queries = [all_of_it.where(table.c.name.in_(part)) for part in parts]
        found: list[KeptSecret] = []
        async with self._database.reading() as connection:
            for query in queries:
                rows = await connection.execute(query.order_by(table.c.name))
                found += [SECRET.load(row) for row in rows]
        return found

    async def plugins(
        self, namespace: str, plugin_ids: Sequence[str] | None = None
    ) -> list[PublishedPlugin]:
        """See Reader."""
        table = tables.plugins
        query = select(*PLUGIN.columns).where(table.c.namespace == namespace)
        if plugin_ids is not None:
            query = query.where(table.c.plugin_id.in_(sorted(plugin_ids)))
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.plugin_id, table.c.key))
            return [PLUGIN.load(row) for row in rows]

    async def artifact(self, namespace: str, public_id: str) -> Artifact:
        """See Reader."""
        table = tables.artifacts
        found = await self._artifacts(
            _is(table.c.public_id, public_id), table.c.namespace == namespace
        )
        if not found or not found[0].listed:
            raise NotFound("artifact", public_id)
        return found[0]

    async def unstored_artifact(self, namespace: str, public_id: str) -> Artifact:
        """See Reader."""
        table = tables.artifacts
        found = await self._artifacts(
            _is(table.c.public_id, public_id), table.c.namespace == namespace
        )
        if not found or found[0].deleted:
            raise NotFound("artifact", public_id)
        return found[0]

    async def artifacts(
        self,
        namespace: str,
        *,
        task_id: str = "",
        run_id: str = "",
        after: int = 0,
        limit: int | None = None,
    ) -> list[Artifact]:
        """See Reader."""
        table = tables.artifacts
        own = _is(table.c.task_id, task_id) if task_id else _is(table.c.run_id, run_id)
        conditions = [own] if task_id or run_id else []
        listed = (table.c.stored_at.is_not(None), table.c.deleted.is_(False))
        return await self._artifacts(
            table.c.namespace == namespace, table.c.key > after, *conditions, *listed, limit=limit
        )

    async def uploaded_bytes(self, namespace: str) -> Mapping[str, int]:
        """See Reader."""
        table = tables.artifacts
        query = (
            select(table.c.grant_id, func.sum(table.c.size))
            .where(
                table.c.namespace == namespace,
                table.c.grant_id != "",
                table.c.deleted.is_(False),
            )
            .group_by(table.c.grant_id)
        )
        async with self._database.reading() as connection:
            return {grant: int(size) for grant, size in await connection.execute(query)}

    async def artifacts_due(self, now: Moment, limit: int) -> list[Artifact]:
        """See Reader."""
        return await self._artifacts(tables.artifacts.c.due_at <= now, limit=limit)

    async def orphaned_artifacts(self, limit: int) -> list[Artifact]:
        """See Reader."""
        table = tables.artifacts
        alone = ~exists().where(tables.tasks.c.public_id == table.c.task_id)
        return await self._artifacts(
            table.c.task_id != "", table.c.deleted.is_(False), alone, limit=limit
        )

    async def _artifacts(
        self, *conditions: ColumnElement[bool], limit: int | None = None
    ) -> list[Artifact]:
        query = select(*ARTIFACT.columns).where(*conditions)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(tables.artifacts.c.key).limit(limit))
            return [ARTIFACT.load(row) for row in rows]

    async def sealed_not_under(self, kek: str, after: int, limit: int) -> list[Task]:
        """See Reader."""
        table = tables.tasks
        query = select(*TASK.columns).where(
            table.c.key > after,
            table.c.finished_at.is_(None),
            table.c.spec.contains('"sealed":"', autoescape=True),
            ~table.c.spec.contains(f'"sealed":"{kek}:', autoescape=True),
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.key).limit(limit))
            return [TASK.load(row) for row in rows]

    async def secrets_not_under(self, kek: str, after: int, limit: int) -> list[KeptSecret]:
        """See Reader."""
        table = tables.secrets
        query = select(*SECRET.columns).where(table.c.kek != kek, table.c.key > after)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.key).limit(limit))
            return [SECRET.load(row) for row in rows]

    async def token(self, digest: str) -> Token | None:
        """See Reader."""
        # No secret is compared: who can choose a digest cannot choose the token that has it.
        return await self._token(tables.tokens.c.digest == digest)

    async def token_named(self, public_id: str) -> Token | None:
        """See Reader."""
        return await self._token(_is(tables.tokens.c.public_id, public_id))

    async def _token(self, condition: ColumnElement[bool]) -> Token | None:
        query = select(*TOKEN.columns).where(condition)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else TOKEN.load(row)

    async def tokens(self, namespaces: Sequence[str], kind: TokenKind) -> list[Token]:
        """See Reader."""
        table = tables.tokens
        query = select(*TOKEN.columns).where(
            table.c.namespace.in_(namespaces), table.c.kind == kind.value
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.key))
            return [TOKEN.load(row) for row in rows]

    async def pipeline(self, namespace: str, pipeline_id: str) -> Pipeline:
        """See Reader."""
        async with self._database.reading() as connection:
            pipeline = await _one(connection, PIPELINE, "pipeline", namespace, pipeline_id)
        if pipeline.deleted_at is not None:
            raise NotFound("pipeline", pipeline_id)
        return pipeline

    async def pipeline_version(self, pipeline: Pipeline, number: int) -> PipelineVersion:
        """See Reader."""
        found = await self.pipeline_versions(pipeline, number, number)
        if not found:
            raise NotFound("version", f"{number} of pipeline {pipeline.public_id}")
        return found[0]

    async def pipeline_versions(
        self, pipeline: Pipeline, first: int, last: int
    ) -> list[PipelineVersion]:
        """See Reader."""
        table = tables.pipeline_versions
        query = select(*VERSION.columns).where(
            table.c.pipeline_key == pipeline.key, table.c.number.between(first, last)
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.number.desc()))
            return [VERSION.load(row) for row in rows]

    async def pipelines(
        self, namespace: str, status: int, name: str, page: PageSpec
    ) -> Page[Pipeline]:
        """See Reader."""
        table = tables.pipelines
        conditions = [table.c.namespace == namespace, table.c.deleted_at.is_(None)]
        if status:
            conditions.append(table.c.last_status == status)
        if name:
            conditions.append(_is(table.c.name, name))
        async with self._database.reading() as connection:
            return await _page(connection, PIPELINE, conditions, page)

    async def run_counts(self, pipeline_keys: Sequence[int]) -> dict[int, tuple[int, int]]:
        """See Reader."""
        column = tables.runs.c.pipeline_key
        status = tables.runs.c.status
        good = [int(RunStatus.SUCCESS), int(RunStatus.PARTIAL)]
        query = (
            select(
                column,
                func.count().filter(status.in_(good)),
                func.count().filter(status == int(RunStatus.FAILED)),
            )
            .where(column.in_(pipeline_keys))
            .group_by(column)
        )
        async with self._database.reading() as connection:
            return {row[0]: (row[1], row[2]) for row in await connection.execute(query)}

    async def schedule(self, namespace: str, schedule_id: str) -> Schedule:
        """See Reader."""
        async with self._database.reading() as connection:
            return await _one(connection, SCHEDULE, "schedule", namespace, schedule_id)

    async def schedules(self, namespace: str, pipeline_id: str, name: str) -> list[Schedule]:
        """See Reader."""
        table = tables.schedules
        conditions = [table.c.namespace == namespace]
        if pipeline_id:
            conditions.append(_is(table.c.pipeline_id, pipeline_id))
        if name:
            conditions.append(_is(table.c.name, name))
        query = select(*SCHEDULE.columns).where(*conditions).order_by(table.c.name)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.limit(SCHEDULES_SHOWN))
            return [SCHEDULE.load(row) for row in rows]

    async def fires(self, schedule: Schedule, limit: int) -> list[Fire]:
        """See Reader."""
        table = tables.schedule_fires
        query = select(*FIRE.columns).where(table.c.schedule_key == schedule.key)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.at.desc()).limit(limit))
            return [FIRE.load(row) for row in rows]

    async def hooks(self, namespace: str, pipeline_id: str) -> list[Hook]:
        """See Reader."""
        table = tables.hooks
        conditions = [table.c.namespace == namespace]
        if pipeline_id:
            conditions.append(_is(table.c.pipeline_id, pipeline_id))
        query = (
            select(*HOOK.columns)
            .join(tables.pipelines, tables.pipelines.c.key == table.c.pipeline_key)
            .where(*conditions, tables.pipelines.c.deleted_at.is_(None))
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(table.c.key).limit(HELD_LIMIT))
            return [HOOK.load(row) for row in rows]

    async def pipeline_called(self, namespace: str, reference: str) -> Pipeline:
        """See Reader."""
        table = tables.pipelines
        query = select(*PIPELINE.columns).where(
            table.c.deleted_at.is_(None),
            _is(table.c.public_id, reference)
            | (_is(table.c.name, reference) & (table.c.namespace == namespace)),
        )
        async with self._database.reading() as connection:
            rows = (await connection.execute(query.limit(2))).all()
        if len(rows) != 1:
            raise NotFound("pipeline", reference)
        return PIPELINE.load(rows[0])

    async def deliveries(
        self, namespace: str, pipeline_id: str, after: int, limit: int
    ) -> list[Delivery]:
        """See Reader."""
        table = tables.deliveries
        conditions = [table.c.namespace == namespace]
        if pipeline_id:
            conditions.append(_is(table.c.pipeline_id, pipeline_id))
        if after:
            conditions.append(table.c.key < after)
        columns = [null().label("body") if c.name == "body" else c for c in DELIVERY.columns]
        query = select(*columns).where(*conditions).order_by(table.c.key.desc()).limit(limit)
        async with self._database.reading() as connection:
            return [DELIVERY.load(row) for row in await connection.execute(query)]

    async def delivery(self, namespace: str, delivery_id: str) -> Delivery:
        """See Reader."""
        async with self._database.reading() as connection:
            return await _one(connection, DELIVERY, "delivery", namespace, delivery_id)

    async def next_fires(self, pipeline_keys: Sequence[int]) -> dict[int, Moment]:
        """See Reader."""
        table = tables.schedules
        query = (
            select(table.c.pipeline_key, func.min(table.c.due_at))
            .where(table.c.pipeline_key.in_(pipeline_keys), table.c.due_at.is_not(None))
            .group_by(table.c.pipeline_key)
        )
        async with self._database.reading() as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def last_runs(self, pipeline_keys: Sequence[int]) -> dict[int, Run]:
        """See Reader."""
        table = tables.runs
        last = (
            select(func.max(table.c.key))
            .where(table.c.pipeline_key.in_(pipeline_keys))
            .group_by(table.c.pipeline_key)
        )
        query = select(*RUN.columns).where(table.c.key.in_(last))
        async with self._database.reading() as connection:
            runs = [RUN.load(row) for row in await connection.execute(query)]
        return {run.pipeline_key: run for run in runs}

    async def run(self, namespace: str, run_id: str) -> tuple[Run, str, list[Task]]:
        """See Reader."""
        async with self._database.reading() as connection:
            run = await _one(connection, RUN, "run", namespace, run_id)
            name = await connection.scalar(
                select(tables.pipelines.c.name).where(tables.pipelines.c.key == run.pipeline_key)
            )
            query = select(*TASK.columns).where(tables.tasks.c.run_key == run.key)
            rows = await connection.execute(query.order_by(tables.tasks.c.position))
            return run, str(name), [TASK.load(row) for row in rows]

    async def dependencies_of_run(self, run_key: int) -> list[tuple[int, int]]:
        """See Reader."""
        table = tables.dependencies
        query = (
            select(table.c.task_key, table.c.depends_on)
            .join(tables.tasks, tables.tasks.c.key == table.c.task_key)
            .where(tables.tasks.c.run_key == run_key)
        )
        async with self._database.reading() as connection:
            return [(row[0], row[1]) for row in await connection.execute(query)]

    async def runs_with_position(
        self, wanted: RunFilter, limit: int
    ) -> tuple[list[tuple[Run, str]], int]:
        """See Reader."""
        table = tables.runs
        conditions = [table.c.namespace == wanted.namespace]
        if wanted.run_ids:
            conditions.append(table.c.public_id.in_(_knowable(wanted.run_ids)))
        else:
            conditions.append(table.c.finished_at.is_(None))
        if wanted.pipeline_ids:
            conditions.append(table.c.pipeline_id.in_(_knowable(wanted.pipeline_ids)))
        query = select(*RUN.columns).where(*conditions).order_by(table.c.key).limit(limit)
        async with self._database.reading() as connection:
            position = await _last_position(connection)
            runs = [RUN.load(row) for row in await connection.execute(query)]
            return await _with_names(connection, runs), position

    async def runs(
        self, namespace: str, pipeline_id: str, status: int, page: PageSpec
    ) -> Page[tuple[Run, str]]:
        """See Reader."""
        table = tables.runs
        conditions = [table.c.namespace == namespace]
        if pipeline_id:
            conditions.append(_is(table.c.pipeline_id, pipeline_id))
        if status:
            conditions.append(table.c.status == status)
        async with self._database.reading() as connection:
            found = await _page(connection, RUN, conditions, page)
            items = await _with_names(connection, found.items)
            return Page(items, found.total, found.next_after)

    # ---- agents

    async def agent(self, namespace: str, agent_id: str) -> tuple[Agent, list[str]]:
        """See Reader."""
        async with self._database.reading() as connection:
            agent = await _one(connection, AGENT, "agent", namespace, agent_id)
            held = select(tables.tasks.c.public_id).where(tables.tasks.c.lease_agent == agent.key)
            held = held.order_by(tables.tasks.c.key).limit(HELD_LIMIT)
            return agent, list(await connection.scalars(held))

    async def agents(self, namespace: str) -> list[tuple[Agent, int]]:
        """See Reader."""
        async with self._database.reading() as connection:
            return await _agents(connection, tables.agents.c.namespace == namespace)

    async def connected_agents(self) -> list[tuple[Agent, int]]:
        """See Reader."""
        live = tables.agents.c.session_state == SessionState.LIVE.value
        async with self._database.reading() as connection:
            return await _agents(connection, live)

    async def ready_before(self, task: Task, limit: int) -> list[tuple[str, int, int]]:
        """See Reader."""
        table, classes = tables.tasks, tables.task_classes
        place = tuple_(table.c.sort_key, table.c.key) < tuple_(task.sort_key, task.key)
        own = _ready_of_class((table.c.namespace == task.namespace) & place, limit)
        others = [
            _ready_of_class(condition, limit)  # two ranges of the index, not one with a hole
            for condition in (
                table.c.namespace < task.namespace,
                table.c.namespace > task.namespace,
            )
        ]
        query = select(classes.c.canonical, own, *others)
        async with self._database.reading() as connection:
            rows = list(await connection.execute(query))
        return [(row[0], row[1], min(row[2] + row[3], limit)) for row in rows if any(row[1:])]

    async def agents_with_position(
        self, namespace: str, agent_ids: Sequence[str]
    ) -> tuple[list[AgentStanding], int]:
        """See Reader."""
        table, holder = tables.agents, tables.tasks.c.lease_agent
        query = select(*AGENT.columns).where(table.c.namespace == namespace)
        if agent_ids:
            query = query.where(table.c.public_id.in_(_knowable(agent_ids)))
        async with self._database.reading() as connection:
            position = await _last_position(connection)
            rows = await connection.execute(query.order_by(table.c.public_id))
            agents = [AGENT.load(row) for row in rows]
            counts = select(holder, func.count()).where(
                holder.is_not(None), tables.tasks.c.status == int(TaskStatus.RUNNING)
            )
            if agent_ids:
                counts = counts.where(holder.in_([agent.key for agent in agents]))
            rows = await connection.execute(counts.group_by(holder))
            running: dict[int, int] = {row[0]: row[1] for row in rows}
            return [AgentStanding(a, running.get(a.key, 0)) for a in agents], position

    async def measured(self) -> dict[str, dict[str, Any]]:
        """See Reader."""
        table = tables.agents
        query = select(table.c.public_id, table.c.measured)
        query = query.where(table.c.session_state == SessionState.LIVE.value)
        async with self._database.reading() as connection:
            return {row[0]: row[1] for row in await connection.execute(query) if row[1]}

    async def live_sessions(self) -> list[LiveSession]:
        """See Reader."""
        table = tables.agents
        query = select(table.c.public_id, table.c.session_id, table.c.last_seen, table.c.lease)
        query = query.where(table.c.session_state == SessionState.LIVE.value)
        async with self._database.reading() as connection:
            return [LiveSession(*row) for row in await connection.execute(query)]

    # ---- events, classes, timers

    async def events(self, after: int, limit: int) -> list[Event]:
        """See Reader."""
        position = tables.events.c.position
        query = select(*EVENT.columns).where(position > after).order_by(position).limit(limit)
        async with self._database.reading() as connection:
            return [EVENT.load(row) for row in await connection.execute(query)]

    async def oldest_cursor(self) -> int:
        """See Reader."""
        async with self._database.reading() as connection:
            last = await _last_position(connection)
            oldest = await connection.scalar(select(func.min(tables.events.c.position)))
            return last if oldest is None else int(oldest) - 1

    async def database_id(self) -> str:
        """See Reader."""
        async with self._database.reading() as connection:
            return str(await connection.scalar(select(tables.identity.c.database_id)))

    async def last_position(self) -> int:
        """See Reader."""
        async with self._database.reading() as connection:
            return await _last_position(connection)

    async def ready_queues(self) -> dict[Queue, str]:
        """See Reader."""
        table, classes = tables.tasks, tables.task_classes
        ready = (table.c.status == int(TaskStatus.QUEUED)) & table.c.lease_agent.is_(None)
        queues = select(table.c.class_key, table.c.namespace).where(ready).distinct().subquery()
        query = select(queues, classes.c.canonical).join(
            classes, classes.c.class_key == queues.c.class_key
        )
        async with self._database.reading() as connection:
            return {Queue(row[0], row[1]): row[2] for row in await connection.execute(query)}

    async def backlogs(
        self, queues: Sequence[Queue], limit: int, oldest_among: int
    ) -> dict[Queue, Backlog]:
        """See Reader."""
        keys: dict[str, list[str]] = defaultdict(list)
        for queue in queues:
            keys[queue.namespace].append(queue.class_key)
        found = {}
        async with self._database.reading() as connection:
            for namespace, class_keys in keys.items():
                for start in range(0, len(class_keys), CLASSES_A_QUERY):
                    chunk = class_keys[start : start + CLASSES_A_QUERY]
                    query = _backlogs(namespace, chunk, limit, oldest_among)
                    for key, tasks, oldest in await connection.execute(query):
                        if tasks:
                            found[Queue(key, namespace)] = Backlog(tasks, oldest)
        return found

    async def group_waits(self, limit: int) -> GroupWaits:
        """See Reader."""
        groups, task = tables.groups, tables.tasks
        member = (task.c.namespace == groups.c.namespace) & (task.c.group_key == groups.c.key)
        waiting: Select[Any] = select(literal_column("1")).where(member, *AWAITS_PLACE)
        count = select(func.count()).select_from(waiting.correlate(groups).limit(limit).subquery())
        of_each = select(count.scalar_subquery().label("waiting")).select_from(groups).subquery()
        number = of_each.c.waiting
        query = select(func.coalesce(func.sum(number), 0), func.count().filter(number > 0))
        async with self._database.reading() as connection:
            tasks, found = (await connection.execute(query)).one()
            return GroupWaits(int(tasks), found)

    async def class_text(self, class_keys: Sequence[str]) -> dict[str, str]:
        """See Reader."""
        table = tables.task_classes
        query = select(table.c.class_key, table.c.canonical)
        query = query.where(table.c.class_key.in_(class_keys))
        async with self._database.reading() as connection:
            return {row[0]: row[1] for row in await connection.execute(query)}

    async def next_due(self) -> Moment | None:
        """See Reader."""
        async with self._database.reading() as connection:
            moments = [
                # Without the condition SQLite would not see that the partial index serves.
                await connection.scalar(select(func.min(column)).where(column.is_not(None)))
                for column in (
                    tables.tasks.c.due_at,
                    tables.attempts.c.log_due,
                    tables.agents.c.due_at,
                    tables.schedules.c.due_at,
                )
            ]
        return min((moment for moment in moments if moment is not None), default=None)

    async def ended_tasks_beyond(self, count: int) -> Moment | None:
        """See Reader."""
        column = tables.tasks.c.finished_at
        query = select(column).where(column.is_not(None)).order_by(column.desc())
        async with self._database.reading() as connection:
            moment: Moment | None = await connection.scalar(query.offset(count).limit(1))
            return moment

    async def ping(self) -> None:
        """See Reader."""
        async with self._database.reading() as connection:
            await _last_position(connection)  # a constant would not touch the file


def _backlogs(
    namespace: str, class_keys: Sequence[str], limit: int, oldest_among: int
) -> Select[Any]:
    """Return a query for (class, ready tasks, moment of the oldest) of one namespace's queues."""
    table, classes = tables.tasks, tables.task_classes
    ready = (
        table.c.class_key == classes.c.class_key,
        table.c.namespace == namespace,
        table.c.status == literal_column(str(int(TaskStatus.QUEUED))),
        table.c.lease_agent.is_(None),
    )
    every = select(literal_column("1")).where(*ready).correlate(classes).limit(limit).subquery()
    since = func.coalesce(table.c.ready_at, table.c.created_at).label("since")  # of an older server
    in_line = select(since).where(*ready).correlate(classes)
    in_line = in_line.order_by(table.c.class_key, table.c.namespace, table.c.sort_key, table.c.key)
    first = in_line.limit(oldest_among).subquery()
    return select(
        classes.c.class_key,
        select(func.count()).select_from(every).scalar_subquery(),
        select(func.min(first.c.since)).scalar_subquery(),
    ).where(classes.c.class_key.in_(class_keys))


async def _one(
    connection: AsyncConnection, record: Record[R], kind: str, namespace: str, public_id: str
) -> R:
    if "\0" in public_id:  # PostgreSQL would not even compare it
        raise NotFound(kind, public_id)
    table = record.table
    conditions = (table.c.public_id == public_id, table.c.namespace == namespace)
    row = (await connection.execute(select(*record.columns).where(*conditions))).first()
    if row is None:
        raise NotFound(kind, public_id)
    return record.load(row)


async def _depends_on(connection: AsyncConnection, task: Task) -> list[tuple[str, str, int]]:
    others, edges = tables.tasks, tables.dependencies
    query = (
        select(others.c.public_id, others.c.name, others.c.status)
        .join(edges, edges.c.depends_on == others.c.key)
        .where(edges.c.task_key == task.key)
        .order_by(others.c.key)
    )
    return [(row[0], row[1], row[2]) for row in await connection.execute(query)]


def _ready_of_class(condition: ColumnElement[bool], limit: int) -> ScalarSelect[int]:
    """Return how many ready tasks of the class that is looked at fulfil a condition."""
    table, classes = tables.tasks, tables.task_classes
    ready = (
        select(literal_column("1"))
        .where(
            table.c.class_key == classes.c.class_key,
            table.c.status == literal_column(str(int(TaskStatus.QUEUED))),
            table.c.lease_agent.is_(None),
            condition,
        )
        .correlate(classes)
        .limit(limit)
        .subquery()
    )
    return select(func.count()).select_from(ready).scalar_subquery()


async def _agents(
    connection: AsyncConnection, condition: ColumnElement[bool]
) -> list[tuple[Agent, int]]:
    """Return agents with the number of leases each holds, by id."""
    table, holder = tables.agents, tables.tasks.c.lease_agent
    counts = select(holder, func.count()).where(holder.is_not(None)).group_by(holder)
    held: dict[int, int] = {row[0]: row[1] for row in await connection.execute(counts)}
    query = select(*AGENT.columns).where(condition).order_by(table.c.public_id)
    agents = [AGENT.load(row) for row in await connection.execute(query)]
    return [(agent, held.get(agent.key, 0)) for agent in agents]


async def _labels_of(connection: AsyncConnection, agent_key: int | None) -> dict[str, str]:
    if agent_key is None:
        return {}
    query = select(*AGENT.columns).where(tables.agents.c.key == agent_key)
    row = (await connection.execute(query)).first()
    return AGENT.load(row).effective_labels if row is not None else {}


async def _gate_of(connection: AsyncConnection, task: Task) -> Gate | None:
    if task.gate is None:
        return None
    rows = await connection.execute(select(*GATE.columns).where(tables.gates.c.key == task.gate))
    return next((GATE.load(row) for row in rows), None)


async def _turn_of_run(connection: AsyncConnection, task: Task) -> RunTurn | None:
    """Return what a waiting task's run waits for, None when it goes on."""
    table = tables.runs
    if task.gate is None or task.status is not TaskStatus.PENDING:
        return None
    waiting = await connection.execute(
        select(table.c.group_key).where(table.c.key == task.run_key, table.c.turn == task.gate)
    )
    group_key = waiting.scalar()
    if group_key is None:
        return None
    others = await connection.execute(
        select(table.c.public_id, table.c.number)
        .where(
            table.c.namespace == task.namespace,
            table.c.group_key == group_key,
            table.c.finished_at.is_(None),
            table.c.turn.is_(None),
        )
        .order_by(table.c.key)
        .limit(HOLDERS_SHOWN)
    )
    return RunTurn(group_key, [(row[0], row[1]) for row in others])


async def _crowd_around(connection: AsyncConnection, task: Task) -> Crowd | None:
    if task.group_key is None:
        return None
    groups, members = tables.groups, tables.tasks
    its_own = (groups.c.namespace == task.namespace, groups.c.key == task.group_key)
    places = await connection.scalar(select(groups.c.places).where(*its_own))
    holds = (
        members.c.namespace == task.namespace,
        members.c.group_key == task.group_key,
        members.c.status.in_([int(TaskStatus.QUEUED), int(TaskStatus.RUNNING)]),
    )
    taken = await connection.scalar(select(func.count()).where(*holds))
    query = select(members.c.public_id, members.c.name).where(*holds)
    rows = await connection.execute(query.order_by(members.c.key).limit(HOLDERS_SHOWN))
    holders = [(row[0], row[1]) for row in rows]
    return Crowd(task.group_key, int(places or 0), holders, int(taken or 0))


async def _class_text(connection: AsyncConnection, class_key: str) -> str:
    table = tables.task_classes
    query = select(table.c.canonical).where(table.c.class_key == class_key)
    return str(await connection.scalar(query))


async def _attempt(connection: AsyncConnection, task: Task, number: int) -> Attempt | None:
    """Return one attempt of a task, the latest for 0; None when there was none yet.

    Raises:
        NotFound: there is no such attempt.
    """
    number = number or task.attempt
    if number > task.attempt:
        raise NotFound("attempt", f"{task.public_id}/{number}")
    if not number:
        return None
    table = tables.attempts
    key = (table.c.task_key == task.key) & (table.c.number == number)
    return ATTEMPT.load((await connection.execute(select(*ATTEMPT.columns).where(key))).one())


def _is(column: Column[str], value: str) -> ColumnElement[bool]:
    """Return that a column has a value; nothing has one with a NUL, and PostgreSQL refuses it."""
    return false() if "\0" in value else column == value


def _knowable(public_ids: Iterable[str]) -> list[str]:
    """Return the ids that something may have; see `_is`."""
    return [public_id for public_id in public_ids if "\0" not in public_id]


async def _with_names(connection: AsyncConnection, runs: Sequence[Run]) -> list[tuple[Run, str]]:
    """Return runs with their pipelines' names."""
    keys = {run.pipeline_key for run in runs}
    columns = (tables.pipelines.c.key, tables.pipelines.c.name)
    rows = await connection.execute(select(*columns).where(columns[0].in_(keys)))
    names: dict[int, str] = {row[0]: row[1] for row in rows}
    return [(run, names[run.pipeline_key]) for run in runs]


def _task_conditions(wanted: TaskFilter) -> list[ColumnElement[bool]]:
    table = tables.tasks
    conditions = [table.c.namespace == wanted.namespace]
    if wanted.pipeline_id:
        conditions.append(_is(table.c.pipeline_id, wanted.pipeline_id))
    if wanted.run_id:
        conditions.append(_is(table.c.run_id, wanted.run_id))
    if wanted.status:
        conditions.append(table.c.status == wanted.status)
    if wanted.agent_id:
        conditions.append(_is(table.c.last_agent_id, wanted.agent_id))
    if wanted.task_ids:
        conditions.append(table.c.public_id.in_(_knowable(wanted.task_ids)))
    return conditions


async def _page(
    connection: AsyncConnection,
    record: Record[R],
    conditions: Sequence[ColumnElement[bool]],
    page: PageSpec,
) -> Page[R]:
    table = record.table
    count = select(func.count()).select_from(table).where(*conditions)
    total = int(await connection.scalar(count) or 0)
    query = _ordered(record, page).where(*conditions)
    if page.after is not None:
        query = query.where(table.c.key < page.after)
    else:
        query = query.offset((page.number - 1) * page.size)
    rows = (await connection.execute(query.limit(page.size + 1))).all()
    records = [record.load(row) for row in rows[: page.size]]
    more = len(rows) > page.size and not page.order.by
    key_index = record.names.index("key")
    return Page(records, total, int(rows[page.size - 1][key_index]) if more else None)


def _ordered(record: Record[R], page: PageSpec) -> Select[Any]:
    table = record.table
    query = select(*record.columns)
    if not page.order.by:
        return query.order_by(table.c.key.desc())
    column = table.c[page.order.by]
    ordered = column.desc() if page.order.descending else column.asc()
    return query.order_by(ordered.nulls_last(), table.c.key)


async def _last_position(connection: AsyncConnection) -> int:
    table = tables.sequences
    query = select(table.c.next).where(table.c.name == "events")
    return int(await connection.scalar(query) or 0)
