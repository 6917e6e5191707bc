"""A server that `muster-server init` has set up: encrypted, and trusted by those with its CA."""

import contextlib
import http.client
import json
import re
import shutil
import socket
import ssl
import stat
import time
from datetime import UTC, datetime

import grpc
import pytest

from generated.agent.v1 import agent_pb2, agent_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc
from server.authority import agent_certificate, make_authority, read_authority, server_certificate
from tests.e2e.kit import Kit, eventually

NOW = datetime.fromtimestamp(time.time(), UTC)


@pytest.fixture(scope="module")
def folder(shared):
    """What `init` has made."""
    done = shared.server_command("init", "localhost")
    assert done.returncode == 0, done.stderr
    assert "muster-agent --hardened --server localhost:50051 --tls-ca ca.pem" in done.stdout
    return shared.folder / "server"


@pytest.fixture(scope="module")
def server(shared: Kit, folder):
    return shared.start_server("--config", str(folder / "muster.toml"))


@pytest.fixture(scope="module")
def address(server):
    return server.grpc.replace("127.0.0.1", "localhost")


@pytest.fixture
def person(shared, folder, address, tmp_path):
    def run(*arguments, stdin="", **env):
        known = {"MUSTER_CONFIG_DIR": str(tmp_path), "MUSTER_KEYRING": "off"}
        return shared.cli(*arguments, server=address, env={**known, **env}, stdin=stdin)

    return run


def test_keys_and_tokens_are_for_their_owner_alone(folder):
    for name in ("ca.key", "server.key", "admin.token", "enrolment.token", "muster.toml"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_second_init_changes_nothing(shared, folder):
    before = {path: path.read_bytes() for path in folder.iterdir() if path.suffix != ".db-wal"}
    done = shared.server_command("init", "localhost")
    assert done.returncode == 1
    assert "is set up already" in done.stderr
    assert all(path.read_bytes() == data for path, data in before.items() if path.suffix == ".pem")


def test_people_and_agents_work_with_it(shared, folder, address, person):
    ca = str(folder / "ca.pem")
    admin = (folder / "admin.token").read_text()
    assert person("login", "--tls-ca", ca, stdin=admin).returncode == 0
    enrolment = ("--enrolment-token-file", str(folder / "enrolment.token"))
    agent = shared.start_agent(address, "--tls-ca", ca, *enrolment)
    done = person("exec", "--", "echo", "over", "TLS")
    assert (done.returncode, done.stdout, done.stderr) == (0, "over TLS\n", "")
    agent.terminate()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ((), "it may want TLS"),
        (("--tls",), "not trusted here"),
        (("--tls-ca", "OTHER"), "not trusted here"),
    ],
)
def test_whoever_cannot_agree_is_told_why(person, folder, address, tmp_path, flags, why):
    other = tmp_path / "other.pem"
    make_authority(NOW).write(other, tmp_path / "other.key")
    done = person("ping", *(str(other) if flag == "OTHER" else flag for flag in flags))
    assert done.returncode == 3
    assert why in done.stderr


def test_an_agent_that_cannot_agree_says_why_and_tries_on(shared, folder, address):
    flags = ("--enrolment-token-file", str(folder / "enrolment.token"))
    place = ["--server", address, "--data-dir", str(shared.folder / "plain")]
    program = shared.launcher.start("plain", [*shared.agent_program, *place, *flags])
    eventually(lambda: "it may want TLS" in program.complained())
    assert program.exit_code is None
    program.terminate()


def test_a_token_is_not_shown_in_plain_text_to_another_machine(person, folder):
    admin = (folder / "admin.token").read_text().strip()
    done = person("ping", "--server", "192.0.2.1:50051", MUSTER_TOKEN=admin)
    assert done.returncode == 1
    assert "in plain text" in done.stderr


