"""Agents that show who they are: how they enrol, what they may touch, and how they are revoked."""

import json
import stat
from dataclasses import dataclass

import grpc
import pytest

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc
from tests.e2e.kit import eventually
from tests.e2e.scripts import Gate

ON = ("--auth", "on")
VICTIM = "victim"


def bearer(token, namespace=None):
    shown = [("authorization", f"Bearer {token}")]
    return shown + ([("muster-namespace", namespace)] if namespace else [])


class Caller:
    """All services, as one caller."""

    def __init__(self, address, token):
        self.channel = grpc.insecure_channel(address)
        self.shown = bearer(token)
        self.agents = agent_pb2_grpc.AgentServiceStub(self.channel)
        self.auth = auth_pb2_grpc.AuthServiceStub(self.channel)
        self.pipelines = pipeline_pb2_grpc.PipelineServiceStub(self.channel)
        self.streams = stream_pb2_grpc.StreamServiceStub(self.channel)
        self.tasks = task_pb2_grpc.TaskServiceStub(self.channel)

    def __call__(self, method, request):
        return method(request, metadata=self.shown, timeout=10)

    def channel_says(self, *frames):
        """Return the answers on an agent's stream to these frames, until it ends."""
        return list(self.streams.AgentChannel(iter(frames), metadata=self.shown, timeout=10))


@pytest.fixture(scope="module")
def admin(shared):
    return shared.server_command("token", "root").stdout.strip()


@pytest.fixture(scope="module")
def server(shared, admin):
    return shared.start_server(*ON)


@pytest.fixture(scope="module")
def root(server, admin):
    return Caller(server.grpc, admin)


@pytest.fixture(scope="module")
def enrol(root):
    """Make enrolment tokens."""

    def make(uses=1, labels=None, namespace="default", **fields):
        request = auth_pb2.CreateTokenRequest(
            name="hosts", kind=auth_pb2.TOKEN_KIND_ENROL, uses=uses, labels=labels or {}, **fields
        )
        shown = [*root.shown, ("muster-namespace", namespace)]
        return root.auth.CreateToken(request, metadata=shown, timeout=10).text

    return make


def register(server, token, agent_id, **fields):
    return Caller(server.grpc, token).agents.Register(
        agent_pb2.RegisterRequest(agent_id=agent_id, held=agent_pb2.Held(), **fields),
        metadata=bearer(token),
        timeout=10,
    )


def refusal(method, *arguments, **fields):
    def to_its_end():
        answer = method(*arguments, **fields)
        return list(answer) if hasattr(answer, "__iter__") else answer

    with pytest.raises(grpc.RpcError) as refused:
        to_its_end()
    return refused.value


# ---- enrolling


def started(shared, server, enrol, name, *flags, token=None, **fields):
    file = shared.folder / f"{name}.token"
    file.write_text(token or enrol(**fields))
    shown = ("--name", name, "--enrolment-token-file", str(file), *flags)
    return shared.start_agent(server, *shown)


def test_a_host_enrols_once_and_comes_back_by_itself(shared, server, enrol, root):
    agent = started(shared, server, enrol, "host-1", labels={"pool": "gpu"})
    kept = agent.data_dir / "credential"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    detail = root(root.agents.GetAgent, agent_pb2.GetAgentRequest(agent_id="host-1")).agent
    assert detail.labels["pool"] == "gpu"
    agent.restart()  # the token is used up: its own credential lets it in
    agent.terminate()


def test_a_token_that_is_used_up_enrols_nobody(shared, server, enrol):
    token = enrol(uses=1)
    register(server, token, "first", credential_digest="0" * 64)
    error = refusal(register, server, token, "second")
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_an_agent_without_a_token_is_told_what_to_do(shared, server):
    done = shared.agent_refused(server, "--name", "stranger")
    assert done.returncode == 1
    assert "muster token enrol" in done.stderr


