"""A server with auth on: tokens, roles, namespaces, and the CLI that shows them."""

import json
import os
import stat
import time

import grpc
import pytest

from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc

ON = ("--auth", "on")


@pytest.fixture(scope="module")
def admin(shared):
    """The text of an administrator's token, and the server that knows it."""
    made = shared.server_command("token", "root")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope="module")
def server(shared, admin):
    return shared.start_server(*ON)


@pytest.fixture
def person(shared, server, tmp_path):
    """Run `muster` as one person with a folder of their own."""
    kept = {"MUSTER_CONFIG_DIR": str(tmp_path / "config"), "MUSTER_KEYRING": "off"}

    def run(*arguments, token="", stdin=""):
        env = {**kept, **({"MUSTER_TOKEN": token} if token else {})}
        return shared.cli(*arguments, server=server, env=env, stdin=stdin)

    run.folder = tmp_path / "config"
    return run


def made(person, admin, *arguments):
    """Return a new token's text."""
    done = person("token", "create", *arguments, token=admin)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def call(server, token, namespace=None):
    metadata = [("authorization", f"Bearer {token}")] if token else []
    metadata += [("muster-namespace", namespace)] if namespace else []
    with grpc.insecure_channel(server.grpc) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        return stub.WhoAmI(auth_pb2.WhoAmIRequest(), metadata=metadata, timeout=10)


def test_who_shows_nothing_is_told_how_to_log_in(person):
    done = person("task", "list")
    assert done.returncode == 1
    assert "muster login" in done.stderr
    assert "does not know you" in done.stderr


