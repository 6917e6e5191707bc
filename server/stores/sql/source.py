"""A ledger's source over one database connection, inside one transaction."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    false,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    tuple_,
    update,
)

from server.domain.agent import Agent
from server.domain.artifact import Artifact
from server.domain.attempt import Attempt
from server.domain.changes import Changes, ChoreKind, LogChore, RequestRecord
from server.domain.event import Event
from server.domain.gate import Gate
from server.domain.group import GroupId, Newcomer
from server.domain.hook import Delivery, Hook
from server.domain.kept_secret import KeptSecret
from server.domain.log import LogBlock, LogKey
from server.domain.moment import Moment
from server.domain.pipeline import Pipeline, PipelineVersion
from server.domain.plugin import PublishedPlugin
from server.domain.run import Run, RunStatus
from server.domain.schedule import Fire, Owner, Schedule
from server.domain.task import Queue, Task, TaskStatus
from server.domain.token import Token, TokenKind
from server.stores.sql import log_rows, tables
from server.stores.sql.bulk import insert_rows, update_rows
from server.stores.sql.keys import Keys, touch
from server.stores.sql.rows import (
    AGENT,
    ARTIFACT,
    ATTEMPT,
    AUDIT,
    DELIVERY,
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
from server.stores.sql.statements import rows_of

# SQLite before 3.32 knew 999 parameters a statement; long lists go in pieces below that.
CHUNK = 500

KNOWN_CLASSES = 10_000
"""Task classes that are remembered as stored, at most."""

R = TypeVar("R")


def _update(record: Record[Any]) -> Update:
    table = record.table
    values: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in record.changing}
    return update(table).where(table.c.key == bindparam("_key")).values(values)


# Statements of the hot path are built once: Core finds their text by identity then.


@lru_cache(maxsize=64)
def _rows_where_in(record: Record[Any], column: Column[Any]) -> Select[Any]:
    query = select(*record.columns).where(column.in_(bindparam("keys", expanding=True)))
    return query.order_by(record.columns[0]).with_for_update()


@lru_cache(maxsize=2)
def _ready_tasks(*, avoiding: bool) -> Select[Any]:
    table = tables.tasks
    conditions = [
        table.c.class_key == bindparam("class_key"),
        table.c.namespace == bindparam("namespace"),
        table.c.status == literal_column(str(int(TaskStatus.QUEUED))),
        table.c.lease_agent.is_(None),
    ]
    if avoiding:
        avoids = (table.c.avoid_agent == bindparam("agent")) & (
            table.c.avoid_until > bindparam("now")
        )
        conditions.append(~func.coalesce(avoids, false()))
    query = select(*TASK.columns).where(*conditions).order_by(table.c.sort_key, table.c.key)
    return query.limit(bindparam("limit")).with_for_update(skip_locked=True)


_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_EVENT_COLUMNS = tuple(column.name for column in tables.events.c)
_EVENT_VALUES = attrgetter(*(name for name in _EVENT_COLUMNS if name != "data"))
# By two lists, for SQLite looks at every row of a list of pairs. Tasks with several attempts may
# come with some that were not asked for.
_ATTEMPTS = select(*ATTEMPT.columns).where(
    tables.attempts.c.task_key.in_(bindparam("keys", expanding=True)),
    tables.attempts.c.number.in_(bindparam("numbers", expanding=True)),
)
_LEASES_OF = (
    select(tables.tasks.c.lease_agent, func.count())
    .where(tables.tasks.c.lease_agent.in_(bindparam("keys", expanding=True)))
    .group_by(tables.tasks.c.lease_agent)
)
_DEPENDENTS = (
    select(tables.dependencies.c.depends_on, tables.dependencies.c.task_key)
    .where(tables.dependencies.c.depends_on.in_(bindparam("keys", expanding=True)))
    .order_by(tables.dependencies.c.task_key)
)
_AGENT_NAMED = (
    select(*AGENT.columns).where(tables.agents.c.public_id == bindparam("id")).with_for_update()
)
_RUN_NAMED = (
    select(*RUN.columns).where(tables.runs.c.public_id == bindparam("id")).with_for_update()
)
_PIPELINE_NAMED = (
    select(*PIPELINE.columns)
    .where(tables.pipelines.c.public_id == bindparam("id"))
    .with_for_update()
)
_TOKEN_NAMED = (
    select(*TOKEN.columns).where(tables.tokens.c.public_id == bindparam("id")).with_for_update()
)
_TOKEN_OF_DIGEST = (
    # No secret is compared: who can choose a digest cannot choose the token that has it.
    select(*TOKEN.columns).where(tables.tokens.c.digest == bindparam("id")).with_for_update()
)
_CLASS = select(tables.task_classes.c.class_key).where(
    tables.task_classes.c.class_key == bindparam("class_key")
)
_POSTGRES_NOW = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")

_ADD_CHORES = text(
    "INSERT INTO log_chores (kind, task_key, attempt, due, batch)"
    " VALUES (:kind, :task_key, :attempt, :due, :batch) ON CONFLICT DO NOTHING"
)
_CLAIM_CHORES = update(tables.log_chores).where(
    tables.log_chores.c.kind == bindparam("_kind"),
    tables.log_chores.c.task_key == bindparam("_key"),
    tables.log_chores.c.attempt == bindparam("_attempt"),
)

_UPDATE_AGENT = _update(AGENT)
_UPDATE_RUN = _update(RUN)
_UPDATE_PIPELINE = _update(PIPELINE)
_UPDATE_GATE = _update(GATE)
_UPDATE_HOOK = _update(HOOK)
_UPDATE_DELIVERY = _update(DELIVERY)
_UPDATE_SCHEDULE = _update(SCHEDULE)
_UPDATE_TOKEN = _update(TOKEN)
_UPDATE_SECRET = _update(SECRET)
_UPDATE_PLUGIN = _update(PLUGIN)
_UPDATE_ARTIFACT = _update(ARTIFACT)


class SqlSource:
    """See domain.ledger.Source."""

    def __init__(self, connection: Connection, keys: Keys, *, replayed: bool = False) -> None:
        self._connection = connection
        self._keys = keys
        self.replayed = replayed
        self._stored: dict[str, dict[Any, Sequence[Any]]] = defaultdict(dict)
        """Rows as they stand, by table and key: only what differs from them is written."""

    def now(self) -> Moment | None:
        """See Source."""
        if self._connection.dialect.name != "postgresql":
            return None
        return int(self._connection.execute(_POSTGRES_NOW).scalar_one())

    def new_key(self) -> int:
        """See Source."""
        return self._keys.take(self._connection)

    # ---- writing

    def touch(self) -> None:
        """See Source."""
        touch(self._connection)

    def save(self, changes: Changes) -> None:
        """See Source. The order follows the foreign keys."""
        self._delete(changes.deleted_tasks)
        self._insert_ignoring(tables.task_classes, changes.new_classes)
        self._insert_all(AGENT, changes.new_agents)
        self._insert_all(PIPELINE, changes.new_pipelines)
        self._insert_all(VERSION, changes.new_versions)
        self._save_links(changes)
        for schedule in changes.deleted_schedules:
            table = tables.schedules
            self._connection.execute(delete(table).where(table.c.key == schedule.key))
        self._insert_all(SCHEDULE, changes.new_schedules)
        self._save_hooks(changes)
        self._insert_all(RUN, changes.new_runs)
        self._insert_all(GATE, changes.new_gates)
        self._insert_all(TOKEN, changes.new_tokens)
        tokens = [{**TOKEN.changed(t), "_key": t.key} for t in changes.tokens.values()]
        self._update_many(_UPDATE_TOKEN, tokens)
        self._save_secrets(changes)
        self._save_artifacts(changes)
        self._insert_all(PLUGIN, changes.new_plugins)
        plugins = [{**PLUGIN.changed(p), "_key": p.key} for p in changes.plugins.values()]
        self._update_many(_UPDATE_PLUGIN, plugins)
        self._insert(TASK, changes.new_tasks)
        self._insert(ATTEMPT, changes.new_attempts)
        self._save_agents(changes)
        self._save_pipelines_and_runs(changes)
        self._save_changed(TASK, changes.tasks.values())
        self._save_changed(ATTEMPT, changes.attempts.values())
        self._save_rest(changes)
        self._insert_all(AUDIT, changes.audit)
        self._save_events(changes.events)

    def _save_artifacts(self, changes: Changes) -> None:
        self._insert_all(ARTIFACT, changes.new_artifacts)
        artifacts = [{**ARTIFACT.changed(a), "_key": a.key} for a in changes.artifacts.values()]
        self._update_many(_UPDATE_ARTIFACT, artifacts)
        for artifact in changes.deleted_artifacts:
            table = tables.artifacts
            self._connection.execute(delete(table).where(table.c.key == artifact.key))

    def _save_secrets(self, changes: Changes) -> None:
        self._insert_all(SECRET, changes.new_secrets)
        secrets = [{**SECRET.changed(s), "_key": s.key} for s in changes.secrets.values()]
        self._update_many(_UPDATE_SECRET, secrets)
        for secret in changes.deleted_secrets:
            table = tables.secrets
            self._connection.execute(delete(table).where(table.c.key == secret.key))

    def _insert(self, record: Record[R], records: Iterable[R]) -> None:
        rows = [record.values(each) for each in records]
        insert_rows(self._connection, record.table, record.names, rows)
        self._keep(record, rows)

    def _save_changed(self, record: Record[R], records: Iterable[R]) -> None:
        """Write the columns that differ from what is stored; rows that differ alike go together."""
        stored = self._stored[record.table.name]
        alike: dict[tuple[int, ...], list[tuple[Any, ...]]] = {}
        for each in records:
            now = record.values(each)
            key = record.key_of(now)
            places = record.differing(stored.get(key), now)
            if places:
                alike.setdefault(places, []).append(now)
                stored[key] = now
        for places, rows in alike.items():
            columns = tuple(record.names[place] for place in places)
            pick = itemgetter(*places, *record.key_places)
            update_rows(
                self._connection, record.table, columns, record.keys, [pick(row) for row in rows]
            )

    def _keep(self, record: Record[Any], rows: Iterable[Sequence[Any]]) -> None:
        self._stored[record.table.name].update((record.key_of(row), row) for row in rows)

    def _save_agents(self, changes: Changes) -> None:
        rows = [{**AGENT.changed(a), "_key": a.key} for a in changes.agents.values()]
        self._update_many(_UPDATE_AGENT, rows)

    def _save_pipelines_and_runs(self, changes: Changes) -> None:
        pipelines = [{**PIPELINE.changed(p), "_key": p.key} for p in changes.pipelines.values()]
        self._update_many(_UPDATE_PIPELINE, pipelines)
        runs = [{**RUN.changed(r), "_key": r.key} for r in changes.runs.values()]
        self._update_many(_UPDATE_RUN, runs)
        gates = [{**GATE.changed(g), "_key": g.key} for g in changes.gates.values()]
        self._update_many(_UPDATE_GATE, gates)
        schedules = [{**SCHEDULE.changed(s), "_key": s.key} for s in changes.schedules.values()]
        self._update_many(_UPDATE_SCHEDULE, schedules)
        self._insert_all(FIRE, changes.fires)

    def _save_links(self, changes: Changes) -> None:
        table = tables.pipeline_links
        for key, (namespace, names) in changes.links.items():
            self._connection.execute(delete(table).where(table.c.pipeline_key == key))
            rows = [
                {"pipeline_key": key, "after_name": name, "namespace": namespace} for name in names
            ]
            self._insert_many(table, rows)

    def _save_hooks(self, changes: Changes) -> None:
        for hook in changes.deleted_hooks:
            table = tables.hooks
            self._connection.execute(delete(table).where(table.c.key == hook.key))
        self._insert_all(HOOK, changes.new_hooks)
        hooks = [{**HOOK.changed(h), "_key": h.key} for h in changes.hooks.values()]
        self._update_many(_UPDATE_HOOK, hooks)
        self._insert_all(DELIVERY, changes.new_deliveries)
        done = [{**DELIVERY.changed(d), "_key": d.key} for d in changes.deliveries.values()]
        self._update_many(_UPDATE_DELIVERY, done)

    def _save_rest(self, changes: Changes) -> None:
        namespaces = {task.key: task.namespace for task in changes.new_tasks}
        self._insert_many(
            tables.dependencies,
            [
                {"task_key": task, "depends_on": other, "namespace": namespaces.get(task, "")}
                for task, other in changes.dependencies
            ],
        )
        self._insert_many(tables.logs, [log_rows.log_row(batch) for batch in changes.logs])
        if changes.chores:
            self._connection.execute(_ADD_CHORES, [_chore_row(chore) for chore in changes.chores])
        self._save_requests(changes)

    def _save_requests(self, changes: Changes) -> None:
        table = tables.requests
        for record in changes.expired_requests:
            expired = table.c.expires_at == record.expires_at
            self._connection.execute(delete(table).where(*_request_is(record), expired))
        rows = [{name: getattr(r, name) for name in r.__slots__} for r in changes.requests]
        # A conflict means that another server has just answered this id: we decide anew.
        self._insert_many(table, rows)

    def _save_events(self, events: Sequence[Event]) -> None:
        if not events:
            return
        # The sequence's row stays locked until we commit: position order is commit order.
        last = self._keys.number_events(self._connection, len(events))
        rows = []
        for place, event in enumerate(events, 1):
            event.position = last + place
            data = _JSON.encode(event.data)
            rows.append((*_EVENT_VALUES(event), data))
        insert_rows(self._connection, tables.events, _EVENT_COLUMNS, rows)

    def _insert_all(self, record: Record[Any], records: Sequence[Any]) -> None:
        self._insert_many(record.table, [record.full(r) for r in records])

    def _insert_ignoring(self, table: Table, classes: Mapping[str, str]) -> None:
        for class_key, canonical in sorted(classes.items()):
            values = select(literal(class_key), literal(canonical)).where(
                ~select(table.c.class_key).where(table.c.class_key == class_key).exists()
            )
            self._connection.execute(insert(table).from_select(["class_key", "canonical"], values))

    def _insert_many(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.execute(insert(table), rows)

    def _update_many(self, statement: Update, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            self._connection.execute(statement, rows)

    def _delete(self, tasks: Sequence[Task]) -> None:
        keys = [task.key for task in tasks]
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            for child in (tables.log_chores, tables.logs, tables.attempts, tables.dependencies):
                self._connection.execute(delete(child).where(child.c.task_key.in_(part)))
            edges = tables.dependencies
            self._connection.execute(delete(edges).where(edges.c.depends_on.in_(part)))
            self._connection.execute(delete(tables.tasks).where(tables.tasks.c.key.in_(part)))

    # ---- reading

    def _load(
        self, record: Record[R], query: Select[Any], values: Mapping[str, Any] | None = None
    ) -> list[R]:
        if values is None:  # one that was built for this time only
            rows: Sequence[Sequence[Any]] = self._connection.execute(query).all()
        else:
            rows = rows_of(self._connection, query, values)
        if record.keys:
            self._keep(record, rows)
        return [record.load(row) for row in rows]

    def _by_keys(
        self, record: Record[R], column: Column[Any], keys: Sequence[int | str]
    ) -> list[R]:
        keys = [key for key in keys if not _unknowable(key)]
        query = _rows_where_in(record, column)
        return [each for part in _parts(keys) for each in self._load(record, query, part)]

    def tasks(self, public_ids: Sequence[str]) -> list[Task]:
        """See Source."""
        return self._by_keys(TASK, tables.tasks.c.public_id, public_ids)

    def tasks_by_key(self, keys: Sequence[int]) -> list[Task]:
        """See Source."""
        return self._by_keys(TASK, tables.tasks.c.key, sorted(keys))

    def tasks_of_run(self, run_key: int) -> list[Task]:
        """See Source."""
        return self._load(TASK, _tasks_where(tables.tasks.c.run_key == run_key))

    def tasks_leased_to(self, agent_key: int) -> list[Task]:
        """See Source."""
        return self._by_keys(TASK, tables.tasks.c.lease_agent, [agent_key])

    def tasks_due(self, now: Moment, limit: int) -> list[Task]:
        """See Source."""
        due = tables.tasks.c.due_at
        query = select(*TASK.columns).where(due <= now).order_by(due).limit(limit)
        return self._load(TASK, query.with_for_update(skip_locked=True))

    def ready_tasks(
        self, queue: Queue, limit: int, *, only_agent: int | None = None, now: Moment = 0
    ) -> list[Task]:
        """See Source."""
        values: dict[str, Any] = {**queue._asdict(), "limit": limit}
        if only_agent is not None:
            values |= {"agent": only_agent, "now": now}
        return self._load(TASK, _ready_tasks(avoiding=only_agent is not None), values)

    def leases_of(self, agent_keys: Sequence[int]) -> dict[int, int]:
        """See Source."""
        counts: dict[int, int] = {}
        for part in _parts(agent_keys):
            counts.update((row[0], row[1]) for row in rows_of(self._connection, _LEASES_OF, part))
        return counts

    def attempts(self, keys: Sequence[tuple[int, int]]) -> list[Attempt]:
        """See Source."""
        wanted = set(keys)
        found: list[Attempt] = []
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            numbers = sorted({number for _, number in part})
            values = {"keys": [key for key, _ in part], "numbers": numbers}
            found += self._load(ATTEMPT, _ATTEMPTS, values)
        return [each for each in found if (each.task_key, each.number) in wanted]

    def attempts_due(self, now: Moment, limit: int) -> list[Attempt]:
        """See Source."""
        due = tables.attempts.c.log_due
        query = select(*ATTEMPT.columns).where(due <= now).order_by(due).limit(limit)
        return self._load(ATTEMPT, query.with_for_update(skip_locked=True))

    def log_heads(
        self, keys: Sequence[LogKey], lines: tuple[int, int] | None = None
    ) -> dict[LogKey, list[LogBlock]]:
        """See Source."""
        table = tables.logs
        heads: dict[LogKey, list[LogBlock]] = {}
        for start in range(0, len(keys), CHUNK // 2):
            part = list(keys[start : start + CHUNK // 2])
            query = log_rows.heads.where(tuple_(table.c.task_key, table.c.attempt).in_(part))
            if lines is not None:
                query = query.where(table.c.first_line.between(*lines))
            for task_key, attempt, *fields in self._connection.execute(query):
                block = log_rows.block_of(fields, b"")
                heads.setdefault((task_key, attempt), []).append(block)
        return heads

    def drop_log(self, key: LogKey, first: int, last: int) -> None:
        """See Source."""
        table = tables.logs
        of_log = (table.c.task_key == key[0]) & (table.c.attempt == key[1])
        query = delete(table).where(of_log, table.c.first_line.between(first, last))
        self._connection.execute(query)

    def with_chore(self, kind: ChoreKind, keys: Sequence[LogKey]) -> set[LogKey]:
        """See Source."""
        table = tables.log_chores.c
        of_tasks = table.task_key.in_([key for key, _ in keys])
        query = select(table.task_key, table.attempt).where(table.kind == kind, of_tasks)
        return {(key, number) for key, number in self._connection.execute(query)} & set(keys)

    def chores_due(self, kind: ChoreKind, now: Moment, limit: int) -> list[LogChore]:
        """See Source."""
        table = tables.log_chores.c
        columns = (table.task_key, table.attempt, table.due, table.batch)
        query = select(*columns).where(table.kind == kind, table.due <= now)
        query = query.order_by(table.due, table.task_key, table.attempt).limit(limit)
        rows = self._connection.execute(query.with_for_update(skip_locked=True))
        return [LogChore(kind, (key, number), due, batch) for key, number, due, batch in rows]

    def chore_batch(self, name: str) -> list[LogKey]:
        """See Source."""
        table = tables.log_chores.c
        query = select(table.task_key, table.attempt).where(table.batch == name)
        rows = self._connection.execute(query.order_by(table.task_key, table.attempt))
        return [(key, number) for key, number in rows]

    def claim_chores(
        self, kind: ChoreKind, keys: Sequence[LogKey], name: str, until: Moment
    ) -> None:
        """See Source."""
        rows = [{"_kind": kind, "_key": key, "_attempt": number} for key, number in keys]
        if rows:
            self._connection.execute(_CLAIM_CHORES.values(batch=name, due=until), rows)

    def renew_chores(self, name: str, due: Moment, until: Moment) -> bool:
        """See Source."""
        table = tables.log_chores
        ours = update(table).where(table.c.batch == name, table.c.due == due)
        return self._connection.execute(ours.values(due=until)).rowcount > 0

    def end_chores(self, name: str) -> None:
        """See Source."""
        table = tables.log_chores
        self._connection.execute(delete(table).where(table.c.batch == name))

    def dependents(self, task_keys: Sequence[int]) -> list[tuple[int, int]]:
        """See Source."""
        pairs: list[tuple[int, int]] = []
        for part in _parts(task_keys):
            pairs += ((row[0], row[1]) for row in rows_of(self._connection, _DEPENDENTS, part))
        return pairs

    def agent(self, public_id: str) -> Agent | None:
        """See Source."""
        return self._named(AGENT, _AGENT_NAMED, public_id)

    def agents_by_key(self, keys: Sequence[int]) -> list[Agent]:
        """See Source."""
        return self._by_keys(AGENT, tables.agents.c.key, sorted(keys))

    def agents_due(self, now: Moment, limit: int) -> list[Agent]:
        """See Source."""
        due = tables.agents.c.due_at
        query = select(*AGENT.columns).where(due <= now).order_by(due).limit(limit)
        return self._load(AGENT, query.with_for_update(skip_locked=True))

    def runs_by_key(self, keys: Sequence[int]) -> list[Run]:
        """See Source."""
        return self._by_keys(RUN, tables.runs.c.key, sorted(keys))

    def run(self, public_id: str) -> Run | None:
        """See Source."""
        return self._named(RUN, _RUN_NAMED, public_id)

    def schedule(self, public_id: str) -> Schedule | None:
        """See Source."""
        found = self._by_keys(SCHEDULE, tables.schedules.c.public_id, [public_id])
        return found[0] if found else None

    def schedule_by_key(self, key: int) -> Schedule | None:
        """See Source."""
        found = self._by_keys(SCHEDULE, tables.schedules.c.key, [key])
        return found[0] if found else None

    def schedule_named(self, namespace: str, name: str) -> Schedule | None:
        """See Source."""
        table = tables.schedules
        query = select(*SCHEDULE.columns).where(
            table.c.namespace == namespace, table.c.name == name
        )
        found = self._load(SCHEDULE, query.with_for_update())
        return found[0] if found else None

    def schedules_of(self, pipeline_key: int) -> list[Schedule]:
        """See Source."""
        return self._by_keys(SCHEDULE, tables.schedules.c.pipeline_key, [pipeline_key])

    def file_schedules(self) -> list[Schedule]:
        """See Source."""
        table = tables.schedules
        query = select(*SCHEDULE.columns).where(table.c.owner == Owner.FILE.value)
        return self._load(SCHEDULE, query.order_by(table.c.key).with_for_update())

    def schedules_due(self, now: Moment, limit: int) -> list[Schedule]:
        """See Source."""
        due = tables.schedules.c.due_at
        query = select(*SCHEDULE.columns).where(due <= now).order_by(due).limit(limit)
        return self._load(SCHEDULE, query.with_for_update(skip_locked=True))

    def active_runs_of(self, schedule_key: int) -> list[Run]:
        """See Source."""
        table = tables.runs
        query = select(*RUN.columns).where(
            table.c.schedule_key == schedule_key, table.c.finished_at.is_(None)
        )
        return self._load(RUN, query.order_by(table.c.key).with_for_update())

    def fire(self, schedule_key: int, at: Moment) -> Fire | None:
        """See Source."""
        table = tables.schedule_fires
        query = select(*FIRE.columns).where(table.c.schedule_key == schedule_key, table.c.at == at)
        found = self._load(FIRE, query)
        return found[0] if found else None

    def hook(self, public_id: str) -> Hook | None:
        """See Source."""
        found = self._by_keys(HOOK, tables.hooks.c.public_id, [public_id])
        return found[0] if found else None

    def hook_by_key(self, key: int) -> Hook | None:
        """See Source."""
        query = select(*HOOK.columns).where(tables.hooks.c.key == key)
        found = self._load(HOOK, query)
        return found[0] if found else None

    def hooks_of(self, pipeline_key: int) -> list[Hook]:
        """See Source."""
        return self._by_keys(HOOK, tables.hooks.c.pipeline_key, [pipeline_key])

    def delivery(self, public_id: str) -> Delivery | None:
        """See Source."""
        found = self._by_keys(DELIVERY, tables.deliveries.c.public_id, [public_id])
        return found[0] if found else None

    def delivery_like(
        self, hook_key: int, forge_id: str, digest: str, since: Moment
    ) -> Delivery | None:
        """See Source."""
        table = tables.deliveries
        for value, conditions in (
            (forge_id, [table.c.forge_id == forge_id, table.c.forge_id != ""]),
            # No secret: the caller has sent all of what it is a digest of.
            (digest, [table.c.digest == digest, table.c.digest != "", table.c.received_at > since]),
        ):
            query = select(*DELIVERY.columns).where(table.c.hook_key == hook_key, *conditions)
            if value and (found := self._load(DELIVERY, query.order_by(table.c.key).limit(1))):
                return found[0]
        return None

    def deliveries_due(self, now: Moment, limit: int) -> list[Delivery]:
        """See Source."""
        due = tables.deliveries.c.due_at
        query = select(*DELIVERY.columns).where(due <= now).order_by(due).limit(limit)
        return self._load(DELIVERY, query.with_for_update(skip_locked=True))

    def prune_deliveries(self, before: Moment, limit: int) -> list[str]:
        """See Source."""
        table = tables.deliveries
        old = select(table.c.key, table.c.blob).where(table.c.finished_at < before)
        rows = self._connection.execute(old.order_by(table.c.key).limit(limit)).all()
        self._connection.execute(delete(table).where(table.c.key.in_([row[0] for row in rows])))
        names = {row[1] for row in rows if row[1]}
        shared = select(table.c.blob).where(table.c.blob.in_(names))
        names -= set(self._connection.execute(shared).scalars()) if names else set()
        return [row[1] if row[1] in names else "" for row in rows]

    def links(self, namespace: str) -> list[tuple[str, str]]:
        """See Source."""
        links, pipelines = tables.pipeline_links, tables.pipelines
        query = (
            select(pipelines.c.name, links.c.after_name)
            .join(pipelines, pipelines.c.key == links.c.pipeline_key)
            .where(links.c.namespace == namespace, pipelines.c.deleted_at.is_(None))
        )
        return [(row[0], row[1]) for row in self._connection.execute(query)]

    def followers(self, namespace: str, name: str) -> list[Pipeline]:
        """See Source."""
        links, pipelines = tables.pipeline_links, tables.pipelines
        query = (
            select(*PIPELINE.columns)
            .join(links, pipelines.c.key == links.c.pipeline_key)
            .where(links.c.namespace == namespace, links.c.after_name == name)
        )
        return self._load(PIPELINE, query.order_by(pipelines.c.key).with_for_update(of=pipelines))

    def group_runs(self, namespace: str, group_key: str) -> list[Run]:
        """See Source."""
        table = tables.runs
        query = select(*RUN.columns).where(
            table.c.namespace == namespace,
            table.c.group_key == group_key,
            table.c.finished_at.is_(None),
        )
        return self._load(RUN, query.order_by(table.c.key).with_for_update())

    def gate(self, key: int) -> Gate | None:
        """See Source."""
        found = self._by_keys(GATE, tables.gates.c.key, [key])
        return found[0] if found else None

    def behind(self, gate_key: int) -> list[Task]:
        """See Source."""
        table = tables.tasks
        open_ones = table.c.finished_at.is_(None)
        return self._load(TASK, _tasks_where(table.c.gate == gate_key, open_ones))

    def dependencies(self, task_keys: Sequence[int]) -> list[tuple[int, int]]:
        """See Source."""
        table = tables.dependencies
        pairs: list[tuple[int, int]] = []
        for start in range(0, len(task_keys), CHUNK):
            query = (
                select(table.c.task_key, table.c.depends_on)
                .where(table.c.task_key.in_(task_keys[start : start + CHUNK]))
                .order_by(table.c.task_key, table.c.depends_on)
            )
            pairs += ((row[0], row[1]) for row in self._connection.execute(query))
        return pairs

    def pipeline_version(self, pipeline_key: int, number: int) -> PipelineVersion | None:
        """See Source."""
        table = tables.pipeline_versions
        query = select(*VERSION.columns).where(
            table.c.pipeline_key == pipeline_key, table.c.number == number
        )
        found = self._load(VERSION, query)
        return found[0] if found else None

    def active_runs(self, pipeline_key: int) -> list[Run]:
        """See Source."""
        table = tables.runs
        active = table.c.status.in_([int(RunStatus.PENDING), int(RunStatus.RUNNING)])
        query = select(*RUN.columns).where(table.c.pipeline_key == pipeline_key, active)
        return self._load(RUN, query.order_by(table.c.key).with_for_update())

    def secret(self, namespace: str, name: str) -> KeptSecret | None:
        """See Source."""
        table = tables.secrets
        query = select(*SECRET.columns).where(table.c.namespace == namespace, table.c.name == name)
        found = self._load(SECRET, query.with_for_update())
        return found[0] if found else None

    def plugin(self, namespace: str, plugin_id: str, version: str) -> PublishedPlugin | None:
        """See Source."""
        table = tables.plugins
        query = select(*PLUGIN.columns).where(
            table.c.namespace == namespace,
            table.c.plugin_id == plugin_id,
            table.c.version == version,
        )
        found = self._load(PLUGIN, query.with_for_update())
        return found[0] if found else None

    def artifact(self, public_id: str) -> Artifact | None:
        """See Source."""
        query = select(*ARTIFACT.columns).where(tables.artifacts.c.public_id == public_id)
        found = self._load(ARTIFACT, query.with_for_update())
        return found[0] if found else None

    def artifacts_of(self, task_id: str, attempt: int, grant_id: str) -> list[Artifact]:
        """See Source."""
        table = tables.artifacts
        own = table.c.grant_id == grant_id
        if not grant_id:
            own = and_(table.c.task_id == task_id, table.c.attempt == attempt)
        query = select(*ARTIFACT.columns).where(own).order_by(table.c.key)
        return self._load(ARTIFACT, query.with_for_update())

    def artifact_bytes(self, namespace: str) -> int:
        """See Source."""
        table = tables.artifacts
        query = select(func.coalesce(func.sum(table.c.size), 0)).where(
            table.c.namespace == namespace, table.c.deleted.is_(False)
        )
        return int(self._connection.execute(query).scalar_one())

    def token(self, public_id: str) -> Token | None:
        """See Source."""
        return self._named(TOKEN, _TOKEN_NAMED, public_id)

    def tokens_of(self, agent_id: str) -> list[Token]:
        """See Source."""
        table = tables.tokens
        query = select(*TOKEN.columns).where(
            table.c.subject == agent_id, table.c.kind == TokenKind.AGENT.value
        )
        return self._load(TOKEN, query.order_by(table.c.key).with_for_update())

    def token_of_digest(self, digest: str) -> Token | None:
        """See Source."""
        return self._named(TOKEN, _TOKEN_OF_DIGEST, digest)

    def pipeline(self, public_id: str) -> Pipeline | None:
        """See Source."""
        return self._named(PIPELINE, _PIPELINE_NAMED, public_id)

    def pipeline_named(self, namespace: str, name: str) -> Pipeline | None:
        """See Source."""
        table = tables.pipelines
        query = select(*PIPELINE.columns).where(
            table.c.namespace == namespace, table.c.name == name
        )
        found = self._load(PIPELINE, query.with_for_update())
        return found[0] if found else None

    def request(self, namespace: str, caller: str, request_id: str) -> RequestRecord | None:
        """See Source."""
        table = tables.requests
        query = select(
            table.c.namespace,
            table.c.caller,
            table.c.request_id,
            table.c.body_hash,
            table.c.answer,
            table.c.expires_at,
        ).where(
            table.c.namespace == namespace,
            table.c.caller == caller,
            table.c.request_id == request_id,
        )
        row = self._connection.execute(query).first()
        return RequestRecord(*row) if row is not None else None

    def lock_groups(self, groups: Mapping[GroupId, int | None]) -> dict[GroupId, int]:
        """See Source."""
        ids = sorted(groups)
        for group in ids:
            self._make_group(group, groups[group])
        places = {}
        # One by one: in this order every server locks them.
        for group in ids:
            query = select(tables.groups.c.places).where(*_group_is(group)).with_for_update()
            stored = self._connection.scalar(query)
            wanted = groups[group]
            while stored is None and wanted is not None:
                # Another server has pruned it since it was looked for.
                self._make_group(group, wanted)
                stored = self._connection.scalar(query)
            if stored is not None and wanted not in (None, stored):
                change = update(tables.groups).where(*_group_is(group)).values(places=wanted)
                self._connection.execute(change)
            if stored is not None:
                places[group] = stored if wanted is None else wanted
        return places

    def _make_group(self, group: GroupId, places: int | None) -> None:
        if places is None:
            return
        table = tables.groups
        known = select(table.c.key).where(*_group_is(group)).exists()
        values = select(literal(group[0]), literal(group[1]), literal(places)).where(~known)
        names = ["namespace", "key", "places"]
        self._connection.execute(insert(table).from_select(names, values))

    def places_taken(self, group: GroupId) -> int:
        """See Source."""
        going_on = tables.tasks.c.status.in_([int(TaskStatus.QUEUED), int(TaskStatus.RUNNING)])
        query = select(func.count()).where(*_in_group(group), going_on)
        return int(self._connection.execute(query).scalar_one())

    def next_members(self, group: GroupId, limit: int) -> list[Task]:
        """See Source."""
        table = tables.tasks
        query = select(*TASK.columns).where(*_in_group(group), *AWAITS_PLACE)
        query = query.order_by(table.c.sort_key, table.c.key).limit(limit)
        return self._load(TASK, query.with_for_update(skip_locked=True))

    def newest_canceller(self, group: GroupId) -> Newcomer | None:
        """See Source."""
        table = tables.tasks
        query = select(table.c.created_at, table.c.key, table.c.public_id)
        query = query.where(*_in_group(group), *AWAITS_PLACE, table.c.cancels_older.is_(True))
        newest = query.order_by(table.c.created_at.desc(), table.c.key.desc()).limit(1)
        row = self._connection.execute(newest).first()
        return None if row is None else Newcomer(*row)

    def older_members(self, group: GroupId, newcomer: Newcomer, limit: int) -> list[Task]:
        """See Source."""
        table = tables.tasks
        older = (table.c.created_at < newcomer.created_at) | (
            (table.c.created_at == newcomer.created_at) & (table.c.key < newcomer.key)
        )
        is_open = table.c.status < int(TaskStatus.SUCCESS)
        elsewhere = table.c.lease_agent.is_(None)
        unasked = elsewhere | table.c.cancel_requested_at.is_(None)
        query = select(*TASK.columns).where(*_in_group(group), is_open, older, unasked)
        query = query.order_by(elsewhere, table.c.key).limit(limit)
        return self._load(TASK, query.with_for_update(skip_locked=True))

    def awaited_groups(self, after: GroupId, limit: int) -> list[GroupId]:
        """See Source."""
        table, task = tables.groups, tables.tasks
        member = (task.c.namespace == table.c.namespace) & (task.c.group_key == table.c.key)
        waits = select(task.c.key).where(member, *AWAITS_PLACE).exists()
        later = (table.c.namespace > after[0]) | (
            (table.c.namespace == after[0]) & (table.c.key > after[1])
        )
        query = select(table.c.namespace, table.c.key).where(later, waits)
        query = query.order_by(table.c.namespace, table.c.key).limit(limit)
        return [(row[0], row[1]) for row in self._connection.execute(query)]

    def class_known(self, class_key: str) -> bool:
        """See Source."""
        known = self._keys.classes
        if class_key in known:
            return True
        found = bool(rows_of(self._connection, _CLASS, {"class_key": class_key}))
        if found:
            if len(known) >= KNOWN_CLASSES:
                known.clear()
            known.add(class_key)
        return found

    def prunable_tasks(
        self, before: Moment, limit: int, *, without: ChoreKind | None = None
    ) -> list[Task]:
        """See Source."""
        table, edges, others = tables.tasks, tables.dependencies, tables.tasks.alias()
        active_run = select(tables.runs.c.key).where(
            tables.runs.c.key == table.c.run_key, tables.runs.c.finished_at.is_(None)
        )
        awaited = (
            select(edges.c.task_key)
            .join(others, others.c.key == edges.c.task_key)
            .where(edges.c.depends_on == table.c.key, others.c.finished_at.is_(None))
        )
        query = (
            select(*TASK.columns)
            .where(table.c.finished_at < before, ~active_run.exists(), ~awaited.exists())
            .order_by(table.c.finished_at)
            .limit(limit)
        )
        if without is not None:
            chores = tables.log_chores.c
            of_task = (chores.task_key == table.c.key) & (chores.kind == without)
            query = query.where(~select(chores.task_key).where(of_task).exists())
        return self._load(TASK, query.with_for_update(of=table, skip_locked=True))

    def prune_events(self, before: Moment, through: int, limit: int) -> int:
        """See Source."""
        table = tables.events
        # Positions grow with time, so the oldest are the first; only they are looked at.
        columns = (table.c.position, table.c.at)
        old = select(*columns).order_by(table.c.position).limit(limit).subquery()
        goes = (old.c.at < before) | (old.c.position <= through)
        last = self._connection.scalar(select(func.max(old.c.position)).where(goes))
        if last is None:
            return 0
        return self._connection.execute(delete(table).where(table.c.position <= last)).rowcount

    def prune_audit(self, before: Moment, limit: int) -> int:
        """See Source."""
        table = tables.audit
        old = select(table.c.key).where(table.c.at < before).order_by(table.c.at).limit(limit)
        done = self._connection.execute(delete(table).where(table.c.key.in_(old)))
        return done.rowcount

    def prune_runs(self, before: Moment, limit: int) -> int:
        """See Source."""
        table = tables.runs
        has_tasks = select(tables.tasks.c.key).where(tables.tasks.c.run_key == table.c.key)
        old = (
            select(table.c.key)
            .where(table.c.finished_at < before, ~has_tasks.exists())
            .order_by(table.c.finished_at)
            .limit(limit)
        )
        return self._connection.execute(delete(table).where(table.c.key.in_(old))).rowcount

    def prune_groups(self, limit: int) -> int:
        """See Source."""
        table, task = tables.groups, tables.tasks
        member = (task.c.namespace == table.c.namespace) & (task.c.group_key == table.c.key)
        unused = ~select(task.c.key).where(member).exists()
        query = select(table.c.namespace, table.c.key).where(unused).limit(limit)
        found = self._connection.execute(query.with_for_update(skip_locked=True)).all()
        # Looked at again with the rows locked: a member may have come meanwhile.
        gone = 0
        for row in found:
            statement = delete(table).where(*_group_is((row[0], row[1])), unused)
            gone += self._connection.execute(statement).rowcount
        return gone

    def prune_fires(self, before: Moment, limit: int) -> int:
        """See Source."""
        table = tables.schedule_fires
        old = (
            select(table.c.schedule_key, table.c.at)
            .where(table.c.struck_at < before)
            .order_by(table.c.struck_at)
            .limit(limit)
        )
        gone = delete(table).where(tuple_(table.c.schedule_key, table.c.at).in_(old))
        return self._connection.execute(gone).rowcount

    def prune_requests(self, before: Moment, limit: int) -> int:
        """See Source."""
        table = tables.requests
        keys = (table.c.namespace, table.c.caller, table.c.request_id)
        old = select(*keys).where(table.c.expires_at < before).limit(limit)
        return self._connection.execute(delete(table).where(tuple_(*keys).in_(old))).rowcount

    def _named(self, record: Record[R], query: Select[Any], public_id: str) -> R | None:
        found = [] if _unknowable(public_id) else self._load(record, query, {"id": public_id})
        return found[0] if found else None


def _parts(keys: Sequence[Any]) -> list[dict[str, Sequence[Any]]]:
    """Return the values of a statement for each part of a long list."""
    return [{"keys": list(keys[start : start + CHUNK])} for start in range(0, len(keys), CHUNK)]


def _unknowable(key: int | str) -> bool:
    """Whether nothing can have this id: PostgreSQL refuses even to compare a NUL."""
    return isinstance(key, str) and "\0" in key


def _tasks_where(*conditions: ColumnElement[bool]) -> Select[Any]:
    query = select(*TASK.columns).where(*conditions)
    return query.order_by(tables.tasks.c.key).with_for_update()


AWAITS_PLACE = (
    tables.tasks.c.status == literal_column(str(int(TaskStatus.PENDING))),
    tables.tasks.c.unmet == 0,
    tables.tasks.c.not_before.is_(None),
)
"""What makes a member of a group wait for a place; see Task.awaits_place."""


def _in_group(group: GroupId) -> list[ColumnElement[bool]]:
    table = tables.tasks
    return [table.c.namespace == group[0], table.c.group_key == group[1]]


def _group_is(group: GroupId) -> list[ColumnElement[bool]]:
    table = tables.groups
    return [table.c.namespace == group[0], table.c.key == group[1]]


def _request_is(record: RequestRecord) -> list[ColumnElement[bool]]:
    table = tables.requests
    return [
        table.c.namespace == record.namespace,
        table.c.caller == record.caller,
        table.c.request_id == record.request_id,
    ]


def _chore_row(chore: LogChore) -> dict[str, Any]:
    key, number = chore.key
    names = {"kind": int(chore.kind), "task_key": key, "attempt": number}
    return {**names, "due": chore.due, "batch": chore.batch}