def test_locked_labels_stay(server, enrol, root):
    key = register(
        server, enrol(labels={"pool": "gpu"}), "locked", labels={"pool": "other", "own": "1"}
    ).agent_key
    agent = Caller(server.grpc, key)
    beat = agent_pb2.HeartbeatRequest(agent_id="locked", labels={"pool": "other", "own": "2"})
    agent(agent.agents.Heartbeat, beat)
    detail = root(root.agents.GetAgent, agent_pb2.GetAgentRequest(agent_id="locked")).agent
    assert (detail.labels["pool"], detail.labels["own"]) == ("gpu", "2")
    change = agent_pb2.UpdateLabelsRequest(agent_id="locked", labels={"pool": "x"}, merge=True)
    for caller in (agent, root):
        error = refusal(caller, caller.agents.UpdateLabels, change)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_enrolled_id_is_not_enrolled_again_by_another(server, enrol):
    register(server, enrol(), "taken", credential_digest="1" * 64)
    error = refusal(register, server, enrol(), "taken", credential_digest="2" * 64)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "muster agent revoke taken" in error.details()


def test_an_agent_of_another_namespace_is_not_taken_over(server, enrol):
    register(server, enrol(namespace="team-a"), "theirs", credential_digest="3" * 64)
    error = refusal(register, server, enrol(namespace="team-b"), "theirs")
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_v1_agent_shows_a_token_of_its_own(server, root):
    request = auth_pb2.CreateTokenRequest(name="v1", kind=auth_pb2.TOKEN_KIND_AGENT, agent_id="old")
    v1 = Caller(server.grpc, root(root.auth.CreateToken, request).text)
    v1(v1.agents.Register, agent_pb2.RegisterRequest(agent_id="old", max_concurrent_jobs=1))
    assert v1(v1.agents.Heartbeat, agent_pb2.HeartbeatRequest(agent_id="old")).success
    error = refusal(v1, v1.agents.Heartbeat, agent_pb2.HeartbeatRequest(agent_id=VICTIM))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED


# ---- namespaces


def test_an_agent_runs_tasks_of_its_own_namespace_alone(server, enrol, root):
    key = register(server, enrol(namespace="team-c"), "of-c", max_concurrent_jobs=4).agent_key
    agent = Caller(server.grpc, key)
    made = {}
    for namespace in ("team-c", "team-d"):
        shown = [*root.shown, ("muster-namespace", namespace)]
        request = task_pb2.CreateTaskRequest(commands=["true"])
        made[namespace] = root.tasks.CreateTask(request, metadata=shown, timeout=10).task_id
    wanted = agent_pb2.FetchTaskRequest(agent_id="of-c", max_jobs=4)
    fetched = agent(agent.agents.FetchTask, wanted).tasks
    assert [task.job_id for task in fetched] == [made["team-c"]]
    shown = [*root.shown, ("muster-namespace", "team-d")]
    explained = root.tasks.ExplainTask(
        task_pb2.ExplainTaskRequest(task_id=made["team-d"]), metadata=shown, timeout=10
    )
    assert "of-c" not in str(explained)


def test_how_much_another_namespace_has_to_do_is_not_told(server, enrol, root):
    wide = enrol(namespace="shared", server_wide=True)
    key = register(server, wide, "for-all", max_concurrent_jobs=1).agent_key
    agent = Caller(server.grpc, key)
    chosen = task_pb2.LabelSelector(match_labels={"agent": "for-all"})
    request = task_pb2.CreateTaskRequest(commands=["true"], label_selector=chosen)

    def create(namespace):
        shown = [*root.shown, ("muster-namespace", namespace)]
        return root.tasks.CreateTask(request, metadata=shown, timeout=10).task_id

    for _ in range(8):
        create("team-e")
    wanted = agent_pb2.FetchTaskRequest(agent_id="for-all", wait=5)
    assert len(agent(agent.agents.FetchTask, wanted).tasks) == 1  # it is full now
    waiting = create("team-f")
    shown = [*root.shown, ("muster-namespace", "team-f")]
    explained = root.tasks.ExplainTask(
        task_pb2.ExplainTaskRequest(task_id=waiting), metadata=shown, timeout=10
    )
    assert explained.tasks_of_others == 1
    assert "tasks of other namespaces take turns with it" in explained.message


# ---- what an agent may touch


@dataclass
class Scene:
    """A victim with a running task, and a rogue that knows all about both."""

    task_id: str
    lease_id: str
    session_id: str
    rogue: Caller


