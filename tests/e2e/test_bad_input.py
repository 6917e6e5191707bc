"""Bad input is refused with a code and the path of each bad field, and leaves nothing behind."""

import uuid

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from generated.agent.v1 import agent_pb2
from generated.audit.v1 import audit_pb2
from generated.auth.v1 import auth_pb2
from generated.hook.v1 import hook_pb2
from generated.pipeline.v1 import pipeline_pb2
from generated.schedule.v1 import schedule_pb2
from generated.secret.v1 import secret_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2
from tests.e2e.api import Api, refusal
from tests.e2e.messages import messages

NOBODY = "01928f6e-0000-7000-8000-000000000000"
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server()


async def stored(api: Api) -> tuple:
    """Return what there is."""
    tasks = await api.tasks.ListTasks(task_pb2.ListTasksRequest())
    pipelines = await api.pipelines.ListPipelines(pipeline_pb2.ListPipelinesRequest())
    runs = await api.pipelines.ListRuns(pipeline_pb2.ListRunsRequest())
    agents = await api.agents.ListAgents(agent_pb2.ListAgentsRequest())
    return tasks.total, pipelines.total, len(runs.runs), len(agents.agents)


async def refused_as_invalid(api: Api, method, request, *paths: str) -> None:
    before = await stored(api)
    refused = await refusal(method(request))
    assert (refused.code, refused.reason) == (CODE.INVALID_ARGUMENT, "INVALID_FIELD")
    assert sorted(refused.fields) == sorted(paths), refused
    assert all(refused.fields.values())
    assert "Traceback" not in refused.message
    assert await stored(api) == before


# ---- tasks


def expression(key="cores", operator=task_pb2.LABEL_OPERATOR_IN, values=("1",)):
    return {"match_expressions": [{"key": key, "operator": operator, "values": values}]}


