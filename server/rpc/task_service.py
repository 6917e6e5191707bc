"""task.v1.TaskService."""

from uuid_utils import uuid7

from generated.task.v1 import task_pb2, task_pb2_grpc
from server.auth import check_attends, current_caller
from server.domain.artifact import latest
from server.domain.canceling import CancelTask, check_reason
from server.domain.errors import Invalid, Violation
from server.domain.submitting import CreateTask, DeleteTask, RetryTask, UpdateTask
from server.domain.submitting_many import CreateTasks
from server.domain.task import TaskStatus
from server.domain.waiting import why_it_waits
from server.engine.artifacts import Artifacts
from server.engine.call_limits import QueueLimit
from server.engine.clock import Clock
from server.engine.explainer import Explainer
from server.engine.writer import Writer
from server.rpc import convert
from server.rpc.context import Context
from server.rpc.convert_explanation import explanation_message
from server.rpc.submission import idempotency
from server.rpc.task_secrets import TaskSecrets
from server.stores.interfaces import Reader, TaskFilter

LOG_DEFAULT = 1000
LOG_LIMIT = 10_000
SORT_COLUMNS = ("created_at", "name", "status", "started_at", "finished_at")
MASK = ("name", "commands", "env", "timeout")


class TaskService(task_pb2_grpc.TaskServiceServicer):
    """Tasks: submit, look up, change, end, run again."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        explainer: Explainer,
        clock: Clock,
        secrets: TaskSecrets,
        queue_limit: QueueLimit,
        artifacts: Artifacts,
    ) -> None:
        self._artifacts = artifacts
        self._queue_limit = queue_limit
        self._secrets = secrets
        self._writer = writer
        self._reader = reader
        self._explainer = explainer
        self._clock = clock

    async def Ping(self, request: task_pb2.PingRequest, context: Context) -> task_pb2.PingResponse:
        """See the proto."""
        return task_pb2.PingResponse(
            message=request.message or "pong", timestamp=convert.seconds(self._clock.now())
        )

    async def CreateTask(
        self, request: task_pb2.CreateTaskRequest, context: Context
    ) -> task_pb2.CreateTaskResponse:
        """See the proto."""
        caller = current_caller()
        if request.key:
            raise Invalid([Violation("key", "must be empty: only tasks of CreateTasks have one")])
        task = convert.new_task(request, self._secrets.seal)
        await self._queue_limit.check(caller.namespace)
        if task.spec.secret_refs:
            await self._secrets.check_known([("", task.spec.secret_refs)])
        command = CreateTask(
            caller.namespace,
            str(uuid7()),
            task,
            caller.name,
            idempotency(request, request.request_id, self._secrets.digest_for([task])),
        )
        task_id = await self._writer.submit(command, new_work=True)
        return task_pb2.CreateTaskResponse(
            success=True, message="The task is submitted.", task_id=task_id
        )

    async def CreateTasks(
        self, request: task_pb2.CreateTasksRequest, context: Context
    ) -> task_pb2.CreateTasksResponse:
        """See the proto."""
        caller = current_caller()
        tasks = convert.new_tasks(request, self._secrets.seal)
        await self._queue_limit.check(caller.namespace, len(tasks))
        await self._secrets.check_known(
            [
                (f"tasks[{n}].", t.spec.secret_refs)
                for n, t in enumerate(tasks)
                if t.spec.secret_refs
            ]
        )
        command = CreateTasks(
            caller.namespace,
            tuple(str(uuid7()) for _ in tasks),
            tasks,
            caller.name,
            idempotency(request, request.request_id, self._secrets.digest_for(tasks)),
        )
        task_ids = await self._writer.submit(command, new_work=True)
        return task_pb2.CreateTasksResponse(
            success=True,
            message=f"{convert.counted(len(task_ids), 'task').removesuffix('.')} submitted.",
            task_ids=task_ids,
        )

    async def GetTask(
        self, request: task_pb2.GetTaskRequest, context: Context
    ) -> task_pb2.GetTaskResponse:
        """See the proto."""
        check_attends(request.task_id)
        view = await self._reader.task(current_caller().namespace, request.task_id)
        explanation = await self._explainer.explain(view)
        detail = convert.full_task_detail(view, why_it_waits(view.task, explanation))
        status = view.task.status.name
        return task_pb2.GetTaskResponse(
            success=True, message=detail.waiting_reason or f"The task is {status}.", task=detail
        )

    async def ExplainTask(
        self, request: task_pb2.ExplainTaskRequest, context: Context
    ) -> task_pb2.ExplainTaskResponse:
        """See the proto."""
        view = await self._reader.task(current_caller().namespace, request.task_id)
        return explanation_message(view.task, await self._explainer.explain(view))

    async def ListTasks(
        self, request: task_pb2.ListTasksRequest, context: Context
    ) -> task_pb2.ListTasksResponse:
        """See the proto."""
        page = convert.page_of(
            request.page,
            request.page_size,
            request.page_token,
            request.sort_by,
            SORT_COLUMNS,
            descending=request.sort_desc,
        )
        wanted = TaskFilter(
            current_caller().namespace,
            request.pipeline_id,
            request.run_id,
            convert.status_filter("status", request.status, TaskStatus),
            request.agent_id,
        )
        found = await self._reader.tasks(wanted, page)
        return task_pb2.ListTasksResponse(
            success=True,
            message=convert.counted(found.total, "task"),
            tasks=map(convert.task_detail, found.items),
            total=found.total,
            page=0 if request.page_token else page.number,
            page_size=page.size,
            next_page_token="" if found.next_after is None else str(found.next_after),
        )

    async def UpdateTask(
        self, request: task_pb2.UpdateTaskRequest, context: Context
    ) -> task_pb2.UpdateTaskResponse:
        """See the proto."""
        command = _update(request, current_caller().namespace)
        command.check()
        await self._writer.submit(command)
        return task_pb2.UpdateTaskResponse(success=True, message="The task is changed.")

    async def DeleteTask(
        self, request: task_pb2.DeleteTaskRequest, context: Context
    ) -> task_pb2.DeleteTaskResponse:
        """See the proto."""
        await self._writer.submit(DeleteTask(current_caller().namespace, request.task_id))
        return task_pb2.DeleteTaskResponse(success=True, message="The task is deleted.")

    async def CancelTask(
        self, request: task_pb2.CancelTaskRequest, context: Context
    ) -> task_pb2.CancelTaskResponse:
        """See the proto."""
        check_reason(request.reason)
        namespace = current_caller().namespace
        ended = await self._writer.submit(CancelTask(namespace, request.task_id, request.reason))
        message = "The task is cancelled." if ended else "Its agent is told to end it."
        return task_pb2.CancelTaskResponse(success=True, message=message)

    async def RetryTask(
        self, request: task_pb2.RetryTaskRequest, context: Context
    ) -> task_pb2.RetryTaskResponse:
        """See the proto."""
        caller = current_caller()
        command = RetryTask(caller.namespace, request.task_id, str(uuid7()), caller.name)
        new_id = await self._writer.submit(command, new_work=True)
        return task_pb2.RetryTaskResponse(
            success=True, message="A new task like it is submitted.", new_task_id=new_id
        )

    async def GetTaskLog(
        self, request: task_pb2.GetTaskLogRequest, context: Context
    ) -> task_pb2.GetTaskLogResponse:
        """See the proto."""
        _check_log_page(request)
        namespace, task_id = current_caller().namespace, request.task_id
        attempt, limit = request.attempt, request.limit or LOG_DEFAULT
        first = request.offset + 1
        if request.tail or request.since:
            place = await self._reader.log_place(
                namespace, task_id, attempt, request.tail, request.since
            )
            attempt, first = place.attempt, place.line
        elif request.before_line:
            first = max(1, request.before_line - limit)
            limit = request.before_line - first
        page = await self._reader.log(namespace, task_id, attempt, first, limit)
        if page.omitted_from and page.first_line >= request.before_line > 0:
            # The line that stands for what is not kept was told already: on with what lies before.
            first = max(1, page.omitted_from - (request.limit or LOG_DEFAULT))
            limit = page.omitted_from - first
            page = await self._reader.log(namespace, task_id, page.attempt, first, limit)
        return task_pb2.GetTaskLogResponse(
            success=True,
            message=convert.counted(page.total, "line"),
            logs=[convert.log_line(line, page.first_line + i) for i, line in enumerate(page.lines)],
            total_lines=page.total,
            has_more=page.first_line - 1 + len(page.lines) < page.total,
            attempt=page.attempt,
            log_state=convert.enum(page.state),
        )

    async def ListTaskArtifacts(
        self, request: task_pb2.ListTaskArtifactsRequest, context: Context
    ) -> task_pb2.ListTaskArtifactsResponse:
        """See the proto."""
        check_attends(request.task_id)
        namespace = current_caller().namespace
        await self._reader.task(namespace, request.task_id)
        found = latest(await self._reader.artifacts(namespace, task_id=request.task_id))
        found.sort(key=lambda each: (each.name, each.path))
        return task_pb2.ListTaskArtifactsResponse(
            success=True,
            message=convert.counted(len(found), "artifact"),
            artifacts=[
                task_pb2.Artifact(
                    artifact_id=each.public_id,
                    name=each.name,
                    path=each.path,
                    size=each.size,
                    download_url=await self._artifacts.url(each),
                    created_at=convert.seconds(each.stored_at or each.created_at),
                    expire_at=convert.seconds(each.expire_at),
                    sha256=each.sha256,
                    attempt=each.attempt,
                )
                for each in found
            ],
        )


def _check_log_page(request: task_pb2.GetTaskLogRequest) -> None:
    violations = []
    if request.offset < 0:
        violations.append(Violation("offset", "must not be negative"))
    if not 0 <= request.limit <= LOG_LIMIT:
        violations.append(Violation("limit", f"must be from 0 to {LOG_LIMIT}"))
    if request.attempt < 0:
        violations.append(Violation("attempt", "must not be negative"))
    if request.tail < 0:
        violations.append(Violation("tail", "must not be negative"))
    if request.since < 0:
        violations.append(Violation("since", "must not be negative"))
    if request.before_line < 0:
        violations.append(Violation("before_line", "must not be negative"))
    begins = [request.offset, request.tail or request.since, request.before_line]
    if sum(map(bool, begins)) > 1:
        text = "only one of offset, tail or since, and before_line says where to begin"
        violations.append(Violation("offset" if request.offset else "before_line", text))
    if violations:
        raise Invalid(violations)


def _update(request: task_pb2.UpdateTaskRequest, namespace: str) -> UpdateTask:
    mask = set(request.update_mask.paths)
    unknown = sorted(mask - set(MASK))
    if unknown:
        text = f"{unknown[0]!r} cannot be changed; only {', '.join(MASK)} can"
        raise Invalid([Violation("update_mask", text)])
    return UpdateTask(
        namespace,
        request.task_id,
        name=request.name if request.name or "name" in mask else None,
        commands=tuple(request.commands) if request.commands or "commands" in mask else None,
        env=dict(request.env) if request.env or "env" in mask else None,
        timeout=request.timeout if request.timeout or "timeout" in mask else None,
    )
