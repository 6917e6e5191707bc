"""What a pipeline file says, as records; each knows its path in the file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.domain.labels import Selector

ANY_AGENT = Selector()


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Starts a run when a branch moves."""

    path: str = ""
    branches: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    condition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """Starts a run when a tag is made."""

    path: str = ""
    tags: tuple[str, ...] = ()
    condition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PullRequest:
    """Starts a run when a pull request is opened, updated or closed."""

    path: str = ""
    actions: tuple[str, ...] = ("opened", "updated")
    branches: tuple[str, ...] = ()
    """Globs of the branch it is to go into."""
    paths: tuple[str, ...] = ()
    condition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """Starts a run when the clock strikes."""

    path: str = ""
    schedule: str
    zone: str = "UTC"
    jitter: int = 0
    start: str = ""
    end: str = ""
    catch_up: str = "last"
    catch_up_window: int = 86_400
    catch_up_limit: int = 10
    overlap: str = "skip"
    branch: str = ""
    inputs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Starts a run when something else than a forge calls."""

    path: str = ""
    condition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manual:
    """Lets people and programs start a run."""

    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterPipeline:
    """Starts a run when another pipeline's run has ended."""

    path: str = ""
    name: str
    statuses: tuple[str, ...] = ("success",)
    branches: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggers:
    """What starts runs; a file that says nothing is started by hand."""

    path: str = ""
    push: Push | None = None
    tag: Tag | None = None
    pull_request: PullRequest | None = None
    cron: tuple[Cron, ...] = ()
    webhook: Webhook | None = None
    manual: Manual | None = None
    pipeline: tuple[AfterPipeline, ...] = ()

    def names(self) -> list[str]:
        """Return the names of the triggers there are, as the file writes them."""
        kinds = ("push", "tag", "pull_request", "cron", "webhook", "manual", "pipeline")
        return [kind for kind in kinds if getattr(self, kind)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A value that whoever starts a run may give."""

    path: str = ""
    type: str = "string"
    description: str = ""
    default: object = None
    required: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """A group of which only so many run at once."""

    path: str = ""
    group: str
    limit: int = 1
    cancel_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """One job for each combination of values."""

    path: str = ""
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    include: tuple[Mapping[str, str], ...] = ()
    exclude: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """Files that are kept after the job."""

    path: str = ""
    files: tuple[str, ...]
    name: str = ""
    keep: int = 0
    """Seconds; 0 is as long as the server keeps them."""
    on_failure: bool = False
    archive: bool = False
    dot_files: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Files of an earlier job that lie in the workspace before the job starts."""

    path: str = ""
    job: str
    name: str = ""
    into: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Somebody has to say yes before what follows."""

    path: str = ""
    who: tuple[str, ...]
    timeout: int = 0
    """Seconds; 0 waits for ever."""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part of a job: commands, or a plugin."""

    path: str = ""
    name: str = ""
    commands: tuple[str, ...] = ()
    uses: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What jobs take that do not say it themselves."""

    path: str = ""
    image: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    selector: str = ""
    timeout: int = 0
    retry: int = 0
    priority: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job as its author wrote it. Times are seconds; None is what the defaults say."""

    path: str = ""
    name: str
    condition: str = ""
    image: str | None = None
    labels: Mapping[str, str] | None = None
    selector: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    approval: Approval | None = None
    matrix: Matrix | None = None
    needs: tuple[str, ...] = ()
    timeout: int | None = None
    retry: int | None = None
    allow_failure: bool = False
    priority: int | None = None
    artifacts: Artifacts | None = None
    take: tuple[Take, ...] = ()
    checkout: bool = True
    keep_workspace: bool = False
    concurrency: Concurrency | None = None
    outputs: tuple[str, ...] = ()

    def plugins(self) -> list[Step]:
        """Return the steps that are plugins."""
        return [step for step in self.steps if step.uses]

    def script(self) -> tuple[str, ...]:
        """Return every command in order."""
        return self.commands + tuple(line for step in self.steps for line in step.commands)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Jobs that start together or one after another."""

    path: str = ""
    name: str
    jobs: tuple[Job, ...] = ()
    parallel: bool = False
    condition: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineFile:
    """A whole pipeline file."""

    path: str = ""
    name: str
    description: str = ""
    repo_url: str = ""
    branch: str = "main"
    triggers: Triggers = field(default_factory=lambda: Triggers(path="on", manual=Manual()))
    inputs: Mapping[str, Input] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    defaults: Defaults = field(default_factory=Defaults)
    concurrency: Concurrency | None = None
    stages: tuple[Stage, ...] = ()

    def jobs(self) -> Iterator[tuple[Stage, Job]]:
        """Yield every job with its stage."""
        for stage in self.stages:
            for job in stage.jobs:
                yield stage, job

    def image_of(self, job: Job) -> str:
        """Return the image a job runs in, or nothing."""
        return self.defaults.image if job.image is None else job.image

    def labels_of(self, job: Job) -> Mapping[str, str]:
        """Return the labels an agent needs for a job."""
        return self.defaults.labels if job.labels is None else job.labels

    def selector_of(self, job: Job) -> str:
        """Return the selector an agent has to fit for a job, as text."""
        return self.defaults.selector if job.selector is None else job.selector

    def timeout_of(self, job: Job) -> int:
        """Return how long a job may run in seconds; 0 is the server's default."""
        return self.defaults.timeout if job.timeout is None else job.timeout

    def retry_of(self, job: Job) -> int:
        """Return how often a job is tried again."""
        return self.defaults.retry if job.retry is None else job.retry

    def priority_of(self, job: Job) -> int | None:
        """Return how urgent a job is, or None for the usual."""
        return self.defaults.priority if job.priority is None else job.priority