AT = "label_selector.match_expressions[0]"
GT, LT = task_pb2.LABEL_OPERATOR_GT, task_pb2.LABEL_OPERATOR_LT
BAD_TASKS = {
    "no commands": ({"commands": []}, ["commands"]),
    "a blank command": ({"commands": ["true", " \t"]}, ["commands[1]"]),
    "NUL in a command": ({"commands": ["a\0b"]}, ["commands[0]"]),
    "negative timeout": ({"timeout": -1}, ["timeout"]),
    "too long a timeout": ({"timeout": 31_536_001}, ["timeout"]),
    "too high a priority": ({"priority": 10}, ["priority"]),
    "negative priority": ({"priority": -1}, ["priority"]),
    "negative limit of the wait": ({"schedule_to_start": -1}, ["schedule_to_start"]),
    "too long a limit of the wait": ({"schedule_to_start": 2**31 - 1}, ["schedule_to_start"]),
    "group without a key": ({"concurrency": {"limit": 1}}, ["concurrency.key"]),
    "group with a long key": ({"concurrency": {"key": "k" * 129}}, ["concurrency.key"]),
    "NUL in the key of a group": ({"concurrency": {"key": "k\0"}}, ["concurrency.key"]),
    "negative places": ({"concurrency": {"key": "k", "limit": -1}}, ["concurrency.limit"]),
    "too many places": ({"concurrency": {"key": "k", "limit": 10_001}}, ["concurrency.limit"]),
    "unknown policy of a group": (
        {"concurrency": {"key": "k", "on_conflict": 7}},
        ["concurrency.on_conflict"],
    ),
    "negative stage": ({"stage": -1}, ["stage"]),
    "negative retries": ({"retry_count": -1}, ["retry_count"]),
    "too many retries": ({"retry_count": 101}, ["retry_count"]),
    "NUL in the name": ({"name": "a\0"}, ["name"]),
    "control character in the name": ({"name": "a\x1b[31mb"}, ["name"]),
    "C1 control in the name": ({"name": "a\x85"}, ["name"]),
    "line break in the name": ({"name": "a\nb"}, ["name"]),
    "long name": ({"name": "n" * 257}, ["name"]),
    "variable's name": ({"env": {"1A": "x"}}, ["env[1A]"]),
    "empty variable's name": ({"env": {"": "x"}}, ["env[]"]),
    "reserved variable": ({"env": {"MUSTER_TASK": "x"}}, ["env[MUSTER_TASK]"]),
    "NUL in a variable": ({"env": {"A": "\0"}}, ["env[A]"]),
    "a variable too long to run": ({"env": {"A": "x" * 131_072}}, ["env[A]"]),
    "workspace upwards": ({"workspace": "a/../../b"}, ["workspace"]),
    "absolute workspace": ({"workspace": "/etc"}, ["workspace"]),
    "NUL in the workspace": ({"workspace": "a\0"}, ["workspace"]),
    "unknown executor": ({"executor": "rocket"}, ["executor"]),
    "unknown priority": ({"labels": {"priority": "urgent"}}, ["labels[priority]"]),
    "malformed label": ({"labels": {"a b": "c"}}, ["labels[a b]"]),
    "dangling dependency": ({"depends_on": [NOBODY]}, ["depends_on[0]"]),
    "empty dependency": ({"depends_on": [""]}, ["depends_on[0]"]),
    "unknown pipeline": ({"pipeline_id": NOBODY}, ["pipeline_id"]),
    "artifact without a name": ({"artifacts": [{"path": "a"}]}, ["artifacts[0].name"]),
    "artifact outside": ({"artifacts": [{"name": "a", "path": "../a"}]}, ["artifacts[0].path"]),
    "request id with a control character": ({"request_id": "a\n"}, ["request_id"]),
    "request id too long": ({"request_id": "r" * 129}, ["request_id"]),
    "selector key": (
        {"label_selector": {"match_labels": {"a b": "c"}}},
        ["label_selector.match_labels[a b]"],
    ),
    "selector value": (
        {"label_selector": {"match_labels": {"a": "\0"}}},
        ["label_selector.match_labels[a]"],
    ),
    "expression without key": ({"label_selector": expression(key="")}, [f"{AT}.key"]),
    "no operator": ({"label_selector": expression(operator=0)}, [f"{AT}.operator"]),
    "unknown operator": ({"label_selector": expression(operator=99)}, [f"{AT}.operator"]),
    "IN without values": ({"label_selector": expression(values=())}, [f"{AT}.values"]),
    "EXISTS with a value": ({"label_selector": expression(operator=3)}, [f"{AT}.values"]),
    "GT without a value": (
        {"label_selector": expression(operator=GT, values=())},
        [f"{AT}.values"],
    ),
    "GT with two": ({"label_selector": expression(operator=GT, values="12")}, [f"{AT}.values"]),
    "GT with a word": ({"label_selector": expression(operator=GT, values=["x"])}, [f"{AT}.values"]),
    "GT beyond 64 bits": (
        {"label_selector": expression(operator=GT, values=[str(2**63)])},
        [f"{AT}.values"],
    ),
    "LT below 64 bits": (
        {"label_selector": expression(operator=LT, values=[str(-(2**63) - 1)])},
        [f"{AT}.values"],
    ),
    "several at once": (
        {"commands": [""], "timeout": -5, "name": "\0"},
        ["commands[0]", "name", "timeout"],
    ),
}


@pytest.mark.parametrize(("fields", "paths"), BAD_TASKS.values(), ids=BAD_TASKS)
async def test_a_bad_task_is_refused_by_its_fields(api: Api, fields, paths):
    request = task_pb2.CreateTaskRequest(**{"commands": ["true"], **fields})
    await refused_as_invalid(api, api.tasks.CreateTask, request, *paths)


GOOD = {"commands": ["true"]}
BAD_BATCHES = {
    "none at all": ([], ["tasks"]),
    "a key alone is no harm, a bad command is": (
        [{"key": "a", **GOOD}, {"commands": [""]}],
        ["tasks[1].commands[0]"],
    ),
    "every bad task is named": (
        [{"commands": []}, {"timeout": -1, **GOOD}],
        ["tasks[0].commands", "tasks[1].timeout"],
    ),
    "a key twice": ([{"key": "a", **GOOD}, {"key": "a", **GOOD}], ["tasks[1].key"]),
    "a dangling key": ([{"depends_on": ["b"], **GOOD}], ["tasks[0].depends_on[0]"]),
    "a request id of its own": ([{"request_id": "r", **GOOD}], ["tasks[0].request_id"]),
    "a circle": (
        [{"key": "a", "depends_on": ["b"], **GOOD}, {"key": "b", "depends_on": ["a"], **GOOD}],
        ["tasks"],
    ),
}