@pytest.fixture(scope="module")
def scene(shared, server, enrol, root, tmp_path_factory):
    gate = Gate(tmp_path_factory.mktemp("gate"))
    request = task_pb2.CreateTaskRequest(
        name="held", commands=["echo begun", gate.wait], label_selector=_only(VICTIM)
    )
    task_id = root(root.tasks.CreateTask, request).task_id
    agent = started(shared, server, enrol, VICTIM)
    eventually(lambda: _status(root, task_id) == task_pb2.TASK_STATUS_RUNNING)
    key = register(server, enrol(), "rogue", max_concurrent_jobs=10).agent_key
    session = root.agents.GetAgent(
        agent_pb2.GetAgentRequest(agent_id=VICTIM), metadata=root.shown, timeout=10
    )
    assert session.agent.agent_id == VICTIM
    yield Scene(task_id, f"{task_id}.1", "guessed", Caller(server.grpc, key))
    gate.open()
    eventually(lambda: _status(root, task_id) == task_pb2.TASK_STATUS_SUCCESS)
    agent.terminate()


def _only(agent_id):
    return task_pb2.LabelSelector(match_labels={"agent": agent_id})


def _status(root, task_id):
    return root(root.tasks.GetTask, task_pb2.GetTaskRequest(task_id=task_id)).task.status


def _frame(agent_id, **payload):
    return stream_pb2.AgentChannelRequest(agent_id=agent_id, request_id="1", **payload)


def _held(scene):
    held = agent_pb2.HeldLease(task_id=scene.task_id, lease_id=scene.lease_id)
    return agent_pb2.Held(leases=[held])


def _line():
    return stream_pb2.LogChunk(line_number=1, content="forged", stream="stdout")


SUCCESS = task_pb2.TASK_STATUS_SUCCESS
A, S = agent_pb2, stream_pb2
UNARY = {
    "register as the victim": lambda s: ("agents.Register", A.RegisterRequest(agent_id=VICTIM)),
    "register as the victim, with what it holds": lambda s: (
        "agents.Register", A.RegisterRequest(agent_id=VICTIM, held=_held(s))),
    "register as the victim, with a digest": lambda s: (
        "agents.Register", A.RegisterRequest(agent_id=VICTIM, credential_digest="9" * 64)),
    "heartbeat as the victim": lambda s: (
        "agents.Heartbeat", A.HeartbeatRequest(agent_id=VICTIM)),
    "heartbeat as the victim that holds nothing": lambda s: (
        "agents.Heartbeat", A.HeartbeatRequest(agent_id=VICTIM, held=A.Held())),
    "heartbeat with the victim's labels": lambda s: (
        "agents.Heartbeat", A.HeartbeatRequest(agent_id=VICTIM, labels={"x": "y"})),
    "unregister the victim": lambda s: (
        "agents.Unregister", A.UnregisterRequest(agent_id=VICTIM)),
    "fetch as the victim": lambda s: (
        "agents.FetchTask", A.FetchTaskRequest(agent_id=VICTIM, max_jobs=9)),
    "report as the victim, as v1": lambda s: (
        "agents.ReportTaskStatus",
        A.ReportTaskStatusRequest(agent_id=VICTIM, task_id=s.task_id, status=SUCCESS)),
    "report as the victim, with the lease": lambda s: (
        "agents.ReportTaskStatus",
        A.ReportTaskStatusRequest(
            agent_id=VICTIM, task_id=s.task_id, lease_id=s.lease_id, status=SUCCESS)),
    "report the victim's task as v1": lambda s: (
        "agents.ReportTaskStatus",
        A.ReportTaskStatusRequest(agent_id="rogue", task_id=s.task_id, status=SUCCESS)),
    "log as the victim": lambda s: (
        "agents.ReportTaskLog",
        A.ReportTaskLogRequest(agent_id=VICTIM, task_id=s.task_id, lease_id=s.lease_id)),
    "cancel as the victim": lambda s: (
        "agents.CancelTask", A.CancelTaskRequest(agent_id=VICTIM, job_id=s.task_id)),
    "cancel the victim's task": lambda s: (
        "agents.CancelTask", A.CancelTaskRequest(agent_id="rogue", job_id=s.task_id)),
    "change the victim's labels": lambda s: (
        "agents.UpdateLabels", A.UpdateLabelsRequest(agent_id=VICTIM, labels={"x": "y"})),
    "pause the victim": lambda s: (
        "agents.SetAgentState",
        A.SetAgentStateRequest(agent_id=VICTIM, action=A.AGENT_ACTION_PAUSE)),
    "configure the victim": lambda s: (
        "agents.ConfigureAgent", A.ConfigureAgentRequest(agent_id=VICTIM)),
    "revoke the victim": lambda s: (
        "agents.RevokeAgent", A.RevokeAgentRequest(agent_id=VICTIM)),
    "list agents": lambda s: ("agents.ListAgents", A.ListAgentsRequest()),
    "read the victim": lambda s: ("agents.GetAgent", A.GetAgentRequest(agent_id=VICTIM)),
    "read the task": lambda s: (
        "tasks.GetTask", task_pb2.GetTaskRequest(task_id=s.task_id)),
    "read the log": lambda s: (
        "tasks.GetTaskLog", task_pb2.GetTaskLogRequest(task_id=s.task_id)),
    "cancel the task": lambda s: (
        "tasks.CancelTask", task_pb2.CancelTaskRequest(task_id=s.task_id)),
    "delete the task": lambda s: (
        "tasks.DeleteTask", task_pb2.DeleteTaskRequest(task_id=s.task_id)),
    "update the task": lambda s: (
        "tasks.UpdateTask", task_pb2.UpdateTaskRequest(task_id=s.task_id)),
    "submit a task": lambda s: (
        "tasks.CreateTask", task_pb2.CreateTaskRequest(commands=["true"])),
    "make itself an administrator": lambda s: (
        "auth.CreateToken",
        auth_pb2.CreateTokenRequest(name="x", role=auth_pb2.ROLE_ADMIN)),
    "make itself another agent": lambda s: (
        "auth.CreateToken",
        auth_pb2.CreateTokenRequest(name="x", kind=auth_pb2.TOKEN_KIND_AGENT, agent_id=VICTIM)),
    "trigger a pipeline": lambda s: (
        "pipelines.TriggerPipeline", pipeline_pb2.TriggerPipelineRequest(pipeline_id="x")),
    "follow the log": lambda s: (
        "streams.StreamTaskLog", S.StreamTaskLogRequest(job_id=s.task_id)),
    "follow events": lambda s: ("streams.StreamEvents", S.StreamEventsRequest()),
}  # fmt: skip
STREAMED = {
    "open the victim's stream": lambda s: _frame(VICTIM, hello=S.Hello(session_id=s.session_id)),
    "open the victim's stream as v1": lambda s: _frame(
        VICTIM, task_status=S.TaskStatusUpdate(task_id=s.task_id, status=SUCCESS)
    ),
    "fetch on the victim's stream": lambda s: _frame(VICTIM, task_fetch=S.TaskFetchRequest()),
}
REFUSED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.ABORTED,
           grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}  # fmt: skip


