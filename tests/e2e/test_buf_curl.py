"""The same task life by buf curl, with the schema from reflection and from the .proto files."""

import json
from base64 import b64decode

import pytest
from google.rpc import error_details_pb2 as details

from tests.e2e.json_text import objects
from tests.e2e.processes import BIN, ROOT, eventually

GET = "task.v1.TaskService/GetTask"
CURL = ("curl", "--protocol", "grpc", "--http2-prior-knowledge")
SCHEMAS = {"reflection": (), "protos": ("--schema", str(ROOT / "proto"))}


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server()


@pytest.fixture(scope="module")
def agent(shared, server):
    return shared.start_agent(server)


@pytest.fixture(params=SCHEMAS)
def words(request, server):
    def words(method, message):
        data = ("--data", json.dumps(message))
        return [*CURL, *SCHEMAS[request.param], *data, f"http://{server.grpc}/{method}"]

    return words


def test_a_task_is_created_followed_and_shown(shared, agent, words, gate):
    def answer(method, message):
        outcome = shared.buf(*words(method, message))
        assert outcome.returncode == 0, outcome.stderr
        return json.loads(outcome.stdout)

    create = {"commands": ["echo begins", gate.wait, "echo ends"], "env": {"A": "1"}}
    task_id = answer("task.v1.TaskService/CreateTask", create)["taskId"]
    stream = words("stream.v1.StreamService/StreamTaskLog", {"jobId": task_id, "follow": True})
    follower = shared.launcher.start("buf", [BIN / "buf", *stream])
    eventually(lambda: "begins" in follower.said(), within=20)
    assert answer(GET, {"taskId": task_id})["task"]["status"] == "TASK_STATUS_RUNNING"
    gate.open()
    assert follower.wait() == 0
    first, second, last = objects(follower.said())
    assert [first["logChunk"]["content"], second["logChunk"]["content"]] == ["begins", "ends"]
    assert last["isComplete"] is True
    ended = answer(GET, {"taskId": task_id})["task"]
    assert (ended["status"], ended["env"]) == ("TASK_STATUS_SUCCESS", {"A": "1"})


def test_a_refusal_has_code_message_and_details(shared, words):
    outcome = shared.buf(*words("task.v1.TaskService/CreateTask", {"commands": ["true", " "]}))
    assert outcome.returncode != 0
    refusal = json.loads(outcome.stderr)
    assert refusal["code"] == "invalid_argument"
    found = {detail["type"]: b64decode(detail["value"] + "==") for detail in refusal["details"]}
    bad = details.BadRequest.FromString(found["google.rpc.BadRequest"])
    info = details.ErrorInfo.FromString(found["google.rpc.ErrorInfo"])
    assert [violation.field for violation in bad.field_violations] == ["commands[1]"]
    assert info.reason == "ERROR_REASON_INVALID_FIELD"
