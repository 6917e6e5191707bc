"""What the run asks for: tasks and runs of every sort, each until it is acknowledged."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc

RUN_MARK = "CHAOS_RUN"  # in the environment of every process of every task
CALL_SECONDS = 4.0
PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
}
BUG = "A bug in the server"
CHANNEL = [
    ("grpc.enable_retries", 0),  # who retries is us
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
]
ENDED = range(task_pb2.TASK_STATUS_SUCCESS, task_pb2.TASK_STATUS_SKIPPED + 1)

# One script for all: what differs is in the environment. Each line of the execution journal is one
# write, so that lines of different tasks never mix.
SCRIPT = (
    "exec 2> /dev/null",  # where a shell that is being ended says so
    'echo "$MUSTER_ATTEMPT start" >> "$JOURNAL"',
    'say() { while [ $i -lt $1 ]; do i=$((i+1)); echo "line $i of $MUSTER_ATTEMPT"; done; }',
    "i=0; say $((LINES / 2))",
    '[ -z "$STRAGGLER" ] || { setsid sleep 600 > /dev/null 2>&1 & }',
    'sleep "$PAUSE"',
    "say $LINES",
    'echo "$MUSTER_ATTEMPT end" >> "$JOURNAL"',
    'if [ "${MUSTER_ATTEMPT##*/}" -le "$FAILS" ]; then exit 3; fi',
)
ALWAYS = 1_000_000
GROUPS = {"one": 1, "two": 2, "last": 1}
"""Concurrency groups and their limits. In `last` every newcomer cancels what came before it."""


def expected_line(attempt: str, number: int) -> str:
    """Return what the script prints as its n-th line."""
    return f"line {number} of {attempt}"


@dataclass(frozen=True)
class Spec:
    """One task as it is planned."""

    number: int
    at: float
    """When it is submitted, in seconds from the start of the run."""
    executor: str = ""
    after: tuple[int, ...] = ()
    """Numbers of the tasks it depends on."""
    pause: float = 0.0
    lines: int = 0
    fails: int = 0
    """How many attempts fail, by their number."""
    retries: int = 0
    timeout: int = 600
    straggler: bool = False
    allow_failure: bool = False
    retry_on_lost: bool = True
    group: str = ""
    """The concurrency group it is in; its limit stands in GROUPS."""
    cancels_older: bool = False
    priority: int = 5
    cancel_after: float | None = None

    @property
    def may_end(self) -> set[str]:
        """How the task may end if it runs at all and nobody cancels it."""
        if self.timeout < self.pause:
            return {"TIMEOUT"}
        if self.fails > self.retries:
            return {"FAILED"}
        if not self.retry_on_lost:
            return {"SUCCESS", "FAILED"}
        return {"SUCCESS"}


def plan_tasks(seed: int, count: int, span: float) -> list[Spec]:
    """Return the tasks of a seed; a third of them stand in graphs of three to six."""
    rng = random.Random(f"tasks {seed}")  # noqa: S311 (chaos that can be had again)
    specs: list[Spec] = []
    while len(specs) < count:
        if rng.random() < 1 / 3 / 4.5 * 1.45:
            specs += _graph(rng, len(specs), rng.uniform(0, span))
        else:
            specs.append(_task(rng, len(specs), rng.uniform(0, span)))
    return specs


SHAPES: tuple[tuple[tuple[int, ...], ...], ...] = (
    ((), (0,), (1,)),  # a chain
    ((), (0,), (0,), (1, 2)),  # a diamond
    ((), (0,), (0,), (0,), (1, 2, 3), (4,)),  # fan out, fan in
    ((), (), (), (0, 1), (1, 2)),  # two that share a need
)


def _graph(rng: random.Random, first: int, at: float) -> list[Spec]:
    shape = rng.choice(SHAPES)
    return [
        _task(rng, first + index, at, tuple(first + need for need in needs))
        for index, needs in enumerate(shape)
    ]


def _task(rng: random.Random, number: int, at: float, after: tuple[int, ...] = ()) -> Spec:
    given = {"number": number, "at": at, "after": after, "allow_failure": rng.random() < 0.1}
    if rng.random() < 0.08:
        given["cancel_after"] = rng.choice([0.0, rng.uniform(0, 1), rng.uniform(0, 6)])
    sort = rng.random()
    if sort < 0.15:
        return Spec(**given, executor="noop")
    given |= {"lines": rng.choice([0, 1, 3, 10, 40]), "pause": rng.choice([0, 0.05, 0.2, 0.5, 1])}
    if rng.random() < 0.03:
        given["lines"] = 2500  # more than one batch
    if rng.random() < 0.1:
        given["pause"] = rng.uniform(2, 8)
    if sort < 0.22:
        return Spec(**given, fails=rng.choice([1, 2]), retries=2)
    if sort < 0.26:
        return Spec(**given, fails=ALWAYS, retries=rng.choice([0, 1, 2]))
    if sort < 0.28:
        return Spec(**given | {"pause": 60.0}, timeout=1, retries=rng.choice([0, 0, 1]))
    if sort < 0.32:
        return Spec(**given, straggler=True)
    if sort < 0.36:
        return Spec(**given, retry_on_lost=False)
    if sort < 0.5:
        given |= {"pause": min(given["pause"], 0.5), "priority": rng.choice([0, 5, 9])}
        group = rng.choice([*GROUPS, "two"])
        fails = {"fails": 1, "retries": 2} if rng.random() < 0.2 else {}
        return Spec(**given, **fails, group=group, cancels_older=group == "last")
    return Spec(**given)


def plan_runs(seed: int, count: int, span: float) -> list[float]:
    """Return when runs of the pipeline start."""
    rng = random.Random(f"runs {seed}")  # noqa: S311 (chaos that can be had again)
    return sorted(rng.uniform(0, span) for _ in range(count))


@dataclass
class Submitted:
    """What was acknowledged, and what callers were told."""

    tasks: dict[str, Spec] = field(default_factory=dict)
    """By id: acknowledged."""
    ids: dict[int, str] = field(default_factory=dict)
    """Ids by the spec's number."""
    cancels: dict[str, str] = field(default_factory=dict)
    """What the server said to a cancel: `ended`, `told`, or `refused: …`."""
    runs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Ids of the jobs of each acknowledged run."""
    seen: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Ends that a reader was shown: status, exit code, attempt."""
    repeats: int = 0
    """Calls that were made again because their answer did not come."""