def unharmed(root, scene):
    task = root(root.tasks.GetTask, task_pb2.GetTaskRequest(task_id=scene.task_id)).task
    assert task.status == task_pb2.TASK_STATUS_RUNNING
    agent = root(root.agents.GetAgent, agent_pb2.GetAgentRequest(agent_id=VICTIM)).agent
    assert agent.status in (agent_pb2.AGENT_STATUS_BUSY, agent_pb2.AGENT_STATUS_ONLINE)
    assert "x" not in agent.labels
    log = root(root.tasks.GetTaskLog, task_pb2.GetTaskLogRequest(task_id=scene.task_id))
    assert [line.content for line in log.logs] == ["begun"]


@pytest.mark.parametrize("attack", UNARY)
def test_a_rogue_agent_touches_nothing_of_anothers(scene, root, attack):
    path, request = UNARY[attack](scene)
    service, method = path.split(".")
    call = getattr(getattr(scene.rogue, service), method)
    error = refusal(call, request, metadata=scene.rogue.shown, timeout=10)
    assert error.code() in REFUSED, error
    unharmed(root, scene)


@pytest.mark.parametrize("attack", STREAMED)
def test_a_rogue_agent_takes_no_stream_of_anothers(scene, root, attack):
    error = refusal(scene.rogue.channel_says, STREAMED[attack](scene))
    assert error.code() in REFUSED, error
    unharmed(root, scene)


def test_a_rogue_agent_uploads_no_log_for_another(scene, root):
    for agent_id in (VICTIM, "rogue"):
        request = stream_pb2.UploadTaskLogRequest(
            agent_id=agent_id, task_id=scene.task_id, logs=[_line()]
        )
        upload = scene.rogue.streams.UploadTaskLog
        error = refusal(upload, iter([request]), metadata=scene.rogue.shown, timeout=10)
        assert error.code() in REFUSED, error
    unharmed(root, scene)