@pytest.mark.parametrize(("tasks", "paths"), BAD_BATCHES.values(), ids=BAD_BATCHES)
async def test_a_bad_batch_is_refused_whole(api: Api, tasks, paths):
    await refused_as_invalid(
        api, api.tasks.CreateTasks, task_pb2.CreateTasksRequest(tasks=tasks), *paths
    )


async def test_a_single_task_has_no_key(api: Api):
    request = task_pb2.CreateTaskRequest(commands=["true"], key="a")
    await refused_as_invalid(api, api.tasks.CreateTask, request, "key")


async def test_secrets_that_come_along_are_not_stored_in_plain_text(api: Api, server):
    secrets, request_id = {"TOKEN": "hunter2-very-secret"}, str(uuid.uuid4())
    first = await api.create("true", secrets=secrets, request_id=request_id)
    assert await api.create("true", secrets=secrets, request_id=request_id) == first
    other = api.create("true", secrets={"TOKEN": "another-secret"}, request_id=request_id)
    assert (await refusal(other)).reason == "REQUEST_ID_REUSED"
    await api.tasks.DeleteTask(task_pb2.DeleteTaskRequest(task_id=first))
    for file in server.data_dir.rglob("*"):
        assert file.is_dir() or b"hunter2" not in file.read_bytes()
    assert "hunter2" not in server.stderr.read_text()


async def test_a_secret_too_short_to_be_masked_is_named(api: Api):
    request = task_pb2.CreateTaskRequest(commands=["true"], secrets={"PIN": "123"})
    await refused_as_invalid(api, api.tasks.CreateTask, request, "secrets[PIN]")


BAD_UPDATES = {
    "blank command": ({"commands": [" "]}, ["commands[0]"]),
    "no commands by mask": ({"update_mask": FieldMask(paths=["commands"])}, ["commands"]),
    "negative timeout": ({"timeout": -1}, ["timeout"]),
    "control character": ({"name": "\x07"}, ["name"]),
    "variable": ({"env": {"A-B": "1"}}, ["env[A-B]"]),
    "unknown field in the mask": ({"update_mask": FieldMask(paths=["image"])}, ["update_mask"]),
}


@pytest.mark.parametrize(("fields", "paths"), BAD_UPDATES.values(), ids=BAD_UPDATES)
async def test_a_bad_change_changes_nothing(api: Api, fields, paths):
    task_id = await api.create("true", name="as it was", timeout=7)
    before = await api.task(task_id)
    request = task_pb2.UpdateTaskRequest(task_id=task_id, **fields)
    await refused_as_invalid(api, api.tasks.UpdateTask, request, *paths)
    assert await api.task(task_id) == before
    await api.cancel(task_id)


# ---- pipelines


def job(name="j", **fields):
    return {"name": name, "commands": ["true"], **fields}


def pipeline(*stages, **fields):
    return {"name": "bad", "stages": stages, **fields}


def side_by_side(*jobs):
    return {"name": "s", "jobs": jobs, "parallel": True}