def test_login_keeps_a_token_that_logout_forgets(person, admin, server):
    done = person("login", stdin=f"{admin}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"You are root on {server.grpc}")
    file = person.folder / "credentials.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    who = json.loads(person("whoami", "-o", "json").stdout)
    assert (who["name"], who["role"], who["server_wide"]) == ("root", "ROLE_ADMIN", True)
    listed = person("context", "list").stdout
    assert server.grpc in listed
    assert person("logout").returncode == 0
    assert admin not in file.read_text()
    assert person("whoami").returncode == 1


def test_a_token_that_is_wrong_is_not_kept(person):
    done = person("login", stdin="muster_user_nonsense\n")
    assert done.returncode == 1
    assert "is no token of Muster's" in done.stderr
    assert not (person.folder / "credentials.json").exists()


def test_a_file_that_others_may_read_is_not_used(person, admin):
    assert person("login", stdin=admin).returncode == 0
    os.chmod(person.folder / "credentials.json", 0o644)  # noqa: PTH101
    done = person("whoami")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def test_roles_bound_what_one_may_do(person, admin):
    viewer = made(person, admin, "eve", "--role", "viewer")
    operator = made(person, admin, "otto", "--role", "operator")
    assert person("task", "list", token=viewer).returncode == 0
    refused = person("task", "create", "--", "true", token=viewer)
    assert refused.returncode == 1
    assert "needs the permission operate" in refused.stderr
    assert person("task", "create", "--", "true", token=operator).returncode == 0
    assert "needs the permission administer" in person("token", "list", token=operator).stderr
    task = json.loads(person("task", "list", "-o", "json", token=viewer).stdout)[0]
    assert task["created_by"] == "otto"


def test_nobody_signs_with_another_name(person, admin, server):
    operator = made(person, admin, "oscar", "--role", "operator")
    with grpc.insecure_channel(server.grpc) as channel:
        stub = pipeline_pb2_grpc.PipelineServiceStub(channel)
        metadata = [("authorization", f"Bearer {operator}")]
        job = pipeline_pb2.Job(name="one", commands=["true"])
        stages = [pipeline_pb2.Stage(name="all", jobs=[job])]
        request = pipeline_pb2.CreatePipelineRequest(name="p", stages=stages, created_by="root")
        made_id = stub.CreatePipeline(request, metadata=metadata, timeout=10).pipeline_id
        wanted = pipeline_pb2.GetPipelineRequest(pipeline_id=made_id)
        pipeline = stub.GetPipeline(wanted, metadata=metadata, timeout=10).pipeline
    assert pipeline.created_by == "oscar"


def test_a_token_counts_in_its_namespace_alone(person, admin, server):
    team = made(person, admin, "t", "--role", "admin", "--namespace", "team-a")
    assert call(server, team).namespace == "team-a"
    assert call(server, team, "team-a").namespace == "team-a"
    for foreign in ("team-b", "default", "nowhere"):
        with pytest.raises(grpc.RpcError) as refused:
            call(server, team, foreign)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    wide = person("token", "create", "x", "--role", "viewer", "--server-wide", token=team)
    assert "may not call anything outside its namespace" in wide.stderr
    listed = person("token", "list", "--all", "-o", "json", token=team).stdout
    assert {token["namespace"] for token in json.loads(listed)} == {"team-a"}


def test_an_administrator_of_a_namespace_ends_no_token_of_elsewhere(person, admin, server):
    team = made(person, admin, "t", "--role", "admin", "--namespace", "team-a")
    other = made(person, admin, "u", "--role", "viewer", "--namespace", "team-b")
    wide = made(person, admin, "w", "--role", "viewer", "--server-wide")
    listed = []
    for namespace in ("team-a", "team-b"):
        shown = ("token", "list", "--namespace", namespace, "-o", "json")
        listed += json.loads(person(*shown, token=admin).stdout)
    foreign = {each["token_id"] for each in listed if each["namespace"] != "team-a"}
    assert len(foreign) >= 3
    for token_id in foreign:
        refused = person("token", "revoke", token_id, token=team)
        assert (refused.returncode, "There is no token" in refused.stderr) == (4, True)
    assert [call(server, token).name for token in (other, wide, admin)] == ["u", "w", "root"]


STREAMS = {
    "events": ("StreamEvents", stream_pb2.StreamEventsRequest()),
    "log": ("StreamTaskLog", stream_pb2.StreamTaskLogRequest(follow=True)),
    "states": ("StreamTaskStatus", stream_pb2.StreamTaskStatusRequest()),
}


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("by", ["revocation", "time"])
def test_an_open_stream_ends_when_its_token_does(person, admin, server, kind, by):
    task_id = person("task", "create", "--", "true", token=admin).stdout.strip()
    with grpc.insecure_channel(server.grpc) as channel:
        root = [("authorization", f"Bearer {admin}")]
        tokens = auth_pb2_grpc.AuthServiceStub(channel)
        lifetime = 2 if by == "time" else 3600
        request = auth_pb2.CreateTokenRequest(
            name="eve", role=auth_pb2.ROLE_VIEWER, lifetime_seconds=lifetime
        )
        answer = tokens.CreateToken(request, metadata=root, timeout=10)
        method, wanted = STREAMS[kind]
        wanted = type(wanted).FromString(wanted.SerializeToString())
        if kind == "log":
            wanted.job_id = task_id
        if kind == "states":
            wanted.task_ids.append(task_id)
        shown = [("authorization", f"Bearer {answer.text}")]
        stream = getattr(stream_pb2_grpc.StreamServiceStub(channel), method)(
            wanted, metadata=shown, timeout=20
        )
        stream.initial_metadata()  # it is open
        if by == "revocation":
            revoke = auth_pb2.RevokeTokenRequest(token_id=answer.token.token_id)
            tokens.RevokeToken(revoke, metadata=root, timeout=10)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "does not count here" in ended.value.details()
    assert time.monotonic() - began < lifetime % 3600 + 5


def test_a_revoked_token_counts_no_more(person, admin, server):
    token = made(person, admin, "gone", "--role", "viewer")
    assert call(server, token).name == "gone"
    listed = json.loads(person("token", "list", "-o", "json", token=admin).stdout)
    [token_id] = [each["token_id"] for each in listed if each["name"] == "gone"]
    assert person("token", "revoke", token_id, token=admin).returncode == 0
    with pytest.raises(grpc.RpcError) as refused:
        call(server, token)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "was revoked" in refused.value.details()


@pytest.mark.parametrize(
    "shown",
    ["", "Bearer ", "Basic cm9vdDpyb290", "Bearer x", "bearer " + "é" * 20, "Bearer " + "a" * 4000],
)
def test_nonsense_is_refused_as_such(server, shown):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = task_pb2_grpc.TaskServiceStub(channel)
        metadata = [("authorization", shown.encode("ascii", "replace").decode())]
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListTasks(task_pb2.ListTasksRequest(), metadata=metadata, timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_figures_are_for_those_who_may_see_the_whole_server(shared, person, admin, server):
    local = made(person, admin, "local", "--role", "admin")
    wide = made(person, admin, "prometheus", "--role", "viewer", "--server-wide")
    assert shared.get(server, "/livez")[0] == 200
    assert shared.get(server, "/metrics")[0] == 401
    assert shared.get(server, "/metrics", {"authorization": f"Bearer {local}"})[0] == 403
    status, text = shared.get(server, "/metrics", {"authorization": f"Bearer {wide}"})
    assert status == 200
    assert "muster_rpc_requests_total" in text


def test_tokens_are_kept_as_digests_alone(shared, admin, server):
    for file in server.data_dir.glob("muster.db*"):
        assert admin.encode() not in file.read_bytes()


def test_an_administrator_with_no_token_makes_one_when_the_server_is_stopped(shared, server):
    refused = shared.server_command("token", "again")
    assert refused.returncode == 1
    assert "in use" in refused.stderr
    assert "muster token create" in refused.stderr


def test_a_token_that_was_made_without_asking_anybody_is_in_the_audit_log(person, admin):
    listed = person("audit", "--action", "token.", "--limit", "1000", "-o", "json", token=admin)
    (entry,) = (e for e in json.loads(listed.stdout) if e["caller"] == "muster-server")
    assert (entry["action"], entry["kind"]) == ("token.create", "host")
    assert json.loads(entry["after"])["name"] == "root"
    assert admin not in listed.stdout


def test_changes_are_in_the_audit_log(person, admin):
    operator = made(person, admin, "auditee", "--role", "operator")
    done = person("task", "create", "--name", "audited", "--", "true", token=operator)
    task_id = done.stdout.split()[0]
    person("task", "cancel", task_id, "--reason", "enough", token=operator)
    assert "administer" in person("audit", token=operator).stderr
    listed = json.loads(person("audit", "--subject", task_id, "-o", "json", token=admin).stdout)
    assert [entry["action"] for entry in listed] == ["task.cancel", "task.create"]
    cancel, create = listed
    assert (cancel["caller"], cancel["kind"]) == ("auditee", "user")
    assert cancel["peer"].startswith("ipv4:127.0.0.1:")
    assert json.loads(cancel["before"])["status"] == "QUEUED"
    assert json.loads(cancel["after"])["reason"] == "enough"
    assert json.loads(create["after"]) == {"name": "audited"}
    table = person("audit", "--action", "token.", "--limit", "1", token=admin).stdout
    assert "token.create" in table
    assert operator not in person("audit", "--limit", "1000", "-o", "json", token=admin).stdout