def test_a_rogue_agent_that_names_the_lease_is_told_that_it_is_not_its_own(scene, root):
    report = agent_pb2.ReportTaskStatusRequest(
        agent_id="rogue", task_id=scene.task_id, lease_id=scene.lease_id, status=SUCCESS
    )
    answer = scene.rogue(scene.rogue.agents.ReportTaskStatus, report)
    assert answer.verdict.action == agent_pb2.VERDICT_ACTION_SUPERSEDED
    held = agent_pb2.HeartbeatRequest(agent_id="rogue", held=_held(scene))
    verdicts = scene.rogue(scene.rogue.agents.Heartbeat, held).verdicts
    assert [each.action for each in verdicts] == [agent_pb2.VERDICT_ACTION_SUPERSEDED]
    unharmed(root, scene)


# ---- tasks


def test_a_task_reads_itself_and_nothing_else(shared, server, enrol, root, scene):
    started(shared, server, enrol, "runner")
    command = "printf %s \"$MUSTER_TOKEN\" | od -An -tx1 | tr -d ' \\n'"  # else it would be masked
    gate = Gate(shared.folder)
    request = task_pb2.CreateTaskRequest(
        commands=[f'echo "key=$({command})"', 'echo "plain=$MUSTER_TOKEN"', gate.wait],
        label_selector=_only("runner"),
    )
    task_id = root(root.tasks.CreateTask, request).task_id
    wanted = task_pb2.GetTaskLogRequest(task_id=task_id)

    def lines():
        return [line.content for line in root(root.tasks.GetTaskLog, wanted).logs]

    eventually(lambda: len(lines()) == 2)
    key, plain = lines()
    assert plain == "plain=***"
    task = Caller(server.grpc, bytes.fromhex(key.removeprefix("key=")).decode())
    own = task_pb2.GetTaskRequest(task_id=task_id)
    assert task(task.tasks.GetTask, own).task.task_id == task_id
    assert task(task.auth.WhoAmI, auth_pb2.WhoAmIRequest()).kind == "task"
    for path, other in (
        ("tasks.GetTask", task_pb2.GetTaskRequest(task_id=scene.task_id)),
        ("pipelines.GetRun", pipeline_pb2.GetRunRequest(run_id="another")),
        ("tasks.ListTasks", task_pb2.ListTasksRequest()),
        ("tasks.CreateTask", task_pb2.CreateTaskRequest(commands=["true"])),
        ("agents.Heartbeat", agent_pb2.HeartbeatRequest(agent_id="runner")),
        ("auth.ListTokens", auth_pb2.ListTokensRequest()),
    ):
        service, method = path.split(".")
        error = refusal(task, getattr(getattr(task, service), method), other)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED, path
    gate.open()
    eventually(lambda: _status(root, task_id) == SUCCESS)
    assert refusal(task, task.tasks.GetTask, own).code() is grpc.StatusCode.UNAUTHENTICATED


# ---- revoking


def test_a_revoked_agent_ends_at_once_and_does_not_come_back(shared, server, enrol, root):
    agent = started(shared, server, enrol, "bad")
    done = shared.cli(
        "agent", "revoke", "bad", "--reason", "stolen", server=server,
        env={"MUSTER_TOKEN": root.shown[0][1].removeprefix("Bearer ")},
    )  # fmt: skip
    assert done.stdout.startswith("1 credential revoked")
    assert agent.program.wait() == 1
    assert "refuses this agent" in agent.stderr.read_text()
    own = (agent.data_dir / "credential").read_text().strip()
    error = refusal(register, server, own, "bad")
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    register(server, enrol(), "bad", credential_digest="7" * 64)  # enrolled anew


def test_nothing_that_counts_is_in_the_agents_log_or_arguments(shared, server):
    secrets = [file.read_text() for file in shared.folder.glob("*.token")]
    secrets += [file.read_text().strip() for file in shared.folder.glob("agent*/credential")]
    told = json.dumps([text for _, text in shared.stderr()])
    files = [file for file in server.data_dir.rglob("*") if file.is_file()]
    for secret in secrets:
        assert secret not in told
        assert not any(secret.encode() in file.read_bytes() for file in files)