J = "stages[0].jobs[0]"
BAD_PIPELINES = {
    "no stages": (pipeline(), ["stages"]),
    "no jobs": (pipeline({"name": "s"}), ["stages[0].jobs"]),
    "no name": ({**pipeline(side_by_side(job())), "name": ""}, ["name"]),
    "control character": ({**pipeline(side_by_side(job())), "name": "a\tb"}, ["name"]),
    "unknown trigger type": (pipeline(side_by_side(job()), trigger_type=42), ["trigger_type"]),
    "variable": (pipeline(side_by_side(job()), env={"A=B": ""}), ["env[A=B]"]),
    "job without name": (pipeline(side_by_side(job(""))), [f"{J}.name"]),
    "job without commands": (pipeline(side_by_side(job(commands=[]))), [f"{J}.commands"]),
    "job with NUL": (pipeline(side_by_side(job(commands=["\0"]))), [f"{J}.commands[0]"]),
    "job's timeout": (pipeline(side_by_side(job(timeout=-1))), [f"{J}.timeout"]),
    "job's retry": (pipeline(side_by_side(job(retry=101))), [f"{J}.retry"]),
    "job's selector": (
        pipeline(side_by_side(job(label_selector=expression(values=())))),
        [f"{J}.label_selector.match_expressions[0].values"],
    ),
    "two jobs of one name": (
        pipeline(side_by_side(job(), job())),
        ["stages[0].jobs[1].name"],
    ),
    "two stages of one name": (
        pipeline(side_by_side(job("a")), side_by_side(job("b"))),
        ["stages[1].name"],
    ),
    "dangling": (pipeline(side_by_side(job(depends_on=["who"]))), [f"{J}.depends_on[0]"]),
    "itself": (pipeline(side_by_side(job("a", depends_on=["a"]))), ["stages"]),
    "a cycle": (
        pipeline(side_by_side(job("a", depends_on=["b"]), job("b", depends_on=["a"]))),
        ["stages"],
    ),
    "a cycle with the order": (
        pipeline({"name": "s", "jobs": [job("a", depends_on=["b"]), job("b")]}),
        ["stages"],
    ),
    "a later stage": (
        pipeline(side_by_side(job("a", depends_on=["b"])), {"name": "t", "jobs": [job("b")]}),
        [f"{J}.depends_on[0]"],
    ),
}


@pytest.mark.parametrize(("fields", "paths"), BAD_PIPELINES.values(), ids=BAD_PIPELINES)
async def test_a_bad_pipeline_is_refused_by_its_fields(api: Api, fields, paths):
    request = pipeline_pb2.CreatePipelineRequest(**fields)
    await refused_as_invalid(api, api.pipelines.CreatePipeline, request, *paths)


async def test_a_bad_trigger_starts_nothing(api: Api):
    pipeline_id = await api.define("good", [side_by_side(job())])
    request = pipeline_pb2.TriggerPipelineRequest(pipeline_id=pipeline_id, env={"1": ""})
    await refused_as_invalid(api, api.pipelines.TriggerPipeline, request, "env[1]")
    request = pipeline_pb2.StopPipelineRequest(pipeline_id=pipeline_id, reason="r" * 1025)
    await refused_as_invalid(api, api.pipelines.StopPipeline, request, "reason")


# ---- pages, filters, cursors

TOO_MANY = 1001
BAD_LISTS = {
    "tasks, page size": ("tasks.ListTasks", {"page_size": TOO_MANY}, ["page_size"]),
    "tasks, negative size": ("tasks.ListTasks", {"page_size": -1}, ["page_size"]),
    "tasks, page": ("tasks.ListTasks", {"page": -1}, ["page"]),
    "tasks, token": ("tasks.ListTasks", {"page_token": "x"}, ["page_token"]),
    "tasks, huge token": ("tasks.ListTasks", {"page_token": "9" * 30}, ["page_token"]),
    "tasks, sort": ("tasks.ListTasks", {"sort_by": "commands"}, ["sort_by"]),
    "tasks, status": ("tasks.ListTasks", {"status": 77}, ["status"]),
    "pipelines, size": ("pipelines.ListPipelines", {"page_size": TOO_MANY}, ["page_size"]),
    "pipelines, token": ("pipelines.ListPipelines", {"page_token": "-1"}, ["page_token"]),
    "pipelines, sort": ("pipelines.ListPipelines", {"sort_by": "id"}, ["sort_by"]),
    "pipelines, status": ("pipelines.ListPipelines", {"status": -1}, ["status"]),
    "runs, size": ("pipelines.ListRuns", {"page_size": TOO_MANY}, ["page_size"]),
    "runs, token": ("pipelines.ListRuns", {"page_token": "²"}, ["page_token"]),
    "runs, status": ("pipelines.ListRuns", {"status": 7}, ["status"]),
    "agents, size": ("agents.ListAgents", {"page_size": TOO_MANY}, ["page_size"]),
    "agents, status": ("agents.ListAgents", {"status": 5}, ["status"]),
    "agents, selector": (
        "agents.ListAgents",
        {"label_selector": expression(operator=GT, values=["x"])},
        ["label_selector.match_expressions[0].values"],
    ),
}
REQUESTS = {
    "tasks.ListTasks": task_pb2.ListTasksRequest,
    "pipelines.ListPipelines": pipeline_pb2.ListPipelinesRequest,
    "pipelines.ListRuns": pipeline_pb2.ListRunsRequest,
    "agents.ListAgents": agent_pb2.ListAgentsRequest,
}


