"""A pipeline's definition: stages of jobs, checked, and planned into the tasks of a run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

from server.domain.checks import Checks
from server.domain.dag import find_cycle
from server.domain.gate import PAIRS_WITHOUT
from server.domain.group import Membership
from server.domain.labels import Selector, check_selector
from server.domain.moment import Moment
from server.domain.plugin import Reference
from server.domain.priority import PRIORITY_HIGHEST
from server.domain.task import ArtifactSpec, ArtifactUse

JOB_LIMIT = 10_000
STEP_LIMIT = 100
SETTINGS_LIMIT = 64 * 1024
"""Characters of what a plugin is given, as JSON."""

RETRY_LIMIT = 100
TIMEOUT_DEFAULT = 3600
TIMEOUT_LIMIT = 365 * 24 * 3600
INPUT_TYPES = ("string", "integer", "number", "boolean", "choice")


@dataclass(frozen=True, slots=True)
class Step:
    """One part of a job that has a plugin among its parts: commands, or a plugin."""

    name: str = ""
    commands: tuple[str, ...] = ()
    uses: str = ""
    """A plugin, as id@version."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the plugin is given, as JSON values."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A question to people; what waits for the job waits for their answer."""

    who: tuple[str, ...]
    """Users and roles that may answer."""
    timeout: int = 0
    """Seconds until nobody's answer is waited for any more; 0 waits for ever."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Input:
    """A value that whoever starts a run may give."""

    name: str
    type: str = "string"
    """One of INPUT_TYPES."""
    description: str = ""
    default: Any = None
    """A JSON value of the type, or None."""
    required: bool = False
    options: tuple[str, ...] = ()
    """What a choice may be."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as its author wrote it. Times are seconds.

    A matrix is spread out already: each of its cells is a job.
    """

    name: str
    commands: tuple[str, ...] = ()
    image: str = ""
    env: dict[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    timeout: int = 0
    retry: int = 0
    selector: Selector = field(default_factory=lambda: Selector((), ()))
    allow_failure: bool = False
    priority: int | None = None
    """None is the usual one, and is shown as not given."""
    secret_refs: dict[str, str] = field(default_factory=dict)
    """Variables, each with the name of the secret that it gets."""
    condition: str = ""
    """In CEL; empty is `success()`. See `server.domain.expression`."""
    after_failure: bool = False
    """Whether the condition is asked although a job that it waits for did not succeed."""
    matrix: dict[str, str] = field(default_factory=dict)
    """The cell of the matrix that it is."""
    base: str = ""
    """What it is called in the file when a matrix makes several of it, else empty."""
    group: Membership | None = None
    outputs: tuple[str, ...] = ()
    """Names of the values that it tells later jobs."""
    approval: Approval | None = None
    """Makes it a question; then it has no commands."""
    artifacts: tuple[ArtifactSpec, ...] = ()
    steps: tuple[Step, ...] = ()
    """Only when a plugin is among them; then it has no commands of its own."""
    inputs: tuple[ArtifactUse, ...] = ()
    """Files of earlier jobs that lie in the workspace before it starts."""
    checkout: bool = True
    """Whether the repository, where there is one, is checked out first."""
    keep_workspace: bool = False
    """Whether the workspace is kept on the agent after the end."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Jobs that start together or one after another."""

    name: str
    jobs: tuple[Job, ...]
    parallel: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """What every run of a pipeline does."""

    stages: tuple[Stage, ...]
    env: dict[str, str] = field(default_factory=dict)
    repo_url: str = ""
    branch: str = "main"
    inputs: tuple[Input, ...] = ()
    triggers: dict[str, Any] = field(default_factory=dict)
    """What starts runs, as JSON values; whoever watches for it reads it."""
    group: Membership | None = None
    """Of which only so many runs go on at once."""

    def jobs(self) -> Iterator[tuple[int, Stage, Job]]:
        """Yield every job with its stage's number (from 1) and its stage."""
        for number, stage in enumerate(self.stages, 1):
            for job in stage.jobs:
                yield number, stage, job

    def to_json(self) -> str:
        """Return the definition as JSON."""
        data = asdict(self)
        for stage, stage_data in zip(self.stages, data["stages"], strict=True):
            for job, job_data in zip(stage.jobs, stage_data["jobs"], strict=True):
                job_data["selector"] = job.selector.canonical()
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Definition":
        """Return the definition that `to_json` wrote."""
        data = json.loads(text)
        return Definition(
            stages=tuple(_stage(stage) for stage in data["stages"]),
            env=data["env"],
            repo_url=data["repo_url"],
            branch=data["branch"],
            inputs=tuple(
                Input(**{**each, "options": tuple(each["options"])})
                for each in data.get("inputs", ())
            ),
            triggers=data.get("triggers", {}),
            group=_group(data.get("group")),
        )


def _stage(data: Mapping[str, Any]) -> Stage:
    return Stage(data["name"], tuple(map(_job, data["jobs"])), data["parallel"])


def _job(data: Mapping[str, Any]) -> Job:
    fields = dict(data)
    fields["commands"] = tuple(fields["commands"])
    fields["depends_on"] = tuple(fields["depends_on"])
    fields["selector"] = Selector.from_canonical(fields["selector"])
    fields["group"] = _group(fields.get("group"))
    fields["outputs"] = tuple(fields.get("outputs", ()))
    approval = fields.get("approval")
    if approval is not None:
        fields["approval"] = Approval(**{**approval, "who": tuple(approval["who"])})
    fields["artifacts"] = tuple(ArtifactSpec(**each) for each in fields.get("artifacts", ()))
    fields["inputs"] = tuple(ArtifactUse(**each) for each in fields.get("inputs", ()))
    fields["steps"] = tuple(
        Step(**{**each, "commands": tuple(each["commands"])}) for each in fields.get("steps", ())
    )
    return Job(**fields)


def _group(data: Mapping[str, Any] | None) -> Membership | None:
    return None if data is None else Membership(**data)


@dataclass(slots=True)
class Pipeline:
    """A pipeline's row."""

    key: int
    namespace: str
    public_id: str
    name: str
    definition: str
    """`Definition` as JSON."""
    created_at: Moment
    updated_at: Moment
    description: str = ""
    trigger_type: int = 1
    cron: str = ""
    created_by: str = ""
    runs: int = 0
    """Runs so far; the last one's number."""
    last_status: int = 1
    """`RunStatus` of the last run; PENDING before the first."""
    version: int = 1
    """Number of the definition it has now."""
    deleted_at: Moment | None = None
    """When it was deleted; its row stays as long as there are runs of it."""


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """What a pipeline's definition has been; never changed."""

    pipeline_key: int
    number: int
    """From 1 in each pipeline."""
    namespace: str
    definition: str
    """`Definition` as JSON."""
    source: str
    """The file it was read from, or empty."""
    created_at: Moment
    created_by: str


def check_definition(checks: Checks, definition: Definition) -> None:
    """Note every malformed field of a definition, by its path in CreatePipelineRequest."""
    if sum(len(stage.jobs) for stage in definition.stages) > JOB_LIMIT:
        checks.fail("stages", f"must have at most {JOB_LIMIT} jobs in all")
    check_jobs(checks, definition)


def check_jobs(checks: Checks, definition: Definition, known: frozenset[str] = frozenset()) -> None:
    """Note every malformed stage and job; `known` are jobs that are there already."""
    if not definition.stages:
        checks.fail("stages", "must have at least one stage")
    checks.environment("env", definition.env)
    _check_unique(checks, definition, known)
    for index, stage in enumerate(definition.stages):
        checks.name(f"stages[{index}].name", stage.name)
        if not stage.jobs:
            checks.fail(f"stages[{index}].jobs", "must have at least one job")
        for number, job in enumerate(stage.jobs):
            _check_job(checks, f"stages[{index}].jobs[{number}]", job, definition.env)
    if not checks.violations:
        _check_needs(checks, definition, known)


def _check_unique(checks: Checks, definition: Definition, known: frozenset[str]) -> None:
    stages: set[str] = set()
    jobs: set[str] = set(known)
    for index, stage in enumerate(definition.stages):
        if stage.name in stages:
            checks.fail(f"stages[{index}].name", f"{stage.name!r} names an earlier stage")
        stages.add(stage.name)
        for number, job in enumerate(stage.jobs):
            if job.name in jobs:
                path = f"stages[{index}].jobs[{number}].name"
                checks.fail(path, f"{job.name!r} names an earlier job")
            jobs.add(job.name)


def _check_job(checks: Checks, path: str, job: Job, env: dict[str, str]) -> None:
    checks.name(f"{path}.name", job.name)
    if job.approval is None and not job.steps:
        checks.script(f"{path}.commands", job.commands)
    checks.environment(f"{path}.env", job.env)
    checks.load(f"{path}.commands", job.commands, env | job.env)
    checks.text(f"{path}.image", job.image, 1024)
    checks.number(f"{path}.timeout", job.timeout, 0, TIMEOUT_LIMIT)
    checks.number(f"{path}.retry", job.retry, 0, RETRY_LIMIT)
    checks.number(f"{path}.priority", job.priority or 0, 0, PRIORITY_HIGHEST)
    checks.extend(check_selector(job.selector, f"{path}.label_selector"))
    if job.group is not None:
        job.group.check(checks, f"{path}.concurrency")
    if job.approval is not None:
        _check_approval(checks, f"{path}.approval", job.approval)
    for number, use in enumerate(job.inputs):
        checks.name(f"{path}.inputs[{number}].job", use.job)
        checks.text(f"{path}.inputs[{number}].path", use.path, 1024)
        checks.relative_path(f"{path}.inputs[{number}].path", use.path)
    checks.number(f"{path}.steps", len(job.steps), 0, STEP_LIMIT)
    for number, step in enumerate(job.steps[:STEP_LIMIT]):
        _check_step(checks, f"{path}.steps[{number}]", step)


def _check_step(checks: Checks, path: str, step: Step) -> None:
    checks.name(f"{path}.name", step.name, required=False)
    if bool(step.uses) == bool(step.commands):
        checks.fail(path, "must have commands, or uses with a plugin")
    elif step.uses:
        if Reference.parse(step.uses) is None:
            text = "must be a plugin such as git-checkout, git-checkout@1 or git-checkout@1.2.0"
            checks.fail(f"{path}.uses", text)
        if len(json.dumps(step.settings)) > SETTINGS_LIMIT:
            checks.fail(f"{path}.settings", f"must have at most {SETTINGS_LIMIT} characters")
    else:
        checks.script(f"{path}.commands", step.commands)


def _check_approval(checks: Checks, path: str, approval: Approval) -> None:
    if not approval.who:
        checks.fail(f"{path}.who", "must name at least one user or role")
    for number, name in enumerate(approval.who):
        checks.name(f"{path}.who[{number}]", name)
    checks.number(f"{path}.timeout", approval.timeout, 0, TIMEOUT_LIMIT)
    checks.text(f"{path}.message", approval.message, 1024)


def _check_needs(checks: Checks, definition: Definition, known: frozenset[str]) -> None:
    stage_of = dict.fromkeys(known, 0)
    stage_of.update((job.name, number) for number, _, job in definition.jobs())
    for index, stage in enumerate(definition.stages):
        for number, job in enumerate(stage.jobs):
            for place, name in enumerate(job.depends_on):
                path = f"stages[{index}].jobs[{number}].depends_on[{place}]"
                if name not in stage_of:
                    checks.fail(path, f"there is no job {name!r}")
                elif stage_of[name] > index + 1:
                    checks.fail(path, f"job {name!r} is in a later stage")
    if not checks.violations and (cycle := find_cycle(order_of(definition).needs)):
        checks.fail("stages", "jobs wait for each other: " + " → ".join(cycle))


@dataclass(frozen=True, slots=True)
class Order:
    """Which job waits for which."""

    needs: dict[str, list[str]]
    """The jobs that each job waits for, by their names."""
    gates: list[tuple[list[str], list[str]]]
    """Jobs that all have to end, and those that wait for all of them; see `gate`."""


def order_of(definition: Definition) -> Order:
    """Return which job waits for which.

    A job waits for those that it names, for the job before it in a stage that is not parallel, and,
    unless it waits for a job of its own stage, for the last jobs of the stage before: those nobody
    else there waits for. Cells of a matrix are one job in that, and run side by side.
    """
    order = Order({}, [])
    last: list[str] = []
    for stage in definition.stages:
        first = []
        own = frozenset(job.name for job in stage.jobs)
        previous: list[str] = []
        for _, cells in groupby(stage.jobs, key=lambda job: (job.base, job.base or job.name)):
            together = list(cells)
            for job in together:
                named = [*job.depends_on, *([] if stage.parallel else previous)]
                if own.isdisjoint(named):
                    first.append(job.name)
                order.needs[job.name] = list(dict.fromkeys(named))
            previous = [job.name for job in together]
        _follow(order, last, first)
        last = _last_of(stage, order.needs)
    return order


def _follow(order: Order, last: Sequence[str], first: Sequence[str]) -> None:
    """Have the first jobs of a stage wait for the last ones of the stage before."""
    if len(last) * len(first) > PAIRS_WITHOUT:
        order.gates.append((list(last), list(first)))
        return
    for name in first:
        order.needs[name] = list(dict.fromkeys([*order.needs[name], *last]))


def _last_of(stage: Stage, needs: Mapping[str, Sequence[str]]) -> list[str]:
    waited_for = {name for job in stage.jobs for name in needs[job.name]}
    last = [job.name for job in stage.jobs if job.name not in waited_for]
    # Jobs in a cycle all wait for each other; the check reports it, this must only not hide it.
    return last or [job.name for job in stage.jobs]
