"""Two of everything, and kill -9 in the middle: enrolment counts, and the audit log is whole."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from generated.agent.v1 import agent_pb2
from generated.audit.v1 import audit_pb2, audit_pb2_grpc
from generated.auth.v1 import auth_pb2
from generated.task.v1 import task_pb2
from tests.e2e.kit import eventually
from tests.e2e.test_enrolment import Caller, bearer
from tests.postgres import PostgresServer

ON = ("--auth", "on")


@pytest.fixture
async def pair(kit):
    """Two servers on one PostgreSQL, and the token of whoever may do everything."""
    postgres = PostgresServer()
    url = postgres.url(await postgres.create()).render_as_string(hide_password=False)
    keys = kit.folder / "signing-keys"
    keys.write_text(f"k1:{'s' * 40}\n")
    keys.chmod(0o600)
    flags = (*ON, "--database-url", url, "--signing-keys", str(keys))
    made = kit.launcher.run([*kit.server_program, "--database-url", url, "token", "root"])
    servers = [kit.start_server(*flags, data_dir=kit.folder / name) for name in "ab"]
    yield servers, made.stdout.strip()
    kit.launcher.end_all()
    postgres.stop()


def outcome(server, token, name):
    """Return how a host's try to enrol ends."""
    request = agent_pb2.RegisterRequest(agent_id=name, held=agent_pb2.Held())
    try:
        caller = Caller(server.grpc, token)
        caller.agents.Register(request, metadata=bearer(token), timeout=20)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_a_token_enrols_as_many_hosts_as_it_counts_however_many_come_at_once(pair):
    servers, root = pair
    uses = 3
    admin = Caller(servers[0].grpc, root)
    request = auth_pb2.CreateTokenRequest(name="hosts", kind=auth_pb2.TOKEN_KIND_ENROL, uses=uses)
    token = admin(admin.auth.CreateToken, request).text
    with ThreadPoolExecutor(16) as pool:
        tries = [
            pool.submit(outcome, servers[number % 2], token, f"host-{number}")
            for number in range(16)
        ]
        found = [each.result() for each in tries]
    assert found.count(grpc.StatusCode.OK) == uses
    assert set(found) == {grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED}
    listed = admin(admin.agents.ListAgents, agent_pb2.ListAgentsRequest()).agents
    assert len(listed) == uses


def entries(server, root, action):
    """Return the subjects of an action's audit entries."""
    found, page = [], ""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        while True:
            request = audit_pb2.ListAuditRequest(action=action, page_size=1000, page_token=page)
            answer = stub.ListAudit(request, metadata=bearer(root), timeout=10)
            found += [entry.subject for entry in answer.entries]
            page = answer.next_page_token
            if not page:
                return found


def test_each_change_has_its_entry_and_each_entry_its_change_whatever_dies(kit):
    root = kit.server_command("token", "root").stdout.strip()
    server = kit.start_server(*ON)
    acknowledged = []
    over = threading.Event()

    def work():
        caller = Caller(server.grpc, root)
        request = task_pb2.CreateTaskRequest(commands=["true"])
        while not over.is_set():
            try:
                acknowledged.append(caller(caller.tasks.CreateTask, request).task_id)
            except grpc.RpcError:
                over.wait(0.05)  # the server is dead

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for _ in range(2):
        done = len(acknowledged)
        eventually(lambda done=done: len(acknowledged) > done + 200)
        server.kill9()
        server.start()
    over.set()
    for worker in workers:
        worker.join()
    audited = entries(server, root, "task.create")
    caller = Caller(server.grpc, root)
    stored, page = set(), ""
    while True:
        request = task_pb2.ListTasksRequest(page_size=1000, page_token=page)
        answer = caller(caller.tasks.ListTasks, request)
        stored |= {task.task_id for task in answer.tasks}
        page = answer.next_page_token
        if not page:
            break
    assert set(acknowledged) <= stored
    assert sorted(audited) == sorted(stored)