@pytest.mark.parametrize(("method", "fields", "paths"), BAD_LISTS.values(), ids=BAD_LISTS)
async def test_a_bad_page_is_refused_by_its_fields(api: Api, method, fields, paths):
    service, name = method.split(".")
    call = getattr(getattr(api, service), name)
    await refused_as_invalid(api, call, REQUESTS[method](**fields), *paths)


BAD_LOG_PAGES = {
    "offset": ({"offset": -1}, ["offset"]),
    "limit": ({"limit": 10_001}, ["limit"]),
    "negative limit": ({"limit": -1}, ["limit"]),
    "attempt": ({"attempt": -1}, ["attempt"]),
}


@pytest.mark.parametrize(("fields", "paths"), BAD_LOG_PAGES.values(), ids=BAD_LOG_PAGES)
async def test_a_bad_page_of_a_log_is_refused(api: Api, fields, paths):
    request = task_pb2.GetTaskLogRequest(task_id=NOBODY, **fields)
    await refused_as_invalid(api, api.tasks.GetTaskLog, request, *paths)


async def first(call):
    return await call.read()


BAD_STREAMS = {
    "no filter": ({}, ["task_ids"]),
    "too many": ({"task_ids": [str(n) for n in range(1001)]}, ["task_ids"]),
    "cursor": ({"task_ids": ["a"], "after": "yesterday"}, ["after"]),
    "cursor beyond 64 bits": ({"task_ids": ["a"], "after": "9" * 25}, ["after"]),
}


@pytest.mark.parametrize(("fields", "paths"), BAD_STREAMS.values(), ids=BAD_STREAMS)
async def test_a_bad_stream_of_statuses_is_refused(api: Api, fields, paths):
    def call(request):
        return first(api.streams.StreamTaskStatus(request, timeout=10))

    request = stream_pb2.StreamTaskStatusRequest(**fields)
    await refused_as_invalid(api, call, request, *paths)


# ---- agents

BAD_AGENTS = {
    "id": ({"agent_id": "a b"}, ["agent_id"]),
    "long id": ({"agent_id": "a" * 129}, ["agent_id"]),
    "NUL in the id": ({"agent_id": "a\0"}, ["agent_id"]),
    "host name": ({"hostname": "h\n"}, ["hostname"]),
    "slots": ({"max_concurrent_jobs": -1}, ["max_concurrent_jobs"]),
    "too many slots": ({"max_concurrent_jobs": 10_001}, ["max_concurrent_jobs"]),
    "label": ({"labels": {"": "x"}}, ["labels[]"]),
    "label's value": ({"labels": {"a": "b\0"}}, ["labels[a]"]),
    "plugin": ({"installed_plugins": ["a@1", ""]}, ["installed_plugins[1]"]),
}


@pytest.mark.parametrize(("fields", "paths"), BAD_AGENTS.values(), ids=BAD_AGENTS)
async def test_a_bad_agent_is_refused_by_its_fields(api: Api, fields, paths):
    request = agent_pb2.RegisterRequest(**fields)
    await refused_as_invalid(api, api.agents.Register, request, *paths)


