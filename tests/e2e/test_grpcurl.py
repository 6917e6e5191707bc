"""A whole task life by grpcurl alone, which knows the API from the server's reflection only."""

import json

import pytest

from tests.e2e.json_text import objects
from tests.e2e.processes import BIN, eventually

CREATE = "task.v1.TaskService/CreateTask"
GET = "task.v1.TaskService/GetTask"
FOLLOW = "stream.v1.StreamService/StreamTaskLog"


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server()


@pytest.fixture(scope="module")
def agent(shared, server):
    return shared.start_agent(server)


@pytest.fixture
def call(shared, server):
    def call(method, request):
        return shared.grpcurl("-d", json.dumps(request), server.grpc, method)

    return call


@pytest.fixture
def answer(call):
    def answer(method, request):
        outcome = call(method, request)
        assert outcome.returncode == 0, outcome.stderr
        return json.loads(outcome.stdout)

    return answer


def test_reflection_lists_the_services_and_describes_their_methods(shared, server):
    listed = shared.grpcurl(server.grpc, "list").stdout.split()
    assert listed == [
        "agent.v1.AgentService",
        "artifact.v1.ArtifactService",
        "audit.v1.AuditService",
        "auth.v1.AuthService",
        "catalog.v1.CatalogService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "hook.v1.HookService",
        "pipeline.v1.PipelineService",
        "schedule.v1.ScheduleService",
        "secret.v1.SecretService",
        "stream.v1.StreamService",
        "task.v1.TaskService",
    ]
    methods = shared.grpcurl(server.grpc, "list", "task.v1.TaskService").stdout.split()
    assert "task.v1.TaskService.CreateTask" in methods
    described = shared.grpcurl(server.grpc, "describe", "task.v1.CreateTaskRequest").stdout
    assert "repeated string commands = 4;" in described


@pytest.mark.parametrize("service", ["", "task.v1.TaskService", "agent.v1.AgentService"])
def test_health_is_told_for_each_service(answer, service):
    assert answer("grpc.health.v1.Health/Check", {"service": service}) == {"status": "SERVING"}


def test_a_task_is_created_followed_and_shown(shared, server, agent, answer, gate):
    script = ["echo begins", gate.wait, "echo ends >&2"]
    created = answer(CREATE, {"name": "by hand", "commands": script})
    assert created["success"] is True
    task_id = created["taskId"]
    data = json.dumps({"job_id": task_id, "follow": True})
    words = [BIN / "grpcurl", "-plaintext", "-d", data, server.grpc, FOLLOW]
    follower = shared.launcher.start("grpcurl", words)
    eventually(lambda: "begins" in follower.said(), within=20)
    running = answer(GET, {"task_id": task_id})["task"]
    assert running["status"] == "TASK_STATUS_RUNNING"
    gate.open()
    assert follower.wait() == 0
    first, second, last = objects(follower.said())
    assert first["logChunk"]["content"] == "begins"
    assert (second["logChunk"]["lineNumber"], second["logChunk"]["stream"]) == (2, "stderr")
    assert last["isComplete"] is True
    ended = answer(GET, {"task_id": task_id})["task"]
    assert (ended["status"], ended["name"]) == ("TASK_STATUS_SUCCESS", "by hand")
    assert ended["attempts"][0]["logState"] == "LOG_STATE_COMPLETE"


def test_an_unknown_task_is_refused_with_code_and_reason(call):
    outcome = call(GET, {"task_id": "nobody"})
    assert outcome.returncode != 0
    assert "Code: NotFound" in outcome.stderr
    assert "nobody" in outcome.stderr
    assert '"reason":"ERROR_REASON_UNKNOWN_RESOURCE"' in outcome.stderr


def test_bad_fields_are_named_in_the_details(call):
    outcome = call(CREATE, {"commands": [], "timeout": -1})
    assert "Code: InvalidArgument" in outcome.stderr
    assert '"field":"commands"' in outcome.stderr
    assert '"field":"timeout"' in outcome.stderr
