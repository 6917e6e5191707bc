"""The system's memory as dictionaries: an honest twin of the SQL stores.

Rows are copied in and out, so nobody changes them but `save`. A transaction works on copies of the
dictionaries; the database takes them over when the work returns, and drops them when it raises.
"""

from copy import copy
from dataclasses import dataclass, field, fields, replace

from server.domain.changes import LogChore
from server.domain.group import Newcomer
from server.domain.run import RunStatus
from server.domain.schedule import Owner
from server.domain.task import TaskStatus
from server.domain.token import TokenKind
from server.stores.interfaces import PoisonError

LARGEST = 2**63 - 1


@dataclass(slots=True)
class Tables:
    """Every row, by its key."""

    tasks: dict = field(default_factory=dict)
    attempts: dict = field(default_factory=dict)
    agents: dict = field(default_factory=dict)
    runs: dict = field(default_factory=dict)
    pipelines: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    schedules: dict = field(default_factory=dict)
    fires: dict = field(default_factory=dict)
    hooks: dict = field(default_factory=dict)
    deliveries: dict = field(default_factory=dict)
    links: dict = field(default_factory=dict)
    gates: dict = field(default_factory=dict)
    tokens: dict = field(default_factory=dict)
    secrets: dict = field(default_factory=dict)
    plugins: dict = field(default_factory=dict)
    artifacts: dict = field(default_factory=dict)
    classes: dict = field(default_factory=dict)
    dependencies: set = field(default_factory=set)
    logs: dict = field(default_factory=dict)
    chores: dict = field(default_factory=dict)
    requests: dict = field(default_factory=dict)
    groups: dict = field(default_factory=dict)
    events: list = field(default_factory=list)
    audit: list = field(default_factory=list)
    key: int = 0
    position: int = 0

    def copied(self):
        """Return the same rows in dictionaries of their own; rows are never edited in place."""
        return Tables(*(copy(getattr(self, each.name)) for each in fields(self)))


class MemoryDatabase:
    """See stores.interfaces.Database."""

    def __init__(self):
        self.tables = Tables()

    async def transact(self, work):
        """See Database."""
        return self.transact_now(work)

    def transact_now(self, work):
        """Do what `transact` does, without a loop."""
        tables = self.tables.copied()
        try:
            answer = work(MemorySource(tables))
        finally:
            self.tables.key = tables.key  # a key once given is gone, whatever becomes of the work
        self.tables = tables
        return answer