BAD_WORDS = {
    "heartbeat": ("Heartbeat", {"labels": {" ": ""}}, ["labels[ ]"]),
    "heartbeat's slots": ("Heartbeat", {"max_concurrent_jobs": -1}, ["max_concurrent_jobs"]),
    "fetch": ("FetchTask", {"max_jobs": -1}, ["max_jobs"]),
    "fetch's wait": ("FetchTask", {"wait": -1}, ["wait"]),
    "labels": ("UpdateLabels", {"labels": {"a": "\x00"}}, ["labels[a]"]),
    "leaving": ("Unregister", {"reason": "\0"}, ["reason"]),
    "status": ("ReportTaskStatus", {"task_id": "t", "status": 99}, ["status"]),
    "no status": ("ReportTaskStatus", {"task_id": "t"}, ["status"]),
    "a status agents do not report": (
        "ReportTaskStatus",
        {"task_id": "t", "status": task_pb2.TASK_STATUS_SKIPPED},
        ["status"],
    ),
    "time": (
        "ReportTaskStatus",
        {"task_id": "t", "status": task_pb2.TASK_STATUS_RUNNING, "start_time": 2**62},
        ["start_time"],
    ),
    "holes in the log": (
        "ReportTaskLog",
        {"task_id": "t", "logs": [{"line_number": 1}, {"line_number": 3}]},
        ["logs[1].line_number"],
    ),
    "stream": ("ReportTaskLog", {"logs": [{"stream": "stdin"}]}, ["logs[0].stream"]),
}


@pytest.mark.parametrize(("method", "fields", "paths"), BAD_WORDS.values(), ids=BAD_WORDS)
async def test_a_bad_word_of_an_agent_is_refused(api: Api, method, fields, paths):
    await api.agents.Register(agent_pb2.RegisterRequest(agent_id="talker"))
    description = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].methods_by_name[method]
    request = GetMessageClass(description.input_type)(agent_id="talker", **fields)
    await refused_as_invalid(api, getattr(api.agents, method), request, *paths)


# ---- ids that nobody has

