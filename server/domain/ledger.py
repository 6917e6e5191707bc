"""The working set of one transaction: rows read, rows changed, rows new, events told.

The writer opens one ledger a transaction, lets each command of the batch decide over it in order,
and saves it once. Rules read through it, edit rows in place and say so with `touch`; they never
meet a database. A `Source` is what lies behind: SQL in the server, dictionaries in tests.

A rule refuses before it changes anything. A command that raises after its first change is not
trusted to have left the set whole: the batch is thrown away and replayed command by command.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol, TypeVar

from server.domain.agent import Agent, next_agent_due
from server.domain.artifact import Artifact
from server.domain.attempt import Attempt, log_state, next_log_due
from server.domain.audit import AuditEntry
from server.domain.changes import Changes, ChoreKind, Effects, LogBatch, LogChore, RequestRecord
from server.domain.errors import NotFound
from server.domain.event import Event
from server.domain.expression import Expressions, NoExpressions
from server.domain.gate import Gate
from server.domain.group import GroupId, Newcomer
from server.domain.hook import Delivery, Hook
from server.domain.kept_secret import KeptSecret
from server.domain.log import LogKey
from server.domain.moment import Moment
from server.domain.pipeline import Pipeline, PipelineVersion
from server.domain.plugin import PublishedPlugin
from server.domain.policy import Policy
from server.domain.run import Run
from server.domain.schedule import Fire, NoTimes, Schedule, Times
from server.domain.source import Source
from server.domain.task import Queue, Task, next_due
from server.domain.token import Token

NO_EXPRESSIONS = NoExpressions()
NO_TIMES = NoTimes()

RUNS_OF = "\x1f"
"""Begins the keys of groups of runs; no group of tasks may be called so."""

AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class Command(Protocol[AnswerT_co]):
    """One change that a caller, an agent or a timer asks for."""

    def task_ids(self) -> Iterable[str]:
        """Return ids of tasks it will look at, so that a batch reads them at once."""

    def decide(self, ledger: "Ledger") -> AnswerT_co:
        """Change the ledger and return the answer.

        Raises:
            MusterError: a refusal; the ledger is as before.
        """


class Ledger:
    """See the module."""

    def __init__(
        self,
        source: Source,
        now: Moment,
        policy: Policy,
        expressions: Expressions = NO_EXPRESSIONS,
        times: Times = NO_TIMES,
    ) -> None:
        self.expressions = expressions
        self.times = times
        self.source = source
        self.now = now
        self.policy = policy
        self.changes = Changes()
        self.effects = Effects()
        self.events: list[Event] = []
        self.measured: dict[int, dict[str, str]] = {}
        """What agents measured of tasks they report on in this transaction, by the task's key."""
        self.edits = 0
        """Changes so far; the writer compares it around each command."""
        self._tasks: dict[int, Task] = {}
        self._tasks_by_id: dict[str, Task] = {}
        self._absent_tasks: set[str] = set()
        """Ids that were looked for and do not exist; asking again costs nothing."""
        self._dependents: dict[int, list[int]] = {}
        """Who waits for a task, by key, as far as read."""
        self._attempts: dict[tuple[int, int], Attempt] = {}
        self._agents: dict[int, Agent] = {}
        self._agents_by_id: dict[str, Agent] = {}
        self._runs: dict[int, Run] = {}
        self._pipelines: dict[str, Pipeline] = {}
        self._gates: dict[int, Gate] = {}
        self._schedules: dict[int, Schedule] = {}
        self._requests: dict[tuple[str, str, str], RequestRecord] = {}
        self._expired: dict[tuple[str, str, str], RequestRecord] = {}
        self._classes: set[str] = set()
        self.ended_runs: list[Run] = []
        """Runs that have ended in this transaction (see `following`)."""
        self.unsettled: set[GroupId] = set()
        """Concurrency groups to be looked at before the transaction ends (see `admission`)."""
        self.cancelled = 0
        """How many members newcomers have cancelled so far."""
        self._limits: dict[GroupId, int] = {}

    def look_at_clock(self) -> None:
        """Move on to the present, for a decision that must not seem older than what it rests on."""
        self.now = max(self.now, self.source.now() or self.now)

    def flush(self) -> None:
        """Write the rows that have changed so far, so that the source's searches see them.

        Events stay for the end: numbering them makes other servers wait until we commit.
        """
        events, self.changes.events = self.changes.events, []
        self.finish()
        self.changes.events = events

    def finish(self) -> None:
        """Write everything that has changed."""
        self._settle()
        self.effects.touched.update(self.changes.tasks)
        if self.changes.any():
            changes, self.changes = self.changes, Changes()
            self.effects.wrote = True
            self.source.save(changes)

    def try_to_write(self) -> None:
        """Write something that changes nothing, to see whether it is taken."""
        self.effects.wrote = True
        self.source.touch()

    def _settle(self) -> None:
        """Bring derived columns up to date: when the timers look at a row next, what is ready."""
        for task in (*self.changes.new_tasks, *self.changes.tasks.values()):
            if task.ready_at is None and task.ready:
                task.ready_at = self.now
            task.due_at = next_due(task, self.policy)
            self.effects.hint_due(task.due_at)
        for attempt in (*self.changes.new_attempts, *self.changes.attempts.values()):
            state = log_state(attempt, self.now, self.policy)
            if state is not attempt.log_state:
                attempt.log_state = state
                self.effects.closed_logs.add((attempt.task_key, attempt.number))
                self.effects.log_tasks.add(self._tasks[attempt.task_key].public_id)
                if attempt.log_lines:
                    self._add_chores((attempt.task_key, attempt.number))
            attempt.log_due = next_log_due(attempt, self.policy)
            self.effects.hint_due(attempt.log_due)
        for agent in (*self.changes.new_agents, *self.changes.agents.values()):
            agent.due_at = next_agent_due(agent)
            self.effects.hint_due(agent.due_at)
        for schedule in (*self.changes.new_schedules, *self.changes.schedules.values()):
            self.effects.hint_due(schedule.due_at)

    def _add_chores(self, log: LogKey) -> None:
        """Note what is to be done with a log that was closed."""
        wanted = {
            ChoreKind.ARCHIVE: self.policy.archive_logs,
            ChoreKind.SEAL: self.policy.seal_rows,
        }
        kinds = [kind for kind, is_wanted in wanted.items() if is_wanted]
        self.changes.chores += [LogChore(kind, log, self.now) for kind in kinds]

    # ---- tasks

    def prefetch_tasks(self, public_ids: Iterable[str]) -> None:
        """Read many tasks with their latest attempts at once."""
        known, absent = self._tasks_by_id, self._absent_tasks
        missing = [i for i in dict.fromkeys(public_ids) if i not in known and i not in absent]
        if not missing:
            return
        tasks = self._remember_tasks(self.source.tasks(missing))
        absent.update(i for i in missing if i not in known)
        self.prefetch_attempts((t.key, t.attempt) for t in tasks if t.attempt)

    def task(self, namespace: str | None, public_id: str) -> Task:
        """Return a task; `namespace` None is for agents, which serve all of them.

        Raises:
            NotFound: no such task there.
        """
        task = self.find_task(public_id)
        if task is None or (namespace is not None and task.namespace != namespace):
            raise NotFound("task", public_id)
        return task

    def find_task(self, public_id: str) -> Task | None:
        """Return a task of any namespace, or None."""
        if public_id not in self._tasks_by_id:
            self.prefetch_tasks([public_id])
        return self._tasks_by_id.get(public_id)

    def tasks_by_key(self, keys: Sequence[int]) -> list[Task]:
        """Return tasks by key, in the order asked."""
        missing = [key for key in keys if key not in self._tasks]
        if missing:
            self._remember_tasks(self.source.tasks_by_key(missing))
        return [self._tasks[key] for key in keys if key in self._tasks]

    def tasks_of_run(self, run: Run) -> list[Task]:
        """Return every task of a run."""
        self.flush()
        return self._remember_tasks(self.source.tasks_of_run(run.key))

    def tasks_leased_to(self, agent: Agent) -> list[Task]:
        """Return the tasks an agent holds."""
        self.flush()
        return self._remember_tasks(self.source.tasks_leased_to(agent.key))

    def tasks_due(self, limit: int) -> list[Task]:
        """Return tasks that the timers must look at."""
        self.flush()
        return self._remember_tasks(self.source.tasks_due(self.now, limit))

    def ready_tasks(self, queue: Queue, limit: int, only_agent: int | None = None) -> list[Task]:
        """Return the first ready tasks of a queue, for one agent or for several."""
        self.flush()
        tasks = self.source.ready_tasks(queue, limit, only_agent=only_agent, now=self.now)
        return self._remember_tasks(tasks)

    def add_task(self, task: Task, depends_on: Iterable[int] = ()) -> None:
        """Add a new task and what it waits for."""
        self.edits += 1
        self._remember_tasks([task])
        self.changes.new_tasks.append(task)
        for other in depends_on:
            self.changes.dependencies.append((task.key, other))
            if other in self._dependents:
                self._dependents[other].append(task.key)

    def touch(self, task: Task) -> None:
        """Say that a task was edited."""
        self.edits += 1
        self.changes.tasks[task.key] = task

    def delete_task(self, task: Task) -> None:
        """Remove a task with its attempts, log and dependencies."""
        self.flush()
        self.edits += 1
        del self._tasks[task.key], self._tasks_by_id[task.public_id]
        self.changes.deleted_tasks.append(task)
        self.effects.deleted.add(task.key)
        self.flush()  # else a later command of the batch would read it again

    def prunable_tasks(self, before: Moment, limit: int) -> list[Task]:
        """Return ended tasks that nothing needs any more, oldest first."""
        self.flush()
        kept = ChoreKind.ARCHIVE if self.policy.archive_logs else None
        return self._remember_tasks(self.source.prunable_tasks(before, limit, without=kept))

    def delete_tasks(self, tasks: Sequence[Task]) -> None:
        """Remove tasks with their attempts, logs and dependencies."""
        for task in tasks:
            self.edits += 1
            del self._tasks[task.key], self._tasks_by_id[task.public_id]
            self.effects.deleted.add(task.key)
        self.changes.deleted_tasks.extend(tasks)
        self.flush()  # else a later command of the batch would read them again

    def dependents(self, task: Task) -> list[Task]:
        """Return the tasks that wait for a task, in key order."""
        if task.key not in self._dependents:
            self._prefetch_dependents(task)
        return self.tasks_by_key(self._dependents[task.key])

    def _prefetch_dependents(self, task: Task) -> None:
        """Read who waits for a task, and for every other that may end in this transaction."""
        if self.changes.dependencies:
            self.flush()
        keys = {t.key for t in self._tasks.values() if t.leased} - self._dependents.keys()
        keys.add(task.key)
        self._dependents.update((key, []) for key in keys)
        for key, waiting in self.source.dependents(sorted(keys)):
            self._dependents[key].append(waiting)

    def add_class(self, class_key: str, canonical: str) -> None:
        """Store a task class unless it is stored."""
        if class_key not in self._classes:
            if not self.source.class_known(class_key):
                self.changes.new_classes[class_key] = canonical
            self._classes.add(class_key)

    def _remember_tasks(self, tasks: Collection[Task]) -> list[Task]:
        """Return the ledger's own object for each task: a row is read once a transaction."""
        known = []
        for task in tasks:
            own = self._tasks.setdefault(task.key, task)
            self._tasks_by_id[own.public_id] = own
            if own.group_key is not None and own.awaits_place:
                self.unsettle(own)  # whoever wanted it meanwhile has passed it over
            known.append(own)
        return known

    # ---- concurrency groups

    def unsettle(self, task: Task) -> None:
        """Have a task's group looked at: a place in it is free, or wanted."""
        if task.group_key is not None:
            self.unsettled.add((task.namespace, task.group_key))

    def limit_group(self, group: GroupId, places: int) -> None:
        """Give a group another number of places, and make it when it is new."""
        self.edits += 1
        self._limits[group] = places
        self.unsettled.add(group)

    def lock_groups(self, groups: Sequence[GroupId]) -> dict[GroupId, int]:
        """Lock groups until the transaction ends; return how many places each has."""
        self.flush()
        return self.source.lock_groups({group: self._limits.get(group) for group in groups})

    def places_taken(self, group: GroupId) -> int:
        """Return how many members hold a place."""
        self.flush()
        return self.source.places_taken(group)

    def next_members(self, group: GroupId, limit: int) -> list[Task]:
        """Return the first of those that wait for a place."""
        return self._remember_tasks(self.source.next_members(group, limit))

    def newest_canceller(self, group: GroupId) -> Newcomer | None:
        """Return the last submitted of those that wait for a place and cancel older members."""
        return self.source.newest_canceller(group)

    def older_members(self, group: GroupId, newcomer: Newcomer, limit: int) -> list[Task]:
        """Return open members that were submitted before one; see Source."""
        return self._remember_tasks(self.source.older_members(group, newcomer, limit))

    # ---- attempts

    def prefetch_attempts(self, keys: Iterable[tuple[int, int]]) -> None:
        """Read many attempts at once."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._attempts]
        for attempt in self.source.attempts(missing) if missing else ():
            self._attempts[attempt.task_key, attempt.number] = attempt

    def attempt(self, task: Task, number: int) -> Attempt | None:
        """Return one attempt of a task."""
        key = (task.key, number)
        if key not in self._attempts and number:
            self.prefetch_attempts([key])
        return self._attempts.get(key)

    def last_attempt(self, task: Task) -> Attempt:
        """Return the latest attempt of a task that has one."""
        attempt = self.attempt(task, task.attempt)
        if attempt is None:
            raise LookupError(f"task {task.public_id} has no attempt {task.attempt}")
        return attempt

    def attempts_due(self, limit: int) -> list[Attempt]:
        """Return attempts whose log the timers must look at; their tasks are read too."""
        self.flush()
        attempts = self.source.attempts_due(self.now, limit)
        self.tasks_by_key([attempt.task_key for attempt in attempts])
        return [self._attempts.setdefault((a.task_key, a.number), a) for a in attempts]

    def add_attempt(self, attempt: Attempt) -> None:
        """Add a new attempt."""
        self.edits += 1
        self._attempts[attempt.task_key, attempt.number] = attempt
        self.changes.new_attempts.append(attempt)

    def touch_attempt(self, attempt: Attempt) -> None:
        """Say that an attempt was edited."""
        self.edits += 1
        self.changes.attempts[attempt.task_key, attempt.number] = attempt

    def add_log(self, batch: LogBatch) -> None:
        """Store a batch of log lines."""
        self.edits += 1
        self.changes.logs.append(batch)

    # ---- agents

    def agent(self, public_id: str) -> Agent:
        """Return an agent.

        Raises:
            NotFound: no such agent.
        """
        agent = self.find_agent(public_id)
        if agent is None:
            raise NotFound("agent", public_id)
        return agent

    def find_agent(self, public_id: str) -> Agent | None:
        """Return an agent, or None."""
        if public_id not in self._agents_by_id:
            agent = self.source.agent(public_id)
            if agent is not None:
                self._remember_agent(agent)
        return self._agents_by_id.get(public_id)

    def agents_by_key(self, keys: Iterable[int]) -> dict[int, Agent]:
        """Return agents by key."""
        wanted = list(keys)
        missing = [key for key in wanted if key not in self._agents]
        for agent in self.source.agents_by_key(missing) if missing else ():
            self._remember_agent(agent)
        return {key: self._agents[key] for key in wanted if key in self._agents}

    def agents_due(self, limit: int) -> list[Agent]:
        """Return agents that the timers must look at."""
        self.flush()
        found = self.source.agents_due(self.now, limit)
        for agent in found:
            self._remember_agent(agent)
        return [self._agents[agent.key] for agent in found]

    def leases_of(self, agent_keys: Sequence[int]) -> dict[int, int]:
        """Return how many leases each agent holds."""
        self.flush()
        return self.source.leases_of(agent_keys)

    def add_agent(self, agent: Agent) -> None:
        """Add a new agent."""
        self.edits += 1
        self._remember_agent(agent)
        self.changes.new_agents.append(agent)

    def touch_agent(self, agent: Agent) -> None:
        """Say that an agent was edited."""
        self.edits += 1
        self.changes.agents[agent.key] = agent

    def _remember_agent(self, agent: Agent) -> None:
        own = self._agents.setdefault(agent.key, agent)
        self._agents_by_id[own.public_id] = own

    # ---- pipelines and runs

    def pipeline(self, namespace: str, public_id: str) -> Pipeline:
        """Return a pipeline.

        Raises:
            NotFound: no such pipeline there.
        """
        pipeline = self._find_pipeline(public_id)
        if pipeline is None or pipeline.namespace != namespace or pipeline.deleted_at is not None:
            raise NotFound("pipeline", public_id)
        return pipeline

    def pipeline_of(self, run: Run) -> Pipeline:
        """Return a run's pipeline, also one that was deleted."""
        pipeline = self._find_pipeline(run.pipeline_id)
        if pipeline is None:
            raise LookupError(f"run {run.public_id} has no pipeline")
        return pipeline

    def _find_pipeline(self, public_id: str) -> Pipeline | None:
        pipeline = self._pipelines.get(public_id) or self.source.pipeline(public_id)
        return None if pipeline is None else self._pipelines.setdefault(public_id, pipeline)

    def pipeline_named(self, namespace: str, name: str) -> Pipeline | None:
        """Return a pipeline by its name, or None."""
        for pipeline in self._pipelines.values():
            if (pipeline.namespace, pipeline.name) == (namespace, name):
                return pipeline
        return self.source.pipeline_named(namespace, name)

    def add_pipeline(self, pipeline: Pipeline) -> None:
        """Add a new pipeline."""
        self.edits += 1
        self._pipelines[pipeline.public_id] = pipeline
        self.changes.new_pipelines.append(pipeline)

    def touch_pipeline(self, pipeline: Pipeline) -> None:
        """Say that a pipeline was edited."""
        self.edits += 1
        self.changes.pipelines[pipeline.key] = pipeline

    def run_by_key(self, key: int) -> Run:
        """Return a run that exists."""
        if key not in self._runs:
            for run in self.source.runs_by_key([key]):
                self._runs[run.key] = run
        return self._runs[key]

    def run(self, namespace: str, public_id: str) -> Run:
        """Return a run.

        Raises:
            NotFound: no such run there.
        """
        for known in self._runs.values():
            if known.public_id == public_id and known.namespace == namespace:
                return known
        run = self.source.run(public_id)
        if run is None or run.namespace != namespace:
            raise NotFound("run", public_id)
        return self._runs.setdefault(run.key, run)

    def set_links(self, pipeline: Pipeline, names: Sequence[str]) -> None:
        """Say whose runs' ends start a pipeline."""
        self.edits += 1
        self.changes.links[pipeline.key] = (pipeline.namespace, tuple(names))

    def followers(self, pipeline: Pipeline) -> list[Pipeline]:
        """Return the pipelines that a pipeline's runs' ends start."""
        found = self.source.followers(pipeline.namespace, pipeline.name)
        return [self._pipelines.setdefault(each.public_id, each) for each in found]

    def add_version(self, version: PipelineVersion) -> None:
        """Add a version of a pipeline."""
        self.edits += 1
        self.changes.new_versions.append(version)

    def version(self, pipeline: Pipeline, number: int) -> PipelineVersion:
        """Return a version of a pipeline.

        Raises:
            NotFound: it has no such version.
        """
        self.flush()
        version = self.source.pipeline_version(pipeline.key, number)
        if version is None:
            raise NotFound("version", f"{number} of pipeline {pipeline.public_id}")
        return version

    def gate(self, key: int) -> Gate:
        """Return a gate that exists."""
        if key not in self._gates:
            found = self.source.gate(key)
            if found is None:
                raise LookupError(f"there is no gate {key}")
            self._gates[key] = found
        return self._gates[key]

    def add_gate(self, gate: Gate) -> None:
        """Add a new gate."""
        self.edits += 1
        self._gates[gate.key] = gate
        self.changes.new_gates.append(gate)

    def touch_gate(self, gate: Gate) -> None:
        """Say that a gate was edited."""
        self.edits += 1
        self.changes.gates[gate.key] = gate

    def behind(self, gate: Gate) -> list[Task]:
        """Return the tasks behind a gate that have not ended."""
        self.flush()
        return self._remember_tasks(self.source.behind(gate.key))

    def needs_of(self, task: Task) -> list[Task]:
        """Return the tasks that one names as what it waits for, in key order."""
        if self.changes.dependencies:
            self.flush()
        return self.tasks_by_key([key for _, key in self.source.dependencies([task.key])])

    # ---- schedules

    def schedule(self, namespace: str, public_id: str) -> Schedule:
        """Return a schedule.

        Raises:
            NotFound: no such schedule there.
        """
        for known in self._schedules.values():
            if (known.namespace, known.public_id) == (namespace, public_id):
                return known
        found = self.source.schedule(public_id)
        if found is None or found.namespace != namespace or found.key in self._schedules:
            raise NotFound("schedule", public_id)
        return self._schedules.setdefault(found.key, found)

    def schedule_by_key(self, key: int) -> Schedule | None:
        """Return a schedule, or None."""
        if key not in self._schedules:
            found = self.source.schedule_by_key(key)
            if found is None:
                return None
            self._schedules[key] = found
        return self._schedules[key]

    def schedule_named(self, namespace: str, name: str) -> Schedule | None:
        """Return a schedule by its name, or None."""
        self.flush()
        found = self.source.schedule_named(namespace, name)
        return None if found is None else self._schedules.setdefault(found.key, found)

    def schedules_of(self, pipeline: Pipeline) -> list[Schedule]:
        """Return a pipeline's schedules."""
        self.flush()
        found = self.source.schedules_of(pipeline.key)
        return [self._schedules.setdefault(each.key, each) for each in found]

    def schedules_due(self, limit: int) -> list[Schedule]:
        """Return schedules that the timers must look at."""
        self.flush()
        found = self.source.schedules_due(self.now, limit)
        return [self._schedules.setdefault(each.key, each) for each in found]

    def active_runs_of(self, schedule: Schedule) -> list[Run]:
        """Return the runs of a schedule that have not ended."""
        self.flush()
        found = self.source.active_runs_of(schedule.key)
        return [self._runs.setdefault(run.key, run) for run in found]

    def add_schedule(self, schedule: Schedule) -> None:
        """Add a new schedule."""
        self.edits += 1
        self._schedules[schedule.key] = schedule
        self.changes.new_schedules.append(schedule)

    def touch_schedule(self, schedule: Schedule) -> None:
        """Say that a schedule was edited."""
        self.edits += 1
        self.changes.schedules[schedule.key] = schedule

    def delete_schedule(self, schedule: Schedule) -> None:
        """Remove a schedule with the times of it that have come."""
        self.flush()
        self.edits += 1
        self._schedules.pop(schedule.key, None)
        self.changes.deleted_schedules.append(schedule)
        self.flush()

    def add_fire(self, fire: Fire) -> None:
        """Write down what has come of a schedule's time."""
        self.edits += 1
        self.changes.fires.append(fire)

    # ---- hooks

    def hook(self, namespace: str, public_id: str) -> Hook:
        """Return a hook, locked until the transaction ends.

        Raises:
            NotFound: no such hook there.
        """
        self.flush()
        hook = self.source.hook(public_id)
        if hook is None or hook.namespace != namespace:
            raise NotFound("hook", public_id)
        return hook

    def add_hook(self, hook: Hook) -> None:
        """Add a new hook."""
        self.edits += 1
        self.changes.new_hooks.append(hook)
        self.flush()

    def touch_hook(self, hook: Hook) -> None:
        """Say that a hook was edited."""
        self.edits += 1
        self.changes.hooks[hook.key] = hook

    def delete_hook(self, hook: Hook) -> None:
        """Remove a hook with its deliveries."""
        self.flush()
        self.edits += 1
        self.changes.deleted_hooks.append(hook)
        self.flush()

    def delivery(self, namespace: str, public_id: str) -> Delivery:
        """Return a delivery.

        Raises:
            NotFound: no such delivery there.
        """
        self.flush()
        delivery = self.source.delivery(public_id)
        if delivery is None or delivery.namespace != namespace:
            raise NotFound("delivery", public_id)
        return delivery

    def known_delivery(
        self, hook: Hook, forge_id: str, digest: str, since: Moment
    ) -> Delivery | None:
        """Return a delivery that is the same as a new one; see Source."""
        self.flush()
        return self.source.delivery_like(hook.key, forge_id, digest, since)

    def deliveries_due(self, limit: int) -> list[Delivery]:
        """Return deliveries that are to be looked at."""
        self.flush()
        return self.source.deliveries_due(self.now, limit)

    def add_delivery(self, delivery: Delivery) -> None:
        """Add a new delivery."""
        self.edits += 1
        self.changes.new_deliveries.append(delivery)
        self.effects.deliveries = True

    def touch_delivery(self, delivery: Delivery) -> None:
        """Say that a delivery was edited."""
        self.edits += 1
        self.changes.deliveries[delivery.key] = delivery

    # ---- groups of runs

    def lock_turns(self, namespace: str, group_key: str, limit: int | None = None) -> int:
        """Lock a group of runs until the transaction ends; return how many of it may go on.

        With `limit` that is how many from now on.
        """
        self.flush()
        group = (namespace, f"{RUNS_OF}{group_key}")
        return self.source.lock_groups({group: limit}).get(group, limit or 1)

    def group_runs(self, namespace: str, group_key: str) -> list[Run]:
        """Return the runs of a group that have not ended, the oldest first."""
        self.flush()
        found = self.source.group_runs(namespace, group_key)
        return [self._runs.setdefault(run.key, run) for run in found]

    def active_runs(self, pipeline: Pipeline) -> list[Run]:
        """Return a pipeline's runs that have not ended."""
        self.flush()
        runs = self.source.active_runs(pipeline.key)
        return [self._runs.setdefault(run.key, run) for run in runs]

    def add_run(self, run: Run) -> None:
        """Add a new run."""
        self.edits += 1
        self._runs[run.key] = run
        self.changes.new_runs.append(run)

    def touch_run(self, run: Run) -> None:
        """Say that a run was edited."""
        self.edits += 1
        self.changes.runs[run.key] = run

    # ---- secrets

    def add_secret(self, secret: KeptSecret) -> None:
        """Add a new secret."""
        self.edits += 1
        self.changes.new_secrets.append(secret)
        self.flush()  # so that a later command of the batch reads it

    def touch_secret(self, secret: KeptSecret) -> None:
        """Say that a secret was edited."""
        self.edits += 1
        self.changes.secrets[secret.key] = secret
        self.flush()

    def delete_secret(self, secret: KeptSecret) -> None:
        """Remove a secret."""
        self.edits += 1
        self.changes.deleted_secrets.append(secret)
        self.flush()

    # ---- plugins

    def add_plugin(self, plugin: PublishedPlugin) -> None:
        """Add a new version of a plugin."""
        self.edits += 1
        self.changes.new_plugins.append(plugin)
        self.flush()  # so that a later command of the batch reads it

    def touch_plugin(self, plugin: PublishedPlugin) -> None:
        """Say that a version of a plugin was edited."""
        self.edits += 1
        self.changes.plugins[plugin.key] = plugin
        self.flush()

    # ---- artifacts

    def add_artifact(self, artifact: Artifact) -> None:
        """Add a new artifact."""
        self.edits += 1
        self.changes.new_artifacts.append(artifact)
        self.flush()  # so that a later command of the batch reads it

    def touch_artifact(self, artifact: Artifact) -> None:
        """Say that an artifact was edited."""
        self.edits += 1
        self.changes.artifacts[artifact.key] = artifact
        self.flush()

    def delete_artifact(self, artifact: Artifact) -> None:
        """Remove an artifact's row."""
        self.edits += 1
        self.changes.deleted_artifacts.append(artifact)
        self.flush()

    # ---- tokens

    def add_token(self, token: Token) -> None:
        """Add a new token."""
        self.edits += 1
        self.changes.new_tokens.append(token)
        self.flush()  # so that a later command of the batch reads it

    def touch_token(self, token: Token) -> None:
        """Say that a token was edited."""
        self.edits += 1
        self.changes.tokens[token.key] = token
        self.effects.tokens |= {token.digest, token.public_id}
        self.flush()

    # ---- requests and events

    def request(self, namespace: str, caller: str, request_id: str) -> RequestRecord | None:
        """Return an answered request id that is still remembered."""
        key = (namespace, caller, request_id)
        record = self._requests.get(key) or self.source.request(*key)
        if record is None or record.expires_at > self.now:
            return record
        self._expired[key] = record
        return None

    def add_request(self, record: RequestRecord) -> None:
        """Remember an answered request id."""
        self.edits += 1
        key = (record.namespace, record.caller, record.request_id)
        if key in self._expired:
            self.changes.expired_requests.append(self._expired.pop(key))
        self._requests[key] = record
        self.changes.requests.append(record)

    def add_audit(self, entry: AuditEntry) -> None:
        """Tell who has changed something; nothing asks for it within the transaction."""
        self.changes.audit.append(entry)

    def tell(self, event: Event) -> None:
        """Add an event."""
        self.edits += 1
        self.changes.events.append(event)
        self.events.append(event)
