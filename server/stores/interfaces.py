"""What the rest of the server asks of its memory.

Two sides. Changes go through `Database.transact`: one synchronous function over a
`domain.ledger.Source`, all or nothing, durable when it returns. Reads go through `Reader`: short,
never locking, each seeing one consistent state that may be a moment old.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from server.domain.agent import Agent
from server.domain.artifact import Artifact
from server.domain.attempt import Attempt, LogState
from server.domain.audit import AuditEntry
from server.domain.event import Event
from server.domain.gate import Gate
from server.domain.hook import Delivery, Hook
from server.domain.kept_secret import KeptSecret
from server.domain.log import LogBlock, LogKey, LogLine
from server.domain.moment import Millis, Moment
from server.domain.pipeline import Pipeline, PipelineVersion
from server.domain.plugin import PublishedPlugin
from server.domain.run import Run
from server.domain.schedule import Fire, Schedule
from server.domain.source import Source
from server.domain.task import Queue, Task
from server.domain.token import Token, TokenKind
from server.domain.waiting import Crowd, RunTurn
from server.stores.log_blocks import PAGE_BYTES

T = TypeVar("T")


class PoisonError(Exception):
    """The database rejected a statement: one command of the batch is bad, nothing was changed."""


class Database(Protocol):
    """Where changes are made durable."""

    async def transact(self, work: Callable[[Source], T]) -> T:
        """Run `work` in one transaction and commit it; it may run more than once.

        Raises:
            StoreUnavailable: the database does not answer, is locked or full; nothing was changed.
            PoisonError: the database rejected a statement; nothing was changed.
        Anything `work` raises comes through, and nothing was changed.
        """


class Hints(Protocol):
    """Word between servers on one database that there is something to read. Never the truth."""

    shared: bool
    """Whether there are other servers at all."""

    def say(self, log_tasks: Iterable[str]) -> None:
        """Tell the others that something was committed, and which logs grew."""

    async def run(self, heard: Callable[[list[str]], None]) -> None:
        """Send what is said and call `heard` with the log tasks others name, until cancelled."""


class NoHints:
    """For a database with one server."""

    shared = False

    def say(self, log_tasks: Iterable[str]) -> None:
        """Tell nobody."""

    async def run(self, heard: Callable[[list[str]], None]) -> None:
        """Hear nobody."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task with what belongs to it."""

    task: Task
    attempts: list[Attempt]
    depends_on: list[tuple[str, str, int]]
    """(id, name, status) of each task it waits for."""
    agent_labels: dict[str, str]
    canonical_class: str
    crowd: Crowd | None = None
    """The concurrency group it is in."""
    gate: Gate | None = None
    """The gate that it waits behind or has passed."""
    turn: RunTurn | None = None
    """What its run waits for, if it does."""


@dataclass(frozen=True, slots=True)
class Order:
    """How a list is sorted: a column by its name, or newest first when empty."""

    by: str = ""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class PageSpec:
    """Which page of a list: by number from 1, or after a key."""

    size: int
    number: int = 1
    after: int | None = None
    order: Order = field(default_factory=Order)


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Which tasks; empty parts match all."""

    namespace: str
    pipeline_id: str = ""
    run_id: str = ""
    status: int = 0
    agent_id: str = ""
    task_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries of the audit log; empty parts match all."""

    namespace: str
    since: Moment = 0
    caller: str = ""
    subject: str = ""
    action: str = ""
    """The action, or with a dot at its end the beginning of one."""
    before: int | None = None
    """Only older ones than the entry with this key."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; empty parts match all."""

    namespace: str
    pipeline_ids: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentStanding:
    """An agent and how many tasks it runs."""

    agent: Agent
    running: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The ready tasks of a queue."""

    tasks: int
    oldest: Moment
    """Since when one of them is ready."""


@dataclass(frozen=True, slots=True)
class GroupWaits:
    """Who waits for places in concurrency groups."""

    tasks: int
    groups: int
    """In how many groups they wait."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list."""

    items: list[T]
    total: int
    next_after: int | None
    """Key to go on after, or None on the last page."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Consecutive lines of one attempt's log."""

    attempt: int
    """0 when the task has had no attempt yet."""
    first_line: int
    lines: list[LogLine]
    total: int
    state: LogState
    task_ended: bool
    last_attempt: int
    """The latest attempt there is."""
    given_up: bool
    """Whether the attempt was lost or handed back: its log may never be closed."""
    omitted_from: int = 0
    """The first of the lines that are not kept, where `lines` is the one that stands for them."""
    key: LogKey | None = None
    """What `more_of_log` finds it by; None when only `log` does."""