IDS = {
    "uuid": NOBODY,
    "word": "nobody",
    "empty": "",
    "NUL": "a\0b",
    "long": "x" * 5000,
    "injection": "' OR 1=1 --",
    "other script": "任务",
}
RUNNING = task_pb2.TASK_STATUS_RUNNING
BY_ID = {
    "GetTask": lambda a, i: a.tasks.GetTask(task_pb2.GetTaskRequest(task_id=i)),
    "UpdateTask": lambda a, i: a.tasks.UpdateTask(
        task_pb2.UpdateTaskRequest(task_id=i, name="new")
    ),
    "DeleteTask": lambda a, i: a.tasks.DeleteTask(task_pb2.DeleteTaskRequest(task_id=i)),
    "CancelTask": lambda a, i: a.tasks.CancelTask(task_pb2.CancelTaskRequest(task_id=i)),
    "RetryTask": lambda a, i: a.tasks.RetryTask(task_pb2.RetryTaskRequest(task_id=i)),
    "GetTaskLog": lambda a, i: a.tasks.GetTaskLog(task_pb2.GetTaskLogRequest(task_id=i)),
    "GetPipeline": lambda a, i: a.pipelines.GetPipeline(
        pipeline_pb2.GetPipelineRequest(pipeline_id=i)
    ),
    "TriggerPipeline": lambda a, i: a.pipelines.TriggerPipeline(
        pipeline_pb2.TriggerPipelineRequest(pipeline_id=i)
    ),
    "StopPipeline": lambda a, i: a.pipelines.StopPipeline(
        pipeline_pb2.StopPipelineRequest(pipeline_id=i)
    ),
    "GetRun": lambda a, i: a.pipelines.GetRun(pipeline_pb2.GetRunRequest(run_id=i)),
    "GetAgent": lambda a, i: a.agents.GetAgent(agent_pb2.GetAgentRequest(agent_id=i)),
    "Heartbeat": lambda a, i: a.agents.Heartbeat(agent_pb2.HeartbeatRequest(agent_id=i)),
    "Unregister": lambda a, i: a.agents.Unregister(agent_pb2.UnregisterRequest(agent_id=i)),
    "FetchTask": lambda a, i: a.agents.FetchTask(agent_pb2.FetchTaskRequest(agent_id=i)),
    "UpdateLabels": lambda a, i: a.agents.UpdateLabels(agent_pb2.UpdateLabelsRequest(agent_id=i)),
    "ReportTaskStatus, agent": lambda a, i: a.agents.ReportTaskStatus(
        agent_pb2.ReportTaskStatusRequest(agent_id=i, task_id=NOBODY, status=RUNNING)
    ),
    "ReportTaskStatus, task": lambda a, i: a.agents.ReportTaskStatus(
        agent_pb2.ReportTaskStatusRequest(agent_id="talker", task_id=i, status=RUNNING)
    ),
    "ReportTaskLog, agent": lambda a, i: a.agents.ReportTaskLog(
        agent_pb2.ReportTaskLogRequest(agent_id=i, task_id=NOBODY)
    ),
    "ReportTaskLog, task": lambda a, i: a.agents.ReportTaskLog(
        agent_pb2.ReportTaskLogRequest(agent_id="talker", task_id=i)
    ),
    "agent's CancelTask": lambda a, i: a.agents.CancelTask(
        agent_pb2.CancelTaskRequest(agent_id="talker", job_id=i)
    ),
    "StreamTaskLog": lambda a, i: first(
        a.streams.StreamTaskLog(stream_pb2.StreamTaskLogRequest(job_id=i, follow=True))
    ),
    "StreamTaskStatus": lambda a, i: first(
        a.streams.StreamTaskStatus(stream_pb2.StreamTaskStatusRequest(task_ids=[i]))
    ),
    "StreamTaskStatus, pipeline": lambda a, i: first(
        a.streams.StreamTaskStatus(stream_pb2.StreamTaskStatusRequest(pipeline_id=i or "-"))
    ),
    "StreamTaskStatus, run": lambda a, i: first(
        a.streams.StreamTaskStatus(stream_pb2.StreamTaskStatusRequest(run_id=i or "-"))
    ),
    "UploadTaskLog": lambda a, i: a.streams.UploadTaskLog(
        iter([stream_pb2.UploadTaskLogRequest(agent_id="talker", task_id=i)])
    ),
    "AgentChannel": lambda a, i: first(
        a.streams.AgentChannel(
            iter([stream_pb2.AgentChannelRequest(agent_id=i, hello={"session_id": "s"})])
        )
    ),
    "AgentChannel, v1": lambda a, i: first(
        a.streams.AgentChannel(iter([stream_pb2.AgentChannelRequest(agent_id=i, heartbeat={})]))
    ),
}


@pytest.mark.parametrize("unknown", IDS.values(), ids=IDS)
@pytest.mark.parametrize("call", BY_ID.values(), ids=BY_ID)
async def test_an_id_that_nobody_has_is_not_found(api: Api, call, unknown):
    await api.agents.Register(agent_pb2.RegisterRequest(agent_id="talker"))
    before = await stored(api)
    refused = await refusal(call(api, unknown))
    assert (refused.code, refused.reason) == (CODE.NOT_FOUND, "UNKNOWN_RESOURCE")
    assert await stored(api) == before


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("unary_unary", "task.v1.TaskService/CreateTask"),
        ("unary_stream", "stream.v1.StreamService/StreamTaskLog"),
        ("stream_unary", "stream.v1.StreamService/UploadTaskLog"),
        ("stream_stream", "stream.v1.StreamService/AgentChannel"),
    ],
)
async def test_bytes_that_are_no_message_are_bad_input_too(api: Api, kind, method):
    call = getattr(api.channel, kind)(f"/{method}")
    sent = iter([b"\xff\xff"]) if kind.startswith("stream") else b"\xff\xff"
    answer = call(sent)
    refused = await refusal(first(answer) if kind.endswith("stream") else answer)
    assert (refused.code, list(refused.fields)) == (CODE.INVALID_ARGUMENT, ["request"])


async def test_a_method_that_does_not_exist_is_unimplemented(api: Api):
    refused = await refusal(api.channel.unary_unary("/task.v1.TaskService/No")(b""))
    assert refused.code is CODE.UNIMPLEMENTED


