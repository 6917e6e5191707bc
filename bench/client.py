"""A client that submits much and notices at once when it has ended."""

import asyncio
import http.client
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing

import grpc.aio

from generated.agent.v1 import agent_pb2_grpc
from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc

SUCCESS = task_pb2.TASK_STATUS_SUCCESS
RUN_SECONDS = 900.0
CALL_SECONDS = 120.0
BATCH = 500
PAGE = 1000
FOLLOWED = 100
LOOK_EVERY = 0.02
ENDED_SECONDS = 600.0

Change = stream_pb2.StreamTaskStatusResponse


class Client:
    """One caller of one server, who shows a token where there is one."""

    def __init__(self, address: str, http_address: str, token: str = "") -> None:
        # No interceptor: it would slow the calls that are measured.
        self._shown = (("authorization", f"Bearer {token}"),) if token else ()
        # A channel of one's own: a shared one would remember a server that has ended.
        self._channel = grpc.aio.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._http = http_address
        self.agents: agent_pb2_grpc.AgentServiceAsyncStub = agent_pb2_grpc.AgentServiceStub(
            self._channel
        )
        self.auth: auth_pb2_grpc.AuthServiceAsyncStub = auth_pb2_grpc.AuthServiceStub(self._channel)
        self.pipelines: pipeline_pb2_grpc.PipelineServiceAsyncStub = (
            pipeline_pb2_grpc.PipelineServiceStub(self._channel)
        )
        self.streams: stream_pb2_grpc.StreamServiceAsyncStub = stream_pb2_grpc.StreamServiceStub(
            self._channel
        )
        self.tasks: task_pb2_grpc.TaskServiceAsyncStub = task_pb2_grpc.TaskServiceStub(
            self._channel
        )

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def create(self, request: task_pb2.CreateTaskRequest) -> str:
        """Submit a task and return its id."""
        return (
            await self.tasks.CreateTask(request, timeout=CALL_SECONDS, metadata=self._shown)
        ).task_id

    async def create_many(self, request: task_pb2.CreateTaskRequest, number: int) -> list[str]:
        """Submit so many tasks alike, in batches, and return their ids in order."""
        task_ids: list[str] = []
        for start in range(0, number, BATCH):
            batch = task_pb2.CreateTasksRequest(tasks=[request] * min(BATCH, number - start))
            task_ids += (
                await self.tasks.CreateTasks(batch, timeout=CALL_SECONDS, metadata=self._shown)
            ).task_ids
        return task_ids

    async def get(self, task_id: str) -> task_pb2.TaskDetail:
        """Return a task."""
        request = task_pb2.GetTaskRequest(task_id=task_id)
        return (await self.tasks.GetTask(request, timeout=CALL_SECONDS, metadata=self._shown)).task

    async def enrolment_token(self) -> str:
        """Return a new token with which one host becomes an agent."""
        request = auth_pb2.CreateTokenRequest(name="bench", kind=auth_pb2.TOKEN_KIND_ENROL)
        answer = await self.auth.CreateToken(request, timeout=CALL_SECONDS, metadata=self._shown)
        return answer.text

    async def succeeded(self) -> int:
        """Return how many tasks the server has brought to SUCCESS since it started, by commit."""
        return int(await self.metric('muster_task_transitions_total{status="SUCCESS"}'))

    async def metric(self, series: str) -> float:
        """Return the value of one series of the server; 0 while it has none."""
        text = await asyncio.to_thread(self._metrics)
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.M)
        return float(found[1]) if found else 0.0

    def _metrics(self) -> str:
        with closing(http.client.HTTPConnection(self._http, timeout=CALL_SECONDS)) as connection:
            connection.request("GET", "/metrics", headers=dict(self._shown))
            return connection.getresponse().read().decode()

    async def wait_until_succeeded(self, last: Sequence[str], total: int) -> None:
        """Wait until these have ended, and then until so many in all have succeeded.

        Following a few and then counting costs the server next to nothing; following all of them
        would measure how fast states are told.
        """
        async with asyncio.timeout(ENDED_SECONDS):
            request = stream_pb2.StreamTaskStatusRequest(task_ids=last[-FOLLOWED:])
            async for _ in self.streams.StreamTaskStatus(
                request, timeout=ENDED_SECONDS, metadata=self._shown
            ):
                pass
            while await self.succeeded() < total:  # noqa: ASYNC110 - another process counts
                await asyncio.sleep(LOOK_EVERY)

    async def check_all_succeeded(self, task_ids: Sequence[str]) -> None:
        """Read the state of each, newest first.

        Raises:
            RuntimeError: one of them has not succeeded.
        """
        left, token = set(task_ids), ""
        while left:
            request = task_pb2.ListTasksRequest(status=SUCCESS, page_size=PAGE, page_token=token)
            answer = await self.tasks.ListTasks(request, timeout=CALL_SECONDS, metadata=self._shown)
            left.difference_update(task.task_id for task in answer.tasks)
            token = answer.next_page_token
            if not token and left:
                raise RuntimeError(f"{len(left)} tasks have not succeeded, one is {left.pop()}.")

    async def create_pipeline(self, name: str, stages: Sequence[pipeline_pb2.Stage] = ()) -> str:
        """Return the id of a new pipeline; without stages one that tasks can be filed under."""
        job = pipeline_pb2.Job(name="job", commands=["true"])
        stages = stages or [pipeline_pb2.Stage(name="stage", jobs=[job])]
        request = pipeline_pb2.CreatePipelineRequest(name=name, stages=stages)
        return (
            await self.pipelines.CreatePipeline(request, timeout=CALL_SECONDS, metadata=self._shown)
        ).pipeline_id

    async def run_to_success(self, pipeline_id: str) -> None:
        """Start a run, and wait until it has succeeded.

        Raises:
            RuntimeError: it has not.
        """
        request = pipeline_pb2.TriggerPipelineRequest(pipeline_id=pipeline_id)
        answer = await self.pipelines.TriggerPipeline(
            request, timeout=RUN_SECONDS, metadata=self._shown
        )
        listed = pipeline_pb2.ListRunsRequest(pipeline_id=pipeline_id, page_size=1)
        async with asyncio.timeout(RUN_SECONDS):
            while True:
                found = await self.pipelines.ListRuns(
                    listed, timeout=CALL_SECONDS, metadata=self._shown
                )
                status = found.runs[0].status
                if status == pipeline_pb2.PIPELINE_STATUS_SUCCESS:
                    return
                if status > pipeline_pb2.PIPELINE_STATUS_SUCCESS:
                    raise RuntimeError(f"Run {answer.run_id} ended in {status}.")
                await asyncio.sleep(LOOK_EVERY)

    @asynccontextmanager
    async def following(self, pipeline_id: str) -> AsyncIterator[AsyncIterator[Change]]:
        """Give the changes of a pipeline's tasks, from now on."""
        request = stream_pb2.StreamTaskStatusRequest(pipeline_id=pipeline_id)
        call = self.streams.StreamTaskStatus(request, timeout=ENDED_SECONDS, metadata=self._shown)
        try:
            yield call.__aiter__()
        finally:
            call.cancel()