def page(server, folder):
    port = int(server.http.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/livez")
        serial = connection.sock.getpeercert()["serialNumber"]
        return connection.getresponse().status, serial


def test_http_is_encrypted_too(server, folder):
    assert page(server, folder)[0] == 200
    with socket.create_connection(("127.0.0.1", int(server.http.rpartition(":")[2]))) as plain:
        plain.settimeout(10)
        plain.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 200")


def grpc_serial(server):
    host, port = "127.0.0.1", int(server.grpc.rpartition(":")[2])
    pem = ssl.get_server_certificate((host, port), timeout=10)
    return ssl.PEM_cert_to_DER_cert(pem)


def test_a_new_certificate_is_taken_up_and_a_damaged_one_is_not(shared, server, folder):
    before, (_, page_before) = grpc_serial(server), page(server, folder)
    kept = (folder / "server.pem").read_bytes()
    (folder / "server.pem").write_text("nonsense")
    assert grpc_serial(server) == before
    assert "certificate stays as it was" in server.stderr.read_text()
    (folder / "server.pem").write_bytes(kept)
    done = shared.server_command("certificate", "localhost")
    assert done.returncode == 0, done.stderr
    assert grpc_serial(server) != before
    eventually(lambda: page(server, folder)[1] != page_before)


def test_a_certificate_without_its_key_is_refused(shared, folder, tmp_path):
    authority = read_authority(folder / "ca.pem", folder / "ca.key")
    other = server_certificate(authority, ["localhost"], NOW)
    other.write(tmp_path / "other.pem", tmp_path / "other.key")
    flags = ["--tls-cert", str(tmp_path / "other.pem"), "--tls-key", str(folder / "server.key")]
    done = shared.server_run(tmp_path / "data", *flags)
    assert done.returncode == 1
    assert re.search(r"key values mismatch", done.stderr)


def test_an_agent_is_known_by_its_certificate(shared, folder, tmp_path):
    """Mutual TLS: the certificate names the agent, and no other."""
    data = tmp_path / "data"
    shutil.copytree(folder, data, ignore=shutil.ignore_patterns("muster.*"))
    files = {name: str(data / name) for name in ("server.pem", "server.key", "ca.pem")}
    server = shared.start_server(
        "--auth", "on", "--tls-cert", files["server.pem"], "--tls-key", files["server.key"],
        "--tls-client-ca", files["ca.pem"], data_dir=data,
    )  # fmt: skip
    authority = read_authority(data / "ca.pem", data / "ca.key")
    own = agent_certificate(authority, "muster://agent/default/certified", NOW)
    own.write(tmp_path / "own.pem", tmp_path / "own.key")
    address = server.grpc.replace("127.0.0.1", "localhost")
    ca = (data / "ca.pem").read_bytes()
    key, certificate = ((tmp_path / f"own.{end}").read_bytes() for end in ("key", "pem"))
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    with grpc.secure_channel(address, credentials) as channel:
        agents = agent_pb2_grpc.AgentServiceStub(channel)
        answer = agents.Register(agent_pb2.RegisterRequest(agent_id="certified"), timeout=10)
        assert answer.agent_key
        with pytest.raises(grpc.RpcError) as refused:
            agents.Register(agent_pb2.RegisterRequest(agent_id="another"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        tasks = task_pb2_grpc.TaskServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            tasks.ListTasks(task_pb2.ListTasksRequest(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    without = grpc.ssl_channel_credentials(ca)
    with grpc.secure_channel(address, without) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            task_pb2_grpc.TaskServiceStub(channel).Ping(task_pb2.PingRequest(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    flags = ("--tls-ca", str(data / "ca.pem"), "--tls-cert", str(tmp_path / "own.pem"))
    agent = shared.start_agent(
        address, *flags, "--tls-key", str(tmp_path / "own.key"), "--name", "certified"
    )
    agent.terminate()


def test_nothing_secret_is_told(shared, folder):
    told = json.dumps([text for _, text in shared.stderr()])
    for name in ("admin.token", "enrolment.token"):
        assert (folder / name).read_text().strip() not in told