@pytest.mark.parametrize("namespace", ["UPPER", "a b", "n" * 64, "../x"])
async def test_a_bad_namespace_is_refused(api: Api, namespace):
    call = api.tasks.ListTasks(
        task_pb2.ListTasksRequest(), metadata=(("muster-namespace", namespace),)
    )
    refused = await refusal(call)
    assert refused.code is CODE.INVALID_ARGUMENT
    assert list(refused.fields) == ["muster-namespace"]


# ---- anything at all

SERVICES = [
    file.DESCRIPTOR.services_by_name[name]
    for file, name in (
        (agent_pb2, "AgentService"),
        (audit_pb2, "AuditService"),
        (auth_pb2, "AuthService"),
        (secret_pb2, "SecretService"),
        (hook_pb2, "HookService"),
        (schedule_pb2, "ScheduleService"),
        (pipeline_pb2, "PipelineService"),
        (stream_pb2, "StreamService"),
        (task_pb2, "TaskService"),
    )
]
UNARY = [
    method
    for service in SERVICES
    for method in service.methods
    if not (method.client_streaming or method.server_streaming)
]
# Whatever else happens to a wrong request, it is the caller's to mend.
FINE = {
    CODE.OK,
    CODE.INVALID_ARGUMENT,
    CODE.NOT_FOUND,
    CODE.ALREADY_EXISTS,
    CODE.FAILED_PRECONDITION,
    CODE.ABORTED,
    CODE.UNIMPLEMENTED,
    CODE.UNAUTHENTICATED,  # LogIn, where people do not log in
}
# The same examples every time: what fails once fails again.
anything = settings(max_examples=40, derandomize=True, database=None)


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel


@pytest.fixture(scope="module")
def known(channel):
    """Ids that exist, so that some calls get further than the first look-up."""

    def call(method, request):
        service, name = method.rsplit("/", 1)
        kind = next(m for m in UNARY if (m.containing_service.full_name, m.name) == (service, name))
        stub = channel.unary_unary(
            f"/{method}",
            lambda message: message.SerializeToString(),
            GetMessageClass(kind.output_type).FromString,
        )
        return stub(request, timeout=10)

    task = call("task.v1.TaskService/CreateTask", task_pb2.CreateTaskRequest(commands=["true"]))
    run = pipeline_pb2.CreatePipelineRequest(name=uuid.uuid4().hex, stages=[side_by_side(job())])
    made = call("pipeline.v1.PipelineService/CreatePipeline", run)
    agent = agent_pb2.RegisterRequest(agent_id="fuzzed", max_concurrent_jobs=5)
    call("agent.v1.AgentService/Register", agent)
    return [task.task_id, made.pipeline_id, "fuzzed"]


def outcome(call, *arguments) -> grpc.StatusCode:
    try:
        call(*arguments)
    except grpc.RpcError as error:
        return error.code()
    return CODE.OK


@pytest.mark.parametrize("method", UNARY, ids=lambda method: method.full_name)
def test_no_request_whatever_is_a_bug_of_the_server(channel, known, method):
    stub = channel.unary_unary(f"/{method.containing_service.full_name}/{method.name}")

    @anything
    @given(messages(method.input_type, known))
    def try_it(message):
        if method.name == "FetchTask" and message.wait > 0:
            message.wait = 0  # it would wait, rightly
        code = outcome(lambda: stub(message.SerializeToString(), timeout=10))
        assert code in FINE, f"{code}: {message}"

    try_it()


def test_no_frames_whatever_on_a_channel_are_a_bug_of_the_server(channel, known):
    frame = messages(stream_pb2.AgentChannelRequest.DESCRIPTOR, known)
    stub = channel.stream_stream("/stream.v1.StreamService/AgentChannel")

    @anything
    @given(st.lists(frame, min_size=1, max_size=4))
    def try_it(frames):
        frames[0].agent_id = "fuzzed"
        sent = iter([frame.SerializeToString() for frame in frames])
        code = outcome(lambda: list(stub(sent, timeout=10)))
        assert code in FINE, f"{code}: {frames}"

    try_it()
