"""The access matrix: every call and route, as everybody, in one's own namespace and another."""

import asyncio
from pathlib import Path

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.audit.v1 import audit_pb2
from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2
from generated.secret.v1 import secret_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2, task_pb2_grpc
from server.access import ROUTES, RPCS
from server.domain.access import may
from tests.e2e.kit import Kit
from tools.access_matrix import WHO, text

FILES = [agent_pb2, audit_pb2, auth_pb2, pipeline_pb2, secret_pb2, stream_pb2, task_pb2]
CLOSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
HOME, AWAY = "home", "away"
OPEN = {"/auth.v1.AuthService/GetLogin"}
"""Open to whoever shows nothing, as pings are."""

LOG_IN = "/auth.v1.AuthService/LogIn"
"""Open too, and its answer is about the ID token that comes with it."""

LONG_ENOUGH = 1.0
"""Seconds after which a stream that nobody has refused counts as open."""


def methods():
    return {
        f"/{service.full_name}/{method.name}": method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def bearer(token, namespace=None):
    shown = [("authorization", f"Bearer {token}")] if token else []
    return shown + ([("muster-namespace", namespace)] if namespace else [])


@pytest.fixture(scope="module")
def kit():
    kit = Kit()
    try:
        yield kit
    finally:
        kit.close()


@pytest.fixture(scope="module")
def root(kit):
    return kit.server_command("token", "root").stdout.strip()


@pytest.fixture(scope="module")
def server(kit, root):
    return kit.start_server("--auth", "on")


@pytest.fixture(scope="module")
def callers(server, root):
    """What each of them shows, and the ids that are its own."""
    with grpc.insecure_channel(server.grpc) as channel:
        auth = auth_pb2_grpc.AuthServiceStub(channel)
        agents = agent_pb2_grpc.AgentServiceStub(channel)
        tasks = task_pb2_grpc.TaskServiceStub(channel)
        at_home = bearer(root, HOME)

        def token(**fields):
            request = auth_pb2.CreateTokenRequest(**fields)
            return auth.CreateToken(request, metadata=at_home, timeout=10).text

        roles = {name: auth_pb2.Role.Value(f"ROLE_{name.upper()}") for name in
                 ("viewer", "operator", "admin")}  # fmt: skip
        shown = {name: token(name=name, role=role) for name, role in roles.items()}
        shown["server-wide viewer"] = token(
            name="wide", role=auth_pb2.ROLE_VIEWER, server_wide=True
        )
        enrol = token(name="hosts", kind=auth_pb2.TOKEN_KIND_ENROL, uses=50)
        shown |= {"nobody": "", "enrolling host": enrol}
        registered = agents.Register(
            agent_pb2.RegisterRequest(agent_id="own", held=agent_pb2.Held()),
            metadata=bearer(enrol), timeout=10,
        )  # fmt: skip
        shown["agent"] = registered.agent_key
        created = tasks.CreateTask(
            task_pb2.CreateTaskRequest(commands=["true"]), metadata=at_home, timeout=10
        )
        fetched = agents.FetchTask(
            agent_pb2.FetchTaskRequest(agent_id="own", wait=5),
            metadata=bearer(registered.agent_key), timeout=10,
        ).tasks[0]  # fmt: skip
        assert fetched.job_id == created.task_id
        shown["task"] = fetched.secrets["MUSTER_TOKEN"]
    return shown, {"agent_id": "own", "task_id": created.task_id, "run_id": ""}


async def answer(channel, method, metadata, ids):
    """Return how one call ends: the status it is refused with, or OK."""
    request = GetMessageClass(method.input_type)()
    for name, value in ids.items():
        if name in method.input_type.fields_by_name:
            setattr(request, name, value)
    kind = f"{'stream' if method.client_streaming else 'unary'}_" + (
        "stream" if method.server_streaming else "unary"
    )
    path = f"/{method.containing_service.full_name}/{method.name}"
    stub = getattr(channel, kind)(path, lambda message: message.SerializeToString())
    # Who sends while it is refused may hear of an error of the transport instead: nothing is sent.
    given = () if method.client_streaming else (request,)
    call = stub(*given, metadata=metadata, timeout=LONG_ENOUGH)
    try:
        if method.server_streaming:
            await call.read()
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code() if method.server_streaming and call.done() else grpc.StatusCode.OK


async def all_answers(server, shown, ids, namespace):
    """Call every method as one caller, all at once."""
    # Last, for it ends what the others need.
    late = {"/agent.v1.AgentService/Unregister", "/agent.v1.AgentService/Register"}
    found = {}
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        for wanted in (lambda path: path not in late, late.__contains__):
            chosen = {path: method for path, method in methods().items() if wanted(path)}
            calls = (answer(channel, m, bearer(shown, namespace), ids) for m in chosen.values())
            found |= dict(zip(chosen, await asyncio.gather(*calls), strict=True))
    return found


@pytest.mark.parametrize("who", [*(name for name in WHO if name != "agent"), "agent"])
async def test_every_call_is_open_to_whom_the_matrix_says(server, callers, who):
    shown, ids = callers
    own = ids if who in ("agent", "task") else {}  # others name nothing, and so change nothing
    found = await all_answers(server, shown[who], own, None)
    for path, code in found.items():
        if path == LOG_IN:
            continue
        allowed = may(WHO[who], RPCS[path])
        if who == "task" and path.endswith("/GetRun"):
            assert code is grpc.StatusCode.PERMISSION_DENIED  # it belongs to no run
            continue
        assert (code not in CLOSED) is allowed, (who, path, code)


@pytest.mark.parametrize("who", [name for name in WHO if name != "server-wide viewer"])
async def test_another_namespace_is_closed_whatever_is_asked(server, callers, who):
    shown, _ = callers
    found = await all_answers(server, shown[who], {}, AWAY)
    for path, code in found.items():
        if who == "nobody" and (path.endswith("/Ping") or path in OPEN):
            continue
        assert code in CLOSED, (who, path, code)


async def test_a_server_wide_token_is_what_it_is_everywhere(server, callers):
    shown, _ = callers
    found = await all_answers(server, shown["server-wide viewer"], {}, AWAY)
    for path, code in found.items():
        if path == LOG_IN:
            continue
        assert (code not in CLOSED) is may(WHO["server-wide viewer"], RPCS[path]), (path, code)


@pytest.mark.parametrize("who", WHO)
def test_every_route_is_open_to_whom_the_matrix_says(kit, server, callers, who):
    shown, _ = callers
    for route, wanted in ROUTES.items():
        if not route.startswith("GET") or "{" in route:
            continue  # open to whoever signs: test_hooks.py and test_artifacts.py
        path = route.removeprefix("GET ")
        headers = {"authorization": f"Bearer {shown[who]}"} if shown[who] else {}
        status, _ = kit.get(server, path, headers)
        assert (status == 200) is may(WHO[who], wanted), (who, route, status)


def test_the_page_is_what_the_table_says():
    page = Path(__file__).parents[2] / "docs" / "access-matrix.md"
    assert page.read_text() == text(), "make access-matrix writes it anew"
