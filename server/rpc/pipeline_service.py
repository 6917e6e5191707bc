"""pipeline.v1.PipelineService."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from uuid_utils import uuid7

from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from server.auth import Caller, Kind, check_attends, current_caller
from server.domain.approving import AnswerApproval
from server.domain.canceling import StopPipeline, check_reason
from server.domain.defining import CreatePipeline, DeletePipeline, UpdatePipeline
from server.domain.errors import Invalid, Violation
from server.domain.extending import AddJobs
from server.domain.pipeline import Pipeline
from server.domain.retrying import RetryRun, RetryScope
from server.domain.run import RunStatus
from server.domain.triggering import Trigger, TriggerPipeline
from server.engine.call_limits import QueueLimit
from server.engine.clock import Clock
from server.engine.writer import Writer
from server.rpc import convert
from server.rpc.context import Context
from server.rpc.convert import within
from server.rpc.convert_pipeline import (
    added_definition,
    description_of,
    pipeline_detail,
    run_detail,
    run_job,
    version_message,
    whole_run_detail,
)
from server.rpc.submission import idempotency
from server.stores.interfaces import Reader

SORT_COLUMNS = ("created_at", "updated_at", "name")

Request = TypeVar("Request")
Read = TypeVar("Read")


class PipelineService(pipeline_pb2_grpc.PipelineServiceServicer):
    """Pipelines: define, look up, start, stop."""

    def __init__(
        self, writer: Writer, reader: Reader, clock: Clock, queue_limit: QueueLimit
    ) -> None:
        self._queue_limit = queue_limit
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._one_reads = asyncio.Lock()

    async def _read(self, read: Callable[[Request], Read], request: Request) -> Read:
        """Read a request in a thread: a file of the largest size takes seconds.

        One at a time, so that such files leave the threads to everybody else.
        """
        async with self._one_reads:
            return await asyncio.to_thread(read, request)

    async def Ping(
        self, request: pipeline_pb2.PingRequest, context: Context
    ) -> pipeline_pb2.PingResponse:
        """See the proto."""
        return pipeline_pb2.PingResponse(
            message=request.message or "pong", timestamp=convert.seconds(self._clock.now())
        )

    async def CreatePipeline(
        self, request: pipeline_pb2.CreatePipelineRequest, context: Context
    ) -> pipeline_pb2.CreatePipelineResponse:
        """See the proto."""
        caller = current_caller()
        command = CreatePipeline(
            caller.namespace,
            str(uuid7()),
            await self._read(description_of, request),
            created_by=caller.author(request.created_by),
        )
        command.check()
        pipeline_id = await self._writer.submit(command, new_work=True)
        return pipeline_pb2.CreatePipelineResponse(
            success=True, message="The pipeline is stored.", pipeline_id=pipeline_id
        )

    async def UpdatePipeline(
        self, request: pipeline_pb2.UpdatePipelineRequest, context: Context
    ) -> pipeline_pb2.UpdatePipelineResponse:
        """See the proto."""
        caller = current_caller()
        with within("pipeline"):
            command = UpdatePipeline(
                caller.namespace,
                request.pipeline_id,
                await self._read(description_of, request.pipeline),
                updated_by=caller.author(request.pipeline.created_by),
                expected_version=request.expected_version,
            )
            command.check()
        version = await self._writer.submit(command, new_work=True)
        return pipeline_pb2.UpdatePipelineResponse(
            success=True, message=f"The pipeline has version {version}.", version=version
        )

    async def DeletePipeline(
        self, request: pipeline_pb2.DeletePipelineRequest, context: Context
    ) -> pipeline_pb2.DeletePipelineResponse:
        """See the proto."""
        command = DeletePipeline(
            current_caller().namespace, request.pipeline_id, stop_runs=request.stop_runs
        )
        stopped = await self._writer.submit(command)
        return pipeline_pb2.DeletePipelineResponse(
            success=True,
            message=f"The pipeline is deleted. Stopped: {convert.counted(stopped, 'active run')}",
        )

    async def GetPipeline(
        self, request: pipeline_pb2.GetPipelineRequest, context: Context
    ) -> pipeline_pb2.GetPipelineResponse:
        """See the proto."""
        namespace = current_caller().namespace
        pipeline = await self._reader.pipeline(namespace, request.pipeline_id)
        number = request.version or pipeline.version
        version = await self._reader.pipeline_version(pipeline, number)
        pipeline.definition, pipeline.version = version.definition, version.number
        detail = await self._details(namespace, [pipeline])
        detail[0].file = version.source
        return pipeline_pb2.GetPipelineResponse(
            success=True, message=convert.counted(pipeline.runs, "run"), pipeline=detail[0]
        )

    async def _details(
        self, namespace: str, pipelines: Sequence[Pipeline]
    ) -> list[pipeline_pb2.PipelineDetail]:
        keys = [pipeline.key for pipeline in pipelines]
        counts = await self._reader.run_counts(keys)
        last = await self._reader.last_runs(keys)
        fires = await self._reader.next_fires(keys)
        details = []
        for pipeline in pipelines:
            detail = pipeline_detail(pipeline, counts.get(pipeline.key, (0, 0)))
            if pipeline.key in last:
                detail.last_run.CopyFrom(run_detail(last[pipeline.key], pipeline.name))
            detail.next_fire_at = fires.get(pipeline.key, 0)
            details.append(detail)
        return details

    async def ListPipelineVersions(
        self, request: pipeline_pb2.ListPipelineVersionsRequest, context: Context
    ) -> pipeline_pb2.ListPipelineVersionsResponse:
        """See the proto."""
        namespace = current_caller().namespace
        pipeline = await self._reader.pipeline(namespace, request.pipeline_id)
        size = convert.page_of(0, request.page_size, "", "", (), descending=False).size
        last = min(pipeline.version, request.before - 1) if request.before else pipeline.version
        versions = await self._reader.pipeline_versions(pipeline, last - size + 1, last)
        return pipeline_pb2.ListPipelineVersionsResponse(
            success=True,
            message=convert.counted(pipeline.version, "version"),
            versions=map(version_message, versions),
        )

    async def ListPipelines(
        self, request: pipeline_pb2.ListPipelinesRequest, context: Context
    ) -> pipeline_pb2.ListPipelinesResponse:
        """See the proto."""
        page = convert.page_of(
            request.page,
            request.page_size,
            request.page_token,
            request.sort_by,
            SORT_COLUMNS,
            descending=request.sort_desc,
        )
        status = convert.status_filter("status", request.status, RunStatus)
        namespace = current_caller().namespace
        found = await self._reader.pipelines(namespace, status, request.name, page)
        return pipeline_pb2.ListPipelinesResponse(
            success=True,
            message=convert.counted(found.total, "pipeline"),
            pipelines=await self._details(namespace, found.items),
            total=found.total,
            page=0 if request.page_token else page.number,
            page_size=page.size,
            next_page_token="" if found.next_after is None else str(found.next_after),
        )

    async def TriggerPipeline(
        self, request: pipeline_pb2.TriggerPipelineRequest, context: Context
    ) -> pipeline_pb2.TriggerPipelineResponse:
        """See the proto."""
        caller = current_caller()
        await self._queue_limit.check(caller.namespace)
        trigger = Trigger(
            branch=request.branch,
            commit_sha=request.commit_sha,
            env=dict(request.env),
            triggered_by=caller.author(request.triggered_by),
            inputs=dict(request.inputs),
        )
        trigger.check()
        command = TriggerPipeline(
            caller.namespace,
            request.pipeline_id,
            str(uuid7()),
            trigger,
            idempotency(request, request.request_id),
        )
        run_id, *job_ids = await self._writer.submit(command, new_work=True)
        return pipeline_pb2.TriggerPipelineResponse(
            success=True,
            message=f"The run has {convert.counted(len(job_ids), 'job')}",
            run_id=run_id,
            job_ids=job_ids,
        )

    async def StopPipeline(
        self, request: pipeline_pb2.StopPipelineRequest, context: Context
    ) -> pipeline_pb2.StopPipelineResponse:
        """See the proto."""
        check_reason(request.reason)
        command = StopPipeline(
            current_caller().namespace, request.pipeline_id, request.run_id, request.reason
        )
        count = await self._writer.submit(command)
        return pipeline_pb2.StopPipelineResponse(
            success=True, message=f"Stopped: {convert.counted(count, 'active run')}"
        )

    async def GetRun(
        self, request: pipeline_pb2.GetRunRequest, context: Context
    ) -> pipeline_pb2.GetRunResponse:
        """See the proto."""
        check_attends(run_id=request.run_id)
        namespace = current_caller().namespace
        run, name, tasks = await self._reader.run(namespace, request.run_id)
        names = {task.key: task.name for task in tasks}
        needs: dict[int, list[str]] = {}
        for key, other in await self._reader.dependencies_of_run(run.key):
            needs.setdefault(key, []).append(names.get(other, ""))
        detail = whole_run_detail(run, name)
        detail.jobs.extend(run_job(run, task, needs.get(task.key, [])) for task in tasks)
        return pipeline_pb2.GetRunResponse(
            success=True, message=f"The run is {run.status.name}.", run=detail
        )

    async def ListRuns(
        self, request: pipeline_pb2.ListRunsRequest, context: Context
    ) -> pipeline_pb2.ListRunsResponse:
        """See the proto."""
        page = convert.page_of(0, request.page_size, request.page_token, "", (), descending=False)
        status = convert.status_filter("status", request.status, RunStatus)
        namespace = current_caller().namespace
        found = await self._reader.runs(namespace, request.pipeline_id, status, page)
        return pipeline_pb2.ListRunsResponse(
            success=True,
            message=convert.counted(found.total, "run"),
            runs=[run_detail(run, name) for run, name in found.items],
            next_page_token="" if found.next_after is None else str(found.next_after),
        )

    async def RetryRun(
        self, request: pipeline_pb2.RetryRunRequest, context: Context
    ) -> pipeline_pb2.RetryRunResponse:
        """See the proto."""
        caller = current_caller()
        await self._queue_limit.check(caller.namespace)
        if request.scope not in pipeline_pb2.RetryScope.values():
            raise Invalid([Violation("scope", f"there is no scope {request.scope}")])
        scope = RetryScope(request.scope or RetryScope.ALL)
        if bool(request.from_job) != (scope is RetryScope.FROM_JOB):
            text = "must be given with the scope RETRY_SCOPE_FROM_JOB and with no other"
            raise Invalid([Violation("from_job", text)])
        command = RetryRun(
            caller.namespace,
            request.run_id,
            str(uuid7()),
            scope,
            request.from_job,
            caller.author(request.triggered_by),
        )
        run_id, *job_ids = await self._writer.submit(command, new_work=True)
        return pipeline_pb2.RetryRunResponse(
            success=True,
            message=f"The run has {convert.counted(len(job_ids), 'job')}",
            run_id=run_id,
            job_ids=job_ids,
        )

    async def ApproveRun(
        self, request: pipeline_pb2.ApproveRunRequest, context: Context
    ) -> pipeline_pb2.ApproveRunResponse:
        """See the proto."""
        await self._answer(request.run_id, request.job, request.comment, approve=True)
        return pipeline_pb2.ApproveRunResponse(success=True, message="Approved.")

    async def RejectRun(
        self, request: pipeline_pb2.RejectRunRequest, context: Context
    ) -> pipeline_pb2.RejectRunResponse:
        """See the proto."""
        await self._answer(request.run_id, request.job, request.comment, approve=False)
        return pipeline_pb2.RejectRunResponse(success=True, message="Rejected.")

    async def _answer(self, run_id: str, job: str, comment: str, *, approve: bool) -> None:
        caller = current_caller()
        command = AnswerApproval(
            caller.namespace, run_id, job, approve, caller.name, known_as(caller), comment
        )
        command.check()
        await self._writer.submit(command)

    async def AddJobs(
        self, request: pipeline_pb2.AddJobsRequest, context: Context
    ) -> pipeline_pb2.AddJobsResponse:
        """See the proto."""
        caller = current_caller()
        run_id = request.run_id or caller.run_id
        if not run_id:
            raise Invalid([Violation("run_id", "must not be empty")])
        check_attends(run_id=run_id)
        await self._queue_limit.check(caller.namespace)
        command = AddJobs(
            caller.namespace,
            run_id,
            await self._read(added_definition, request),
            caller.task_id if caller.kind is Kind.TASK else request.task_id,
            idempotency(request, request.request_id),
            confined=caller.kind is Kind.TASK,
        )
        job_ids = await self._writer.submit(command, new_work=True)
        return pipeline_pb2.AddJobsResponse(
            success=True, message=f"Added: {convert.counted(len(job_ids), 'job')}", job_ids=job_ids
        )


def known_as(caller: Caller) -> frozenset[str] | None:
    """Return what a caller may be called in a list of users and roles; None for anybody."""
    if caller.kind is Kind.ANYBODY:
        return None
    role = [caller.role.value] if caller.role is not None else []
    return frozenset([caller.name, *role])
