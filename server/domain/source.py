"""What lies behind a ledger: SQL in the server, dictionaries in tests."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from server.domain.agent import Agent
from server.domain.artifact import Artifact
from server.domain.attempt import Attempt
from server.domain.changes import Changes, ChoreKind, LogChore, RequestRecord
from server.domain.gate import Gate
from server.domain.group import GroupId, Newcomer
from server.domain.hook import Delivery, Hook
from server.domain.kept_secret import KeptSecret
from server.domain.log import LogBlock, LogKey
from server.domain.moment import Moment
from server.domain.pipeline import Pipeline, PipelineVersion
from server.domain.plugin import PublishedPlugin
from server.domain.run import Run
from server.domain.schedule import Fire, Schedule
from server.domain.task import Queue, Task
from server.domain.token import Token


class Source(Protocol):
    """What lies behind a ledger. Every method sees what `save` wrote before in the transaction.

    Reads lock the rows they return until the transaction ends.
    """

    replayed: bool
    """Whether the transaction runs again after a commit whose answer was lost.

    What it did the first time may be stored already; rules that are not safe to repeat look.
    """

    def now(self) -> Moment | None:
        """Return the database's clock where several servers share it, else None."""

    def new_key(self) -> int:
        """Return a key that no row has had."""

    def touch(self) -> None:
        """Write a row as it is."""

    def save(self, changes: Changes) -> None:
        """Write changes. Events get their `position`."""

    def tasks(self, public_ids: Sequence[str]) -> list[Task]:
        """Return the tasks that exist, in key order."""

    def tasks_by_key(self, keys: Sequence[int]) -> list[Task]:
        """Return the tasks that exist, in key order."""

    def tasks_of_run(self, run_key: int) -> list[Task]:
        """Return a run's tasks, in key order."""

    def tasks_leased_to(self, agent_key: int) -> list[Task]:
        """Return the tasks whose current lease the agent holds, in key order."""

    def tasks_due(self, now: Moment, limit: int) -> list[Task]:
        """Return tasks whose `due_at` has come, earliest first."""

    def ready_tasks(
        self, queue: Queue, limit: int, *, only_agent: int | None = None, now: Moment = 0
    ) -> list[Task]:
        """Return a queue's ready tasks in (sort_key, key) order, skipping rows others lock.

        With `only_agent` those that avoid this agent now are left out, so that they do not stand
        in the way of the others.
        """

    def leases_of(self, agent_keys: Sequence[int]) -> dict[int, int]:
        """Return how many leases each agent holds; absent means none."""

    def attempts(self, keys: Sequence[tuple[int, int]]) -> list[Attempt]:
        """Return attempts by (task key, number)."""

    def attempts_due(self, now: Moment, limit: int) -> list[Attempt]:
        """Return attempts whose `log_due` has come, earliest first."""

    def log_heads(
        self, keys: Sequence[LogKey], lines: tuple[int, int] | None = None
    ) -> dict[LogKey, list[LogBlock]]:
        """Return the blocks of logs in order, without their data; absent means there are none.

        With `lines` only those whose first line lies between these two, both included.
        """

    def drop_log(self, key: LogKey, first: int, last: int) -> None:
        """Remove the rows of a log whose first line lies between two, both included."""

    def with_chore(self, kind: ChoreKind, keys: Sequence[LogKey]) -> set[LogKey]:
        """Return those of some logs that still have a chore."""

    def chores_due(self, kind: ChoreKind, now: Moment, limit: int) -> list[LogChore]:
        """Return chores whose time has come, earliest first; others skip them meanwhile."""

    def chore_batch(self, name: str) -> list[LogKey]:
        """Return the logs of a batch that is not done, in order."""

    def claim_chores(
        self, kind: ChoreKind, keys: Sequence[LogKey], name: str, until: Moment
    ) -> None:
        """Put chores into a batch that nobody else looks at until a moment."""

    def renew_chores(self, name: str, due: Moment, until: Moment) -> bool:
        """Leave a batch alone until a later moment; return whether it was there, due at `due`."""

    def end_chores(self, name: str) -> None:
        """Let go of a batch: it is done."""

    def dependents(self, task_keys: Sequence[int]) -> list[tuple[int, int]]:
        """Return (task, task that waits for it) by their keys, the waiting ones ascending."""

    def agent(self, public_id: str) -> Agent | None:
        """Return an agent by its id; ids are unique over all namespaces."""

    def agents_by_key(self, keys: Sequence[int]) -> list[Agent]:
        """Return the agents that exist, in key order."""

    def agents_due(self, now: Moment, limit: int) -> list[Agent]:
        """Return agents whose `due_at` has come, earliest first, skipping rows others lock."""

    def runs_by_key(self, keys: Sequence[int]) -> list[Run]:
        """Return the runs that exist, in key order."""

    def run(self, public_id: str) -> Run | None:
        """Return a run by its id."""

    def schedule(self, public_id: str) -> Schedule | None:
        """Return a schedule."""

    def schedule_by_key(self, key: int) -> Schedule | None:
        """Return a schedule."""

    def schedule_named(self, namespace: str, name: str) -> Schedule | None:
        """Return a schedule."""

    def schedules_of(self, pipeline_key: int) -> list[Schedule]:
        """Return a pipeline's schedules, in key order."""

    def file_schedules(self) -> list[Schedule]:
        """Return the schedules that come from the schedule file, of all namespaces."""

    def schedules_due(self, now: Moment, limit: int) -> list[Schedule]:
        """Return schedules whose `due_at` has come, earliest first, skipping rows others lock."""

    def active_runs_of(self, schedule_key: int) -> list[Run]:
        """Return the runs of a schedule that have not ended, in key order."""

    def fire(self, schedule_key: int, at: Moment) -> Fire | None:
        """Return what has come of a schedule's time."""

    def hook(self, public_id: str) -> Hook | None:
        """Return a hook."""

    def hook_by_key(self, key: int) -> Hook | None:
        """Return a hook."""

    def hooks_of(self, pipeline_key: int) -> list[Hook]:
        """Return a pipeline's hooks, in key order."""

    def delivery(self, public_id: str) -> Delivery | None:
        """Return a delivery."""

    def delivery_like(
        self, hook_key: int, forge_id: str, digest: str, since: Moment
    ) -> Delivery | None:
        """Return a delivery with this id, or with this body since a moment; empty is neither."""

    def deliveries_due(self, now: Moment, limit: int) -> list[Delivery]:
        """Return deliveries whose `due_at` has come, earliest first, skipping rows others lock."""

    def prune_deliveries(self, before: Moment, limit: int) -> list[str]:
        """Forget the oldest deliveries that were done before a moment; return their blobs' names.

        An empty name stands for a body in a row, and for a blob that another delivery shares.
        """

    def links(self, namespace: str) -> list[tuple[str, str]]:
        """Return (name, name of the one whose runs' ends start it) of pipelines."""

    def followers(self, namespace: str, name: str) -> list[Pipeline]:
        """Return the pipelines that the ends of another's runs start, in key order."""

    def group_runs(self, namespace: str, group_key: str) -> list[Run]:
        """Return the runs of a group that have not ended, in key order."""

    def gate(self, key: int) -> Gate | None:
        """Return a gate."""

    def behind(self, gate_key: int) -> list[Task]:
        """Return the tasks behind a gate that have not ended, in key order."""

    def dependencies(self, task_keys: Sequence[int]) -> list[tuple[int, int]]:
        """Return (task, what it waits for or has waited for) by their keys."""

    def pipeline_version(self, pipeline_key: int, number: int) -> PipelineVersion | None:
        """Return a version of a pipeline."""

    def active_runs(self, pipeline_key: int) -> list[Run]:
        """Return a pipeline's runs that have not ended, in key order."""

    def pipeline(self, public_id: str) -> Pipeline | None:
        """Return a pipeline by its id."""

    def pipeline_named(self, namespace: str, name: str) -> Pipeline | None:
        """Return a pipeline by its name."""

    def request(self, namespace: str, caller: str, request_id: str) -> RequestRecord | None:
        """Return an answered request id."""

    def secret(self, namespace: str, name: str) -> KeptSecret | None:
        """Return a secret, locked, or None."""

    def plugin(self, namespace: str, plugin_id: str, version: str) -> PublishedPlugin | None:
        """Return a version of a plugin, locked, or None."""

    def artifact(self, public_id: str) -> Artifact | None:
        """Return an artifact, locked, or None."""

    def artifacts_of(self, task_id: str, attempt: int, grant_id: str) -> list[Artifact]:
        """Return the artifacts of an attempt, or of a grant, in key order."""

    def artifact_bytes(self, namespace: str) -> int:
        """Return how many bytes the artifacts of a namespace have, those on their way out aside."""

    def token(self, public_id: str) -> Token | None:
        """Return a token, locked, or None."""

    def tokens_of(self, agent_id: str) -> list[Token]:
        """Return the credentials of an agent, oldest first, locked."""

    def token_of_digest(self, digest: str) -> Token | None:
        """Return the token of a digest, locked, or None."""

    def lock_groups(self, groups: Mapping[GroupId, int | None]) -> dict[GroupId, int]:
        """Lock groups, in order, until the transaction ends; return how many places each has.

        A number given is from now on that of the group, which is made when it is new. A group
        that a stored task is in exists.
        """

    def places_taken(self, group: GroupId) -> int:
        """Return how many tasks hold a place (see Task.holds_place)."""

    def next_members(self, group: GroupId, limit: int) -> list[Task]:
        """Return tasks that wait for a place (see Task.awaits_place) in (sort_key, key) order.

        Rows that others lock are passed over.
        """

    def newest_canceller(self, group: GroupId) -> Newcomer | None:
        """Return the last submitted of the tasks that wait for a place and cancel older members.

        Its row is not locked.
        """

    def older_members(self, group: GroupId, newcomer: Newcomer, limit: int) -> list[Task]:
        """Return the open tasks submitted before one that no agent was asked to end yet.

        Those at agents come first, then in key order.
        Rows that others lock are passed over.
        """

    def awaited_groups(self, after: GroupId, limit: int) -> list[GroupId]:
        """Return groups in which a task waits for a place, in order, from after one on."""

    def class_known(self, class_key: str) -> bool:
        """Whether the task class is stored."""

    def prunable_tasks(
        self, before: Moment, limit: int, *, without: ChoreKind | None = None
    ) -> list[Task]:
        """Return tasks that ended before a moment, oldest first.

        Left out are those of active runs, those an open task depends on, and those with a log that
        has a chore of the kind `without`.
        """

    def prune_events(self, before: Moment, through: int, limit: int) -> int:
        """Remove the oldest events from before a moment or up to a position; return how many."""

    def prune_audit(self, before: Moment, limit: int) -> int:
        """Remove the oldest entries of the audit log from before a moment; return how many."""

    def prune_runs(self, before: Moment, limit: int) -> int:
        """Remove runs without tasks that ended before a moment; return how many."""

    def prune_groups(self, limit: int) -> int:
        """Remove groups that no task is in; return how many."""

    def prune_fires(self, before: Moment, limit: int) -> int:
        """Forget the oldest times of schedules that came before a moment; return how many."""

    def prune_requests(self, before: Moment, limit: int) -> int:
        """Remove answered request ids that expired before a moment; return how many."""