class MemorySource:
    """See domain.source.Source."""

    def __init__(self, tables, *, replayed=False):
        self._tables = tables
        self.replayed = replayed

    def now(self):
        return None

    def new_key(self):
        self._tables.key += 1
        return self._tables.key

    # ---- writing

    def touch(self):
        pass

    def save(self, changes):
        tables = self._tables
        for task in changes.deleted_tasks:
            self._delete(task.key)
        for class_key, canonical in changes.new_classes.items():
            tables.classes.setdefault(class_key, canonical)
        self._insert(tables.agents, changes.new_agents)
        self._insert(tables.pipelines, changes.new_pipelines, also_unique=("namespace", "name"))
        for version in changes.new_versions:
            _put(tables.versions, (version.pipeline_key, version.number), version)
        tables.links.update(changes.links)
        for schedule in changes.deleted_schedules:
            tables.schedules.pop(schedule.key, None)
            tables.fires = {k: v for k, v in tables.fires.items() if k[0] != schedule.key}
        self._insert(tables.schedules, changes.new_schedules, also_unique=("namespace", "name"))
        for hook in changes.deleted_hooks:
            tables.hooks.pop(hook.key, None)
            tables.deliveries = {
                k: d for k, d in tables.deliveries.items() if d.hook_key != hook.key
            }
        self._insert(tables.hooks, changes.new_hooks, ("pipeline_key", "kind", "header"))
        self._insert(tables.deliveries, changes.new_deliveries)
        self._insert(tables.runs, changes.new_runs)
        for gate in changes.new_gates:
            _put(tables.gates, gate.key, gate)
            _must(gate.run_key in tables.runs, "a gate of no run")
        self._insert(tables.tasks, changes.new_tasks)
        self._insert(tables.tokens, changes.new_tokens, also_unique=("digest",))
        for secret in changes.new_secrets:
            known = {(each.namespace, each.name) for each in tables.secrets.values()}
            _must((secret.namespace, secret.name) not in known, f"{secret.name} twice")
            _put(tables.secrets, secret.key, secret)
        self._insert(tables.artifacts, changes.new_artifacts)
        for artifact in changes.deleted_artifacts:
            tables.artifacts.pop(artifact.key, None)
        for plugin in changes.new_plugins:
            named = {(p.namespace, p.plugin_id, p.version) for p in tables.plugins.values()}
            own = (plugin.namespace, plugin.plugin_id, plugin.version)
            _must(own not in named, f"{plugin.name} twice")
            _put(tables.plugins, plugin.key, plugin)
        for secret in changes.deleted_secrets:
            tables.secrets.pop(secret.key, None)
        for attempt in changes.new_attempts:
            _put(tables.attempts, (attempt.task_key, attempt.number), attempt)
            _must(attempt.task_key in tables.tasks, "an attempt of no task")
        for name in (
            "agents", "pipelines", "schedules", "hooks", "deliveries", "runs", "gates", "tasks",
            "attempts", "tokens",
            "secrets", "plugins", "artifacts",
        ):  # fmt: skip
            self._update(getattr(tables, name), getattr(changes, name))
        for fire in changes.fires:
            _must(fire.schedule_key in tables.schedules, "a time of no schedule")
            _put(tables.fires, (fire.schedule_key, fire.at), fire)
        for task_key, other in changes.dependencies:
            _must({task_key, other} <= tables.tasks.keys(), "a dependency of no task")
            _must((task_key, other) not in tables.dependencies, "a dependency twice")
            tables.dependencies.add((task_key, other))
        for batch in changes.logs:
            _must(batch.task_key in tables.tasks, "a log of no task")
            _put(tables.logs, (batch.task_key, batch.attempt, batch.block.first_line), batch)
        for chore in changes.chores:
            _must(chore.key[0] in tables.tasks, "a chore of no task")
            tables.chores.setdefault((chore.kind, chore.key), chore)
        for record in changes.expired_requests:
            key = (record.namespace, record.caller, record.request_id)
            if key in tables.requests and tables.requests[key].expires_at == record.expires_at:
                del tables.requests[key]
        for record in changes.requests:
            _put(tables.requests, (record.namespace, record.caller, record.request_id), record)
        tables.audit.extend(_own(entry) for entry in changes.audit)
        for event in changes.events:
            tables.position += 1
            event.position = tables.position
            tables.events.append(_own(event))

    def _insert(self, table, records, also_unique=None):
        for record in records:
            for known in table.values():
                _must(known.public_id != record.public_id, f"{record.public_id} twice")
                if also_unique is not None:
                    taken = all(getattr(known, n) == getattr(record, n) for n in also_unique)
                    _must(not taken, f"{also_unique} of {record.public_id} twice")
            _put(table, record.key, record)

    def _update(self, table, changed):
        for key, record in changed.items():
            if key in table:
                _fits(record)
                table[key] = _own(record)

    def _delete(self, key):
        tables = self._tables
        tables.tasks.pop(key, None)
        tables.attempts = {k: v for k, v in tables.attempts.items() if k[0] != key}
        tables.logs = {k: v for k, v in tables.logs.items() if k[0] != key}
        tables.chores = {k: v for k, v in tables.chores.items() if v.key[0] != key}
        tables.dependencies = {pair for pair in tables.dependencies if key not in pair}

    # ---- reading

    def tasks(self, public_ids):
        wanted = set(public_ids)
        return self._where("tasks", lambda task: task.public_id in wanted)

    def tasks_by_key(self, keys):
        return _by_key(self._tables.tasks, keys)

    def tasks_of_run(self, run_key):
        return self._where("tasks", lambda task: task.run_key == run_key)

    def tasks_leased_to(self, agent_key):
        return self._where("tasks", lambda task: task.lease_agent == agent_key)

    def tasks_due(self, now, limit):
        due = self._where("tasks", lambda task: task.due_at is not None and task.due_at <= now)
        return sorted(due, key=lambda task: task.due_at)[:limit]

    def ready_tasks(self, queue, limit, *, only_agent=None, now=0):
        ready = self._where(
            "tasks",
            lambda task: (
                task.status is TaskStatus.QUEUED
                and task.lease_agent is None
                and task.queue == queue
                and not (
                    only_agent is not None
                    and task.avoid_agent == only_agent
                    and task.avoid_until > now
                )
            ),
        )
        return sorted(ready, key=lambda task: (task.sort_key, task.key))[:limit]

    def leases_of(self, agent_keys):
        held = [task.lease_agent for task in self._tables.tasks.values()]
        counts = {key: held.count(key) for key in agent_keys}
        return {key: count for key, count in counts.items() if count}

    def attempts(self, keys):
        return _by_key(self._tables.attempts, keys)

    def attempts_due(self, now, limit):
        due = self._where("attempts", lambda a: a.log_due is not None and a.log_due <= now)
        return sorted(due, key=lambda attempt: attempt.log_due)[:limit]

    def log_heads(self, keys, lines=None):
        heads = {}
        for place in sorted(self._tables.logs):
            wanted = lines is None or lines[0] <= place[2] <= lines[1]
            if (key := place[:2]) in keys and wanted:
                block = self._tables.logs[place].block
                heads.setdefault(key, []).append(replace(block, data=b""))
        return heads

    def drop_log(self, key, first, last):
        for place in list(self._tables.logs):
            if place[:2] == key and first <= place[2] <= last:
                del self._tables.logs[place]

    def with_chore(self, kind, keys):
        return {key for key in keys if (kind, key) in self._tables.chores}

    def chores_due(self, kind, now, limit):
        due = [c for c in self._tables.chores.values() if c.kind is kind and c.due <= now]
        return sorted(due, key=lambda chore: (chore.due, chore.key))[:limit]

    def chore_batch(self, name):
        return sorted(c.key for c in self._tables.chores.values() if c.batch == name)

    def claim_chores(self, kind, keys, name, until):
        for key in keys:
            self._tables.chores[kind, key] = LogChore(kind, key, until, name)

    def renew_chores(self, name, due, until):
        chores = self._tables.chores
        ours = {place: c for place, c in chores.items() if (c.batch, c.due) == (name, due)}
        chores.update({place: replace(chore, due=until) for place, chore in ours.items()})
        return bool(ours)

    def end_chores(self, name):
        kept = {place: c for place, c in self._tables.chores.items() if c.batch != name}
        self._tables.chores = kept

    def dependents(self, task_keys):
        pairs = sorted(self._tables.dependencies)
        return [(other, task) for task, other in pairs if other in task_keys]

    def agent(self, public_id):
        return self._first("agents", lambda agent: agent.public_id == public_id)

    def agents_by_key(self, keys):
        return _by_key(self._tables.agents, keys)

    def agents_due(self, now, limit):
        due = self._where("agents", lambda agent: agent.due_at is not None and agent.due_at <= now)
        return sorted(due, key=lambda agent: agent.due_at)[:limit]

    def runs_by_key(self, keys):
        return _by_key(self._tables.runs, keys)

    def run(self, public_id):
        return self._first("runs", lambda run: run.public_id == public_id)

    def schedule(self, public_id):
        return self._first("schedules", lambda each: each.public_id == public_id)

    def schedule_by_key(self, key):
        found = _by_key(self._tables.schedules, [key])
        return found[0] if found else None

    def schedule_named(self, namespace, name):
        wanted = (namespace, name)
        return self._first("schedules", lambda each: (each.namespace, each.name) == wanted)

    def schedules_of(self, pipeline_key):
        return self._where("schedules", lambda each: each.pipeline_key == pipeline_key)

    def file_schedules(self):
        return self._where("schedules", lambda each: each.owner is Owner.FILE)

    def schedules_due(self, now, limit):
        due = self._where("schedules", lambda s: s.due_at is not None and s.due_at <= now)
        return sorted(due, key=lambda schedule: schedule.due_at)[:limit]

    def active_runs_of(self, schedule_key):
        return self._where(
            "runs", lambda run: run.schedule_key == schedule_key and run.finished_at is None
        )

    def fire(self, schedule_key, at):
        return self._tables.fires.get((schedule_key, at))

    def hook(self, public_id):
        return self._first("hooks", lambda each: each.public_id == public_id)

    def hook_by_key(self, key):
        return self._first("hooks", lambda each: each.key == key)

    def hooks_of(self, pipeline_key):
        return self._where("hooks", lambda each: each.pipeline_key == pipeline_key)

    def delivery(self, public_id):
        return self._first("deliveries", lambda each: each.public_id == public_id)

    def delivery_like(self, hook_key, forge_id, digest, since):
        own = self._where("deliveries", lambda each: each.hook_key == hook_key)
        named = [each for each in own if forge_id and each.forge_id == forge_id]
        alike = [d for d in own if digest and d.digest == digest and d.received_at > since]
        return next(iter(named + alike), None)

    def deliveries_due(self, now, limit):
        due = self._where("deliveries", lambda d: d.due_at is not None and d.due_at <= now)
        return sorted(due, key=lambda each: each.due_at)[:limit]

    def prune_deliveries(self, before, limit):
        done = self._where("deliveries", lambda d: d.finished_at and d.finished_at < before)
        for each in done[:limit]:
            del self._tables.deliveries[each.key]
        kept = {each.blob for each in self._tables.deliveries.values()}
        return ["" if each.blob in kept else each.blob for each in done[:limit]]

    def links(self, namespace):
        return [
            (self._tables.pipelines[key].name, after)
            for key, (where, names) in self._tables.links.items()
            for after in names
            if where == namespace and self._tables.pipelines[key].deleted_at is None
        ]

    def followers(self, namespace, name):
        keys = [key for key, found in self._tables.links.items() if name in found[1]]
        found = _by_key(self._tables.pipelines, keys)
        return [pipeline for pipeline in found if pipeline.namespace == namespace]

    def group_runs(self, namespace, group_key):
        return self._where(
            "runs",
            lambda run: (
                (run.namespace, run.group_key, run.finished_at) == (namespace, group_key, None)
            ),
        )

    def gate(self, key):
        found = _by_key(self._tables.gates, [key])
        return found[0] if found else None

    def behind(self, gate_key):
        return self._where("tasks", lambda t: t.gate == gate_key and t.finished_at is None)

    def dependencies(self, task_keys):
        return sorted(pair for pair in self._tables.dependencies if pair[0] in task_keys)

    def pipeline_version(self, pipeline_key, number):
        found = self._tables.versions.get((pipeline_key, number))
        return None if found is None else _own(found)

    def active_runs(self, pipeline_key):
        active = (RunStatus.PENDING, RunStatus.RUNNING)
        return self._where(
            "runs", lambda run: run.pipeline_key == pipeline_key and run.status in active
        )

    def artifact(self, public_id):
        return self._first("artifacts", lambda each: each.public_id == public_id)

    def artifacts_of(self, task_id, attempt, grant_id):
        def own(each):
            if grant_id:
                return each.grant_id == grant_id
            return (each.task_id, each.attempt) == (task_id, attempt)

        return self._where("artifacts", own)

    def artifact_bytes(self, namespace):
        kept = self._where("artifacts", lambda a: a.namespace == namespace and not a.deleted)
        return sum(each.size for each in kept)

    def plugin(self, namespace, plugin_id, version):
        wanted = (namespace, plugin_id, version)
        return self._first("plugins", lambda p: (p.namespace, p.plugin_id, p.version) == wanted)

    def secret(self, namespace, name):
        return self._first("secrets", lambda s: (s.namespace, s.name) == (namespace, name))

    def token(self, public_id):
        return self._first("tokens", lambda token: token.public_id == public_id)

    def tokens_of(self, agent_id):
        return self._where(
            "tokens", lambda token: (token.subject, token.kind) == (agent_id, TokenKind.AGENT)
        )

    def token_of_digest(self, digest):
        return self._first("tokens", lambda token: token.digest == digest)

    def pipeline(self, public_id):
        return self._first("pipelines", lambda pipeline: pipeline.public_id == public_id)

    def pipeline_named(self, namespace, name):
        return self._first("pipelines", lambda p: (p.namespace, p.name) == (namespace, name))

    def request(self, namespace, caller, request_id):
        record = self._tables.requests.get((namespace, caller, request_id))
        return record and replace(record)

    def class_known(self, class_key):
        return class_key in self._tables.classes

    # ---- concurrency groups

    def lock_groups(self, groups):
        known = self._tables.groups
        known.update((group, places) for group, places in groups.items() if places is not None)
        return {group: known[group] for group in sorted(groups) if group in known}

    def places_taken(self, group):
        return len(self._members(group, lambda task: task.holds_place))

    def next_members(self, group, limit):
        waiting = self._members(group, lambda task: task.awaits_place)
        return sorted(waiting, key=lambda task: (task.sort_key, task.key))[:limit]

    def newest_canceller(self, group):
        found = self._members(group, lambda task: task.awaits_place and task.cancels_older)
        newest = max(found, key=lambda task: (task.created_at, task.key), default=None)
        return newest and Newcomer(newest.created_at, newest.key, newest.public_id)

    def older_members(self, group, newcomer, limit):
        place = (newcomer.created_at, newcomer.key)

        def wanted(task):
            asked = task.leased and task.cancel_requested_at is not None
            return not (task.status.ended or asked) and (task.created_at, task.key) < place

        found = self._members(group, wanted)
        return sorted(found, key=lambda task: (not task.leased, task.key))[:limit]

    def awaited_groups(self, after, limit):
        waiting = self._where("tasks", lambda task: task.awaits_place)
        found = {(task.namespace, task.group_key) for task in waiting}
        return sorted(group for group in found if group > after)[:limit]

    def _members(self, group, condition):
        return self._where(
            "tasks", lambda task: (task.namespace, task.group_key) == group and condition(task)
        )

    # ---- pruning

    def prunable_tasks(self, before, limit, *, without=None):
        tables = self._tables
        busy = {chore.key[0] for chore in tables.chores.values() if chore.kind is without}
        open_tasks = {key for key, task in tables.tasks.items() if task.finished_at is None}
        awaited = {other for task, other in tables.dependencies if task in open_tasks}
        active = {key for key, run in tables.runs.items() if run.finished_at is None}
        old = self._where(
            "tasks",
            lambda task: (
                task.finished_at is not None
                and task.finished_at < before
                and task.run_key not in active
                and task.key not in awaited
                and task.key not in busy
            ),
        )
        return sorted(old, key=lambda task: task.finished_at)[:limit]

    def prune_events(self, before, through, limit):
        first = self._tables.events[:limit]
        last = max((e.position for e in first if e.at < before or e.position <= through), default=0)
        kept = [e for e in self._tables.events if e.position > last]
        gone, self._tables.events = len(self._tables.events) - len(kept), kept
        return gone

    def prune_audit(self, before, limit):
        old = sorted((e for e in self._tables.audit if e.at < before), key=lambda e: e.at)[:limit]
        self._tables.audit = [entry for entry in self._tables.audit if entry not in old]
        return len(old)

    def prune_runs(self, before, limit):
        tables = self._tables
        used = {task.run_key for task in tables.tasks.values()}
        old = sorted(
            (run.finished_at, key)
            for key, run in tables.runs.items()
            if run.finished_at is not None and run.finished_at < before and key not in used
        )[:limit]
        for _, key in old:
            del tables.runs[key]
        return len(old)

    def prune_groups(self, limit):
        tables = self._tables
        used = {(task.namespace, task.group_key) for task in tables.tasks.values()}
        unused = [group for group in tables.groups if group not in used][:limit]
        for group in unused:
            del tables.groups[group]
        return len(unused)

    def prune_fires(self, before, limit):
        old = [key for key, fire in self._tables.fires.items() if fire.struck_at < before][:limit]
        for key in old:
            del self._tables.fires[key]
        return len(old)

    def prune_requests(self, before, limit):
        tables = self._tables
        old = [key for key, r in tables.requests.items() if r.expires_at < before][:limit]
        for key in old:
            del tables.requests[key]
        return len(old)

    def _where(self, name, condition):
        table = getattr(self._tables, name)
        return [_own(table[key]) for key in sorted(table) if condition(table[key])]

    def _first(self, name, condition):
        return next(iter(self._where(name, condition)), None)


def _by_key(table, keys):
    return [_own(table[key]) for key in sorted(set(keys)) if key in table]


def _put(table, key, record):
    _must(key not in table, f"key {key} twice")
    _fits(record)
    table[key] = _own(record)


def _own(record):
    """Return a copy that shares nothing one could edit."""
    mine = copy(record)
    for each in record.__slots__:
        value = getattr(mine, each)
        if isinstance(value, dict | list):
            object.__setattr__(mine, each, copy(value))
    return mine


def _fits(record):
    for each in record.__slots__:
        value = getattr(record, each)
        if isinstance(value, int):
            _must(-LARGEST - 1 <= value <= LARGEST, f"{each} has more than 64 bits")


def _must(condition, problem):
    if not condition:
        raise PoisonError(problem)
