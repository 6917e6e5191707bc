"""Two servers on one database know the same callers, and forget them together."""

import time

import grpc
import pytest

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from generated.stream.v1 import stream_pb2, stream_pb2_grpc
from tests.e2e.kit import eventually
from tests.postgres import PostgresServer

ANSWERS_WITHIN = 6.0
"""Seconds: what one server says of a token is asked again after one, and so does a stream."""


@pytest.fixture
async def servers(kit):
    postgres = PostgresServer()
    url = postgres.url(await postgres.create()).render_as_string(hide_password=False)
    keys = kit.folder / "signing-keys"
    keys.write_text(f"k1:{'s' * 40}\n")
    keys.chmod(0o600)
    flags = ("--database-url", url, "--auth", "on", "--signing-keys", str(keys))
    made = kit.launcher.run([*kit.server_program, "--database-url", url, "token", "root"])
    assert made.returncode == 0, made.stderr
    yield (
        [kit.start_server(*flags, data_dir=kit.folder / name) for name in "ab"],
        made.stdout.strip(),
    )
    kit.launcher.end_all()
    postgres.stop()


def call(server, service, method, request, token):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = getattr(service, "AuthServiceStub", None) or service.AgentServiceStub
        shown = [("authorization", f"Bearer {token}")]
        return getattr(stub(channel), method)(request, metadata=shown, timeout=10)


def who(server, token):
    try:
        return call(server, auth_pb2_grpc, "WhoAmI", auth_pb2.WhoAmIRequest(), token).name
    except grpc.RpcError as error:
        return error.code()


async def test_what_one_server_revokes_counts_on_none(servers, kit):
    (first, second), root = servers
    request = auth_pb2.CreateTokenRequest(name="eve", role=auth_pb2.ROLE_VIEWER)
    made = call(first, auth_pb2_grpc, "CreateToken", request, root)
    assert [who(server, made.text) for server in (first, second)] == ["eve", "eve"]
    revoke = auth_pb2.RevokeTokenRequest(token_id=made.token.token_id)
    call(first, auth_pb2_grpc, "RevokeToken", revoke, root)
    assert who(first, made.text) is grpc.StatusCode.UNAUTHENTICATED
    began = time.monotonic()
    eventually(lambda: who(second, made.text) is grpc.StatusCode.UNAUTHENTICATED)
    assert time.monotonic() - began < ANSWERS_WITHIN


async def test_an_open_stream_ends_on_every_server_when_its_token_is_revoked(servers, kit):
    (first, second), root = servers
    request = auth_pb2.CreateTokenRequest(name="eve", role=auth_pb2.ROLE_VIEWER)
    made = call(first, auth_pb2_grpc, "CreateToken", request, root)
    shown = [("authorization", f"Bearer {made.text}")]
    channels = [grpc.insecure_channel(server.grpc) for server in (first, second)]
    streams = [
        stream_pb2_grpc.StreamServiceStub(channel).StreamEvents(
            stream_pb2.StreamEventsRequest(), metadata=shown
        )
        for channel in channels
    ]
    for stream in streams:
        stream.initial_metadata()  # it is open
    revoke = auth_pb2.RevokeTokenRequest(token_id=made.token.token_id)
    call(first, auth_pb2_grpc, "RevokeToken", revoke, root)
    began = time.monotonic()
    for stream in streams:
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - began < ANSWERS_WITHIN
    for channel in channels:
        channel.close()


async def test_an_agent_that_one_server_revokes_leaves_the_other(servers, kit):
    (first, second), root = servers
    enrol = auth_pb2.CreateTokenRequest(name="hosts", kind=auth_pb2.TOKEN_KIND_ENROL)
    file = kit.folder / "enrol.token"
    file.write_text(call(first, auth_pb2_grpc, "CreateToken", enrol, root).text)
    shown = ("--name", "far", "--enrolment-token-file", str(file))
    agent = kit.start_agent(second, *shown)
    revoke = agent_pb2.RevokeAgentRequest(agent_id="far", reason="stolen")
    call(first, agent_pb2_grpc, "RevokeAgent", revoke, root)
    assert agent.program.wait() == 1
    assert "refuses this agent" in agent.stderr.read_text()


async def test_servers_that_share_a_database_want_one_file_of_secrets(servers, kit):
    (first, _), _ = servers
    url = first.flags[1]
    done = kit.launcher.run(
        [*kit.server_program, "--database-url", url, "--auth", "on", "--data-dir", str(kit.folder)]
    )
    assert done.returncode == 1
    assert "--signing-keys" in done.stderr