RowPlace: TypeAlias = tuple[int, int, int]
"""A row of a log: its task's key, the attempt and the first line."""


@dataclass(frozen=True, slots=True)
class StoredLog:
    """A log of a task that has ended, of which something is kept."""

    key: LogKey
    ended_at: Moment
    bytes: int
    """As it is stored, packed."""


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A line of one attempt's log, which may be the one after the last."""

    attempt: int
    """0 when the task has had no attempt yet."""
    line: int


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that was live when last written."""

    agent_id: str
    session_id: str
    last_seen: Moment
    lease: Millis


@dataclass(slots=True)
class JournalEntry:
    """Where a block lies in the journal; `block` is without its data."""

    key: LogKey
    block: LogBlock
    file: int
    offset: int
    """Where the data begins."""
    size: int
    fresh: bytes = b""
    """The data, while it is among the newest."""


class Journal(Protocol):
    """Blocks of logs that were acknowledged and are kept nowhere else yet. For one server.

    It is used on the loop only.
    """

    def append(self, key: LogKey, blocks: Sequence[LogBlock]) -> "asyncio.Future[None]":
        """Return a future that is done when these blocks are durable.

        It raises StoreUnavailable when they are not; then whatever was appended after them is not
        either, so that a log never has a hole.

        Raises:
            Draining: the server stops.
        """

    def logs(self) -> list[LogKey]:
        """Return the logs that have blocks here."""

    def last_line(self, key: LogKey) -> int:
        """Return the last line of a log that is durable here, 0 for none."""

    def bytes_of(self, key: LogKey) -> int:
        """Return how many bytes a log has here."""

    @property
    def size(self) -> int:
        """Bytes on the disk."""

    def oldest(self) -> list[LogKey]:
        """Return the logs that keep the oldest file from being deleted."""

    async def load(self, entry: JournalEntry) -> bytes:
        """Return the data of an entry's block; less where its file ends before.

        Raises:
            FileNotFoundError: the block is kept elsewhere by now, or deleted.
            BlockUnreadable: it cannot be read now, and perhaps never will be.
            StoreUnavailable: it cannot be read now.
        """

    def give_up(self, entry: JournalEntry) -> None:
        """Count a block as lost; its file is kept for people, whatever else becomes of it."""

    async def tidy(self) -> None:
        """Delete files that nothing needs."""

    def entries(self, key: LogKey, first_line: int = 1) -> list[JournalEntry]:
        """Return a log's blocks that hold lines from a line on, in order."""

    def forget(self, key: LogKey, through: int | None = None) -> None:
        """Let go of a log's blocks up to a line, or of all: they are kept elsewhere, or deleted."""


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes of a disk."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part of a file that a store has."""

    number: int
    etag: str
    size: int


class ObjectStore(Protocol):
    """Where files of any size live, handed in in parts, by names like paths.

    Every method raises StoreUnavailable when the store refuses or does not answer.
    """

    verifies: bool
    """Whether it is cheap to read a file again and see that it is what it should be."""

    async def begin(self, name: str) -> str:
        """Begin to take a file; return the upload's name, under which its parts are put."""

    async def parts(self, name: str, upload: str) -> list[StoredPart] | None:
        """Return the parts that are there, None where there is no such upload (any more).

        A part that was put again may be listed as it was before as well.
        """

    async def part_url(self, name: str, upload: str, number: int, seconds: int) -> str:
        """Return where a part is put; empty where the server's own door takes it."""

    async def complete(self, name: str, upload: str, parts: Sequence[StoredPart]) -> bool:
        """Make a file of its parts; return whether there was such an upload."""

    async def abort(self, name: str) -> None:
        """Give up every upload of a file."""

    async def put_empty(self, name: str) -> None:
        """Store a file of no bytes."""

    async def size(self, name: str) -> int | None:
        """Return how many bytes a file has, None where there is none."""

    async def sha256(self, name: str) -> str:
        """Return the digest of a file's bytes, in hex; empty where there is none."""

    async def url(self, name: str, filename: str, seconds: int) -> str:
        """Return where anybody can fetch it for so long; empty where the server's door gives it."""

    async def delete(self, name: str) -> None:
        """Remove a file, if it is there."""