class Client:
    """A caller that does not give up."""

    def __init__(
        self,
        run: str,
        journal: str,
        addresses: list[str],
        submitted: Submitted,
        complain: Callable[[str, str, str], None],
    ):
        self._run = run
        self._journal = journal
        self._submitted = submitted
        self._complain = complain
        self._channels = [grpc.aio.insecure_channel(each, options=CHANNEL) for each in addresses]
        self._tasks = [task_pb2_grpc.TaskServiceStub(each) for each in self._channels]
        self._pipelines = [pipeline_pb2_grpc.PipelineServiceStub(each) for each in self._channels]
        self._acknowledged: dict[int, asyncio.Event] = {}
        self._turn = 0

    async def close(self):
        for channel in self._channels:
            await channel.close()

    async def submit_all(self, specs: list[Spec], runs: list[float]):
        """Submit everything at its time; returns when all of it is acknowledged."""
        start = asyncio.get_running_loop().time()
        self._acknowledged = {spec.number: asyncio.Event() for spec in specs}
        async with asyncio.TaskGroup() as group:
            if runs:
                group.create_task(self._trigger_all(runs, start))
            for spec in specs:
                group.create_task(self._submit(spec, start))

    async def watch(self, every: float):
        """Look at tasks again and again: an end that was shown once must stay, for ever."""
        rng = random.Random(self._run)  # noqa: S311 (which task is looked at matters little)
        while True:
            await asyncio.sleep(every)
            if not self._submitted.tasks:
                continue
            await self.look(rng.choice(list(self._submitted.tasks)), tries=1)

    async def look(self, task_id: str, tries: int = 100):
        """Look at a task, and complain when its end is another than the one seen before."""
        request = task_pb2.GetTaskRequest(task_id=task_id)
        answer = await self._call(lambda n: self._tasks[n].GetTask, request, tries)
        if not isinstance(answer, task_pb2.GetTaskResponse):
            return
        task = answer.task
        if task.status not in ENDED and task_id in self._submitted.seen:
            self._complain("an end stays", task_id, f"{self._submitted.seen[task_id]}, then {task}")
        if task.status in ENDED:
            end = (task.status, task.exit_code, task.attempt)
            if self._submitted.seen.setdefault(task_id, end) != end:
                was = self._submitted.seen[task_id]
                self._complain("an end stays", task_id, f"first {was}, then {end}")

    async def unfinished(self) -> int:
        """Return how many tasks have not ended."""
        total = 0
        for status in (1, 2, 3):
            request = task_pb2.ListTasksRequest(status=status, page_size=1)
            answer = await self._call(lambda n: self._tasks[n].ListTasks, request)
            total += answer.total
        return total

    # ---- the calls

    async def _submit(self, spec: Spec, start: float):
        await self._until(start + spec.at)
        for need in spec.after:
            await self._acknowledged[need].wait()
        request = self.request(spec)
        answer = await self._call(lambda n: self._tasks[n].CreateTask, request)
        if not isinstance(answer, task_pb2.CreateTaskResponse):
            raise RuntimeError(f"task {spec.number} was refused: {answer}")
        self._submitted.tasks[answer.task_id] = spec
        self._submitted.ids[spec.number] = answer.task_id
        self._acknowledged[spec.number].set()
        if spec.cancel_after is not None:
            await asyncio.sleep(spec.cancel_after)
            await self._cancel(answer.task_id)

    def request(self, spec: Spec) -> task_pb2.CreateTaskRequest:
        """Return the request that submits a task."""
        return task_pb2.CreateTaskRequest(
            name=f"task {spec.number}",
            commands=["true"] if spec.executor else SCRIPT,
            env={} if spec.executor else self._environment(spec),
            executor=spec.executor,
            depends_on=[self._submitted.ids[need] for need in spec.after],
            timeout=spec.timeout,
            retry_count=spec.retries,
            allow_failure=spec.allow_failure,
            retry_on_lost=spec.retry_on_lost,
            priority=spec.priority,
            concurrency=self._group(spec),
            request_id=f"{self._run}-{spec.number}",
        )

    def _group(self, spec: Spec) -> task_pb2.ConcurrencyGroup | None:
        if not spec.group:
            return None
        cancels = task_pb2.CONCURRENCY_POLICY_CANCEL_RUNNING
        return task_pb2.ConcurrencyGroup(
            key=spec.group,
            limit=GROUPS[spec.group],
            on_conflict=cancels if spec.cancels_older else 0,
        )

    def _environment(self, spec: Spec) -> dict[str, str]:
        return {
            RUN_MARK: self._run,
            "JOURNAL": self._journal,
            "LINES": str(spec.lines),
            "PAUSE": f"{spec.pause:g}",
            "FAILS": str(spec.fails),
            "STRAGGLER": "yes" if spec.straggler else "",
        }

    async def _cancel(self, task_id: str):
        request = task_pb2.CancelTaskRequest(task_id=task_id, reason="chaos")
        answer = await self._call(lambda n: self._tasks[n].CancelTask, request)
        if isinstance(answer, task_pb2.CancelTaskResponse):
            said = "ended" if "is cancelled" in answer.message else "told"
        else:
            said = f"refused: {answer.details()}"
            if answer.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                self._complain("a cancel is answered", task_id, f"{answer.code()} {said}")
        self._submitted.cancels[task_id] = said

    async def _trigger_all(self, runs: list[float], start: float):
        pipeline_id = await self._define()
        async with asyncio.TaskGroup() as group:
            for number, at in enumerate(runs):
                group.create_task(self._trigger(pipeline_id, number, start + at))

    async def _define(self) -> str:
        request = pipeline_pb2.CreatePipelineRequest(
            name=f"chaos {self._run}",
            stages=self._stages(),
            env={RUN_MARK: self._run, "JOURNAL": self._journal, "STRAGGLER": "", "PAUSE": "0.1"},
        )
        answer = await self._call(lambda n: self._pipelines[n].CreatePipeline, request)
        if isinstance(answer, pipeline_pb2.CreatePipelineResponse):
            return answer.pipeline_id
        # The answer to an earlier try was lost: the name is taken, by us.
        listing = pipeline_pb2.ListPipelinesRequest(name=request.name)
        found = await self._call(lambda n: self._pipelines[n].ListPipelines, listing)
        return found.pipelines[0].pipeline_id

    def _stages(self) -> list[pipeline_pb2.Stage]:
        def job(name: str, fails: int = 0, **fields: object) -> pipeline_pb2.Job:
            env = {"LINES": "5", "FAILS": str(fails)}
            return pipeline_pb2.Job(name=name, commands=SCRIPT, env=env, **fields)

        return [
            pipeline_pb2.Stage(name="build", parallel=True, jobs=[job("a"), job("b", 1, retry=1)]),
            pipeline_pb2.Stage(
                name="test", parallel=True, jobs=[job("c"), job("d", ALWAYS, allow_failure=True)]
            ),
            pipeline_pb2.Stage(name="ship", jobs=[job("e"), job("f")]),
        ]

    async def _trigger(self, pipeline_id: str, number: int, at: float):
        await self._until(at)
        request = pipeline_pb2.TriggerPipelineRequest(
            pipeline_id=pipeline_id, request_id=f"{self._run}-run-{number}"
        )
        answer = await self._call(lambda n: self._pipelines[n].TriggerPipeline, request)
        if not isinstance(answer, pipeline_pb2.TriggerPipelineResponse):
            raise RuntimeError(f"run {number} was refused: {answer}")
        self._submitted.runs[answer.run_id] = tuple(answer.job_ids)

    async def _call(self, method: Callable[[int], object], request: object, tries: int = 10_000):
        """Call until there is an answer; return it, or the error that is one."""
        for count in range(tries):
            self._turn += 1
            if count:
                self._submitted.repeats += 1
                await asyncio.sleep(min(0.1 * count, 1.0))
            try:
                return await method(self._turn % len(self._channels))(request, timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                if BUG in (error.details() or ""):
                    self._complain("no bug in a server", type(request).__name__, error.details())
                if error.code() not in PASSING:
                    return error
                last = error
        return last

    async def _until(self, moment: float):
        await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))
