"""pipeline.v1.PipelineService."""

from uuid_utils import uuid7

from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from server.auth import check_attends, current_caller
from server.domain.canceling import StopPipeline, check_reason
from server.domain.defining import CreatePipeline, Description
from server.domain.errors import Invalid, Violation
from server.domain.run import RunStatus
from server.domain.triggering import Trigger, TriggerPipeline
from server.engine.call_limits import QueueLimit
from server.engine.clock import Clock
from server.engine.writer import Writer
from server.rpc import convert
from server.rpc.context import Context
from server.rpc.convert_pipeline import definition_of, pipeline_detail, run_detail, run_job
from server.rpc.submission import idempotency
from server.stores.interfaces import Reader

SORT_COLUMNS = ("created_at", "updated_at", "name")
MANUAL = pipeline_pb2.TRIGGER_TYPE_MANUAL


class PipelineService(pipeline_pb2_grpc.PipelineServiceServicer):
    """Pipelines: define, look up, start, stop."""

    def __init__(
        self, writer: Writer, reader: Reader, clock: Clock, queue_limit: QueueLimit
    ) -> None:
        self._queue_limit = queue_limit
        self._writer = writer
        self._reader = reader
        self._clock = clock

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
        if request.trigger_type not in pipeline_pb2.TriggerType.values():
            text = f"there is no trigger type {request.trigger_type}"
            raise Invalid([Violation("trigger_type", text)])
        command = CreatePipeline(
            caller.namespace,
            str(uuid7()),
            Description(
                request.name,
                definition_of(request),
                description=request.description,
                trigger_type=request.trigger_type or MANUAL,
                cron=request.cron,
            ),
            created_by=caller.author(request.created_by),
        )
        command.check()
        pipeline_id = await self._writer.submit(command, new_work=True)
        return pipeline_pb2.CreatePipelineResponse(
            success=True, message="The pipeline is stored.", pipeline_id=pipeline_id
        )

    async def GetPipeline(
        self, request: pipeline_pb2.GetPipelineRequest, context: Context
    ) -> pipeline_pb2.GetPipelineResponse:
        """See the proto."""
        pipeline = await self._reader.pipeline(current_caller().namespace, request.pipeline_id)
        counts = await self._reader.run_counts([pipeline.key])
        return pipeline_pb2.GetPipelineResponse(
            success=True,
            message=convert.counted(pipeline.runs, "run"),
            pipeline=pipeline_detail(pipeline, counts.get(pipeline.key, (0, 0))),
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
        counts = await self._reader.run_counts([p.key for p in found.items])
        return pipeline_pb2.ListPipelinesResponse(
            success=True,
            message=convert.counted(found.total, "pipeline"),
            pipelines=[pipeline_detail(p, counts.get(p.key, (0, 0))) for p in found.items],
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
        detail = run_detail(run, name)
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