@runtime_checkable
class OwnDoor(Protocol):
    """An ObjectStore whose parts and files pass through the server's HTTP door."""

    async def put_part(
        self, upload: str, number: int, offset: int, size: int, pieces: AsyncIterator[bytes]
    ) -> str:
        """Write a part at its place; return its etag. It is durable when this returns.

        Raises:
            FileNotFoundError: there is no such upload (any more).
            ValueError: it has another size.
            StoreUnavailable: the disk takes no more.
        """

    def path(self, name: str) -> Path:
        """Return where a file lies."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a store takes for a while from somebody who may put objects into one folder."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expires_at: Moment
    endpoint: str
    """The store's URL; empty for Amazon's own."""
    region: str
    bucket: str
    folder: str
    """What the keys of the objects begin with; it ends with `/`."""


@runtime_checkable
class Lender(Protocol):
    """An ObjectStore that others put objects into by themselves, each into a folder.

    Every method raises StoreUnavailable when the store refuses or does not answer.
    """

    lends: bool
    """Whether it has been told how."""

    async def lend(self, folder: str, borrower: str, seconds: int) -> Credentials:
        """Return credentials with which objects can be put into a folder, and nothing else done.

        The store's own log names the borrower.
        """

    async def take(self, source: str, name: str) -> None:
        """Make a file of what somebody put; what they put later does not change it."""

    async def delete_older(self, folder: str, before: Moment) -> int:
        """Delete what was put into a folder, at any depth, before that; return how many it were."""


class HomeKind(Enum):
    """Which kind of home plugins have."""

    SERVER = 1
    STORAGE = 2
    REGISTRY = 3


class BlobStore(Protocol):
    """Where large things live that never change, by names like paths."""

    async def take(self, database_id: str) -> bool:
        """Let the place be a database's, unless it is another's; return whether it is.

        Raises:
            OSError: it cannot be read or written.
            StoreUnavailable: the store does not answer.
        """

    async def put(self, name: str, data: bytes) -> None:
        """Store a blob; it is durable and whole when this returns.

        Raises:
            StoreUnavailable: it is not stored.
        """

    async def get(self, name: str, offset: int, size: int) -> bytes:
        """Return a part of a blob; less, or nothing, where it is not there.

        Raises:
            StoreUnavailable: it cannot be read now.
        """

    async def names(self, prefix: str) -> list[str]:
        """Return the names that begin so, in order."""

    async def delete(self, name: str) -> None:
        """Remove a blob, if it is there."""

    async def room(self) -> Room | None:
        """Return what room there is, None where nobody can say."""


class PluginHome(Protocol):
    """Where packages of plugins live, by the SHA-256 of their bytes."""

    kind: HomeKind

    async def put(self, sha256: str, package: Path) -> None:
        """Store a package; it is durable and whole when this returns.

        Raises:
            StoreUnavailable: it is not stored.
        """

    async def fetch(self, sha256: str, target: Path) -> bool:
        """Write a package into a file; return whether there is one.

        What is written has to be checked: not every home notices that somebody changed it.

        Raises:
            StoreUnavailable: it cannot be read now.
            DamagedPlugin: the home itself sees that it gives other bytes.
            OSError: it cannot be written.
        """

    async def url(self, sha256: str, seconds: int) -> str:
        """Return where anybody can fetch it for so long; empty where only the server can."""


class Reader(Protocol):
    """Short reads.

    Every method raises StoreUnavailable when the database does not answer. Those that name one
    thing raise NotFound when the namespace has no such thing.
    """

    async def task(self, namespace: str, task_id: str) -> TaskView:
        """Return one task."""

    async def tasks(self, wanted: TaskFilter, page: PageSpec) -> Page[Task]:
        """Return a page of tasks; `Order.by` is a column of Task."""

    async def tasks_with_position(self, wanted: TaskFilter, limit: int) -> tuple[list[Task], int]:
        """Return tasks and the position of the last event they reflect."""

    async def log(
        self,
        namespace: str,
        task_id: str,
        attempt: int,
        first_line: int,
        limit: int,
        size: int = PAGE_BYTES,
    ) -> LogPage:
        """Return up to `limit` stored lines from `first_line` on; attempt 0 is the latest.

        Their text has at most `size` bytes, unless the first line alone has more.

        Raises:
            DamagedLog: what is stored from there on is not what was stored.
        """

    async def more_of_log(self, page: LogPage, first_line: int, limit: int) -> LogPage:
        """Return more lines of a log of which nothing but its length has changed since `page`.

        Raises:
            DamagedLog: what is stored from there on is not what was stored.
        """

    async def log_place(
        self, namespace: str, task_id: str, attempt: int, tail: int, since: Moment
    ) -> LogPlace:
        """Return where a log's last `tail` lines begin, or its lines since a moment.

        Of both, whichever begins later; 0 asks for neither. Attempt 0 is the latest.

        Raises:
            DamagedLog: what is stored of that moment is not what was stored.
        """

    async def ended_logs(
        self, after: Moment, before: Moment, limit: int, namespace: str = ""
    ) -> list[StoredLog]:
        """Return logs of up to `limit` tasks that ended between two moments, oldest first.

        The first moment is included. Logs of which nothing is kept are left out.
        """

    async def log_bytes_by_namespace(self) -> dict[str, int]:
        """Return how many bytes each namespace's logs have, as they are stored."""

    async def stored_log_bytes(self) -> int:
        """Return how many bytes all logs have, as they are stored; not those in the journal."""

    async def blocks_in_rows(
        self, keys: Sequence[LogKey], after: RowPlace, size: int
    ) -> list[tuple[LogKey, list[LogBlock]]]:
        """Return consecutive blocks of logs whose data lies in rows, from behind a place on.

        In order, as many as have about so many bytes, one at least; none when there are no more.
        """

    async def used_blobs(self, names: Sequence[str]) -> set[str]:
        """Return those of some blobs that hold parts of logs."""

    async def waiting_tasks(self, namespace: str, limit: int) -> int:
        """Return how many tasks of a namespace are ready, so many at most."""

    async def audit(self, wanted: AuditFilter, limit: int) -> list[AuditEntry]:
        """Return entries of the audit log, the newest first."""

    async def secrets(self, namespace: str, names: Sequence[str] | None = None) -> list[KeptSecret]:
        """Return a namespace's secrets by name; only those of these names where some are given."""

    async def plugins(
        self, namespace: str, plugin_ids: Sequence[str] | None = None
    ) -> list[PublishedPlugin]:
        """Return a namespace's published plugins by id and age; only these where some are given."""

    async def artifact(self, namespace: str, public_id: str) -> Artifact:
        """Return an artifact that is listed.

        Raises:
            NotFound: there is none.
        """

    async def unstored_artifact(self, namespace: str, public_id: str) -> Artifact:
        """Return an artifact, stored or not yet.

        Raises:
            NotFound: there is none.
        """

    async def artifacts(
        self,
        namespace: str,
        *,
        task_id: str = "",
        run_id: str = "",
        after: int = 0,
        limit: int | None = None,
    ) -> list[Artifact]:
        """Return the listed artifacts of a task, of a run, or of a namespace, by age.

        They begin behind the key `after`.
        """

    async def uploaded_bytes(self, namespace: str) -> Mapping[str, int]:
        """Return by grant how many bytes were handed in, or have begun to be."""

    async def artifacts_due(self, now: Moment, limit: int) -> list[Artifact]:
        """Return artifacts of any namespace that are to be given up, or deleted."""

    async def orphaned_artifacts(self, limit: int) -> list[Artifact]:
        """Return artifacts of any namespace whose task is not kept any more."""

    async def sealed_not_under(self, kek: str, after: int, limit: int) -> list[Task]:
        """Return open tasks behind a key whose own secrets are under other keys, in key order."""

    async def secrets_not_under(self, kek: str, after: int, limit: int) -> list[KeptSecret]:
        """Return secrets that another key encrypts, by key from behind `after`."""

    async def token(self, digest: str) -> Token | None:
        """Return the token of a digest, or None."""

    async def token_named(self, public_id: str) -> Token | None:
        """Return a token by its id, or None."""

    async def tokens(self, namespaces: Sequence[str], kind: TokenKind) -> list[Token]:
        """Return the tokens of a kind that count in one of these namespaces, oldest first."""

    async def pipeline(self, namespace: str, pipeline_id: str) -> Pipeline:
        """Return one pipeline."""

    async def pipeline_version(self, pipeline: Pipeline, number: int) -> PipelineVersion:
        """Return a version of a pipeline.

        Raises:
            NotFound: it has no such version.
        """

    async def pipeline_versions(
        self, pipeline: Pipeline, first: int, last: int
    ) -> list[PipelineVersion]:
        """Return the versions of a pipeline from one number to another, the newest first."""

    async def pipelines(
        self, namespace: str, status: int, name: str, page: PageSpec
    ) -> Page[Pipeline]:
        """Return a page of pipelines."""

    async def run_counts(self, pipeline_keys: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return how many runs of each pipeline ended well, and how many FAILED."""

    async def schedule(self, namespace: str, schedule_id: str) -> Schedule:
        """Return a schedule.

        Raises:
            NotFound: no such schedule there.
        """

    async def schedules(self, namespace: str, pipeline_id: str, name: str) -> list[Schedule]:
        """Return schedules by name, at most 1000; a filter that is empty takes all."""

    async def fires(self, schedule: Schedule, limit: int) -> list[Fire]:
        """Return the last times of a schedule that have come, newest first."""

    async def hooks(self, namespace: str, pipeline_id: str) -> list[Hook]:
        """Return the hooks of a pipeline that was not deleted; without one, of a namespace."""

    async def pipeline_called(self, namespace: str, reference: str) -> Pipeline:
        """Return a pipeline by its id, in whatever namespace, or by its name in this one.

        Raises:
            NotFound: there is none.
        """

    async def deliveries(
        self, namespace: str, pipeline_id: str, after: int, limit: int
    ) -> list[Delivery]:
        """Return deliveries, without bodies, newest first; `after` 0 begins with the newest."""

    async def delivery(self, namespace: str, delivery_id: str) -> Delivery:
        """Return a delivery.

        Raises:
            NotFound: no such delivery there.
        """

    async def next_fires(self, pipeline_keys: Sequence[int]) -> dict[int, Moment]:
        """Return when each pipeline is started next by a schedule, by its key; absent is never."""

    async def last_runs(self, pipeline_keys: Sequence[int]) -> dict[int, Run]:
        """Return the latest run of each pipeline that has one, by the pipeline's key."""

    async def run(self, namespace: str, run_id: str) -> tuple[Run, str, list[Task]]:
        """Return one run with its pipeline's name and its tasks in order."""

    async def dependencies_of_run(self, run_key: int) -> list[tuple[int, int]]:
        """Return pairs (task key, key it waits for) of a run's tasks."""

    async def runs_with_position(
        self, wanted: RunFilter, limit: int
    ) -> tuple[list[tuple[Run, str]], int]:
        """Return runs with their pipelines' names, and the position of the last event they reflect.

        Those named, or else those that are active; oldest first.
        """

    async def runs(
        self, namespace: str, pipeline_id: str, status: int, page: PageSpec
    ) -> Page[tuple[Run, str]]:
        """Return a page of runs, each with its pipeline's name."""

    async def agent(self, namespace: str, agent_id: str) -> tuple[Agent, list[str]]:
        """Return one agent and the ids of the tasks it holds (at most 1000)."""

    async def agents(self, namespace: str) -> list[tuple[Agent, int]]:
        """Return every agent with the number of leases it holds, by id."""

    async def agents_with_position(
        self, namespace: str, agent_ids: Sequence[str]
    ) -> tuple[list[AgentStanding], int]:
        """Return agents (all without ids) and the position of the last event they reflect."""

    async def connected_agents(self) -> list[tuple[Agent, int]]:
        """Return the agents of all namespaces with a live session and their leases, by id."""

    async def ready_before(self, task: Task, limit: int) -> list[tuple[str, int, int]]:
        """Return how many ready tasks stand before this one, by the canonical text of their class.

        Each with how many of its own namespace come before it, and how many ready ones the other
        namespaces have, which take turns with it; both up to `limit`. Classes without any are left
        out.
        """

    async def measured(self) -> dict[str, dict[str, Any]]:
        """Return the latest measurements of every connected agent that has sent some, by its id."""

    async def events(self, after: int, limit: int) -> list[Event]:
        """Return events of all namespaces after a position, in order.

        Positions have no holes: a page that does not begin right after `after` shows that what was
        there is not kept any more.
        """

    async def oldest_cursor(self) -> int:
        """Return the position before the oldest event that is kept: what a reader of all takes."""

    async def database_id(self) -> str:
        """Return the name that the database has for good, and no other."""

    async def last_position(self) -> int:
        """Return the position of the last event, 0 when there is none."""

    async def live_sessions(self) -> list[LiveSession]:
        """Return the sessions that were live when last written."""

    async def ready_queues(self) -> dict[Queue, str]:
        """Return every queue that has a ready task, with its class's canonical text."""

    async def backlogs(
        self, queues: Sequence[Queue], limit: int, oldest_among: int
    ) -> dict[Queue, Backlog]:
        """Return how much waits in queues; one without a ready task is left out.

        Tasks are counted up to `limit`; the oldest is sought among the first in line.
        """

    async def group_waits(self, limit: int) -> GroupWaits:
        """Return who waits in all concurrency groups; each is counted up to a limit."""

    async def class_text(self, class_keys: Sequence[str]) -> dict[str, str]:
        """Return the canonical text of task classes."""

    async def next_due(self) -> Moment | None:
        """Return when the timers must look next, or None."""

    async def ended_tasks_beyond(self, count: int) -> Moment | None:
        """Return when the newest ended task ended that is beyond the newest `count`, or None."""

    async def ping(self) -> None:
        """Return when the database answers."""
