"""People log in at an issuer: a real one, from its page to the server's answer."""

import json
import re
import secrets
import socket
import sys
import time

import grpc
import httpx2
import jwt
import pytest

from generated.auth.v1 import auth_pb2, auth_pb2_grpc
from tests.e2e.kit import eventually

BACK = "http://127.0.0.1:1/callback"
GRANTS = "admins=admin:*,builders=operator:team-a,*=viewer:default"
PEOPLE = [
    {"sub": "ada", "email": "ada@example.org", "groups": ["admins"]},
    {"sub": "bob", "email": "bob@example.org", "groups": ["builders", "others"]},
    {"sub": "eve", "email": "eve@example.org", "email_verified": False},
]


@pytest.fixture(scope="module")
def issuer(shared):
    port = free_port()
    people = [f"--user-claims={json.dumps(person)}" for person in PEOPLE]
    quiet = ("-W", "ignore")
    program = [sys.executable, *quiet, "-m", "oidc_provider_mock", "--port", str(port), *people]
    shared.launcher.start("issuer", program)
    address = f"http://localhost:{port}"

    def answers():
        try:
            return httpx2.get(f"{address}/.well-known/openid-configuration").status_code == 200
        except httpx2.HTTPError:
            return False

    eventually(answers)
    return address


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def port():
    """A free port for the page that the browser comes back to."""
    return free_port()


@pytest.fixture(scope="module")
def client_id():
    return "muster-cli"


@pytest.fixture(scope="module")
def server(shared, issuer, client_id):
    flags = ("--oidc-issuer", issuer, "--oidc-client-id", client_id, "--oidc-grants", GRANTS,
             "--oidc-client-secret", "known-to-all")  # fmt: skip
    return shared.start_server("--auth", "on", *flags)


@pytest.fixture
def log_in(shared, server, port, tmp_path):
    """Log a person in, as their browser does; return how the command ended."""
    kept = {"MUSTER_CONFIG_DIR": str(tmp_path), "MUSTER_KEYRING": "off"}

    def log_in(person, *flags, deny=False):
        command = ("login", "--oidc", "--no-browser", "--callback-port", str(port), *flags)
        program = shared.start_cli(*command, server=server, env=kept)
        found = eventually(lambda: re.search(r"Log in at: (\S+)", program.complained()))
        form = {"action": "deny"} if deny else {"sub": person}
        httpx2.post(found[1], data=form, follow_redirects=True)
        program.wait()
        who = shared.cli("whoami", "-o", "json", server=server, env=kept)
        return program, json.loads(who.stdout or "{}")

    return log_in


def test_a_group_says_what_its_members_are(log_in):
    program, ada = log_in("ada")
    assert program.exit_code == 0, program.complained()
    assert (ada["name"], ada["role"], ada["server_wide"]) == ("ada@example.org", "ROLE_ADMIN", True)
    _, bob = log_in("bob")
    assert (bob["role"], bob["namespace"]) == ("ROLE_OPERATOR", "team-a")
    _, eve = log_in("eve")
    assert (eve["name"], eve["role"]) == ("eve", "ROLE_VIEWER")  # nobody has proved the address


def test_a_namespace_can_be_asked_for(log_in):
    _, bob = log_in("bob", "--namespace", "default")
    assert (bob["role"], bob["namespace"]) == ("ROLE_VIEWER", "default")
    program, _ = log_in("bob", "--namespace", "team-b")
    assert program.exit_code == 1
    assert "no group of theirs" in program.complained()


def test_who_refuses_is_not_logged_in(log_in):
    program, who = log_in("ada", deny=True)
    assert program.exit_code == 1
    assert who == {}


@pytest.fixture
def stub(server):
    with grpc.insecure_channel(server.grpc) as channel:
        yield auth_pb2_grpc.AuthServiceStub(channel)


def refused(stub, id_token, nonce="n"):
    with pytest.raises(grpc.RpcError) as error:
        stub.LogIn(auth_pb2.LogInRequest(id_token=id_token, nonce=nonce), timeout=10)
    return error.value


def real_id_token(issuer, client_id, nonce):
    """Return what the issuer gives for a login, without the command."""
    verifier = secrets.token_urlsafe(32)
    question = {
        "response_type": "code", "client_id": client_id, "redirect_uri": BACK,
        "scope": "openid email", "state": "s", "nonce": nonce,
    }  # fmt: skip
    page = httpx2.post(
        f"{issuer}/oauth2/authorize", params=question, data={"sub": "ada"}, follow_redirects=False
    )
    code = httpx2.URL(page.headers["location"]).params["code"]
    form = {
        "grant_type": "authorization_code", "code": code, "redirect_uri": BACK,
        "client_id": client_id, "code_verifier": verifier, "client_secret": "known-to-all",
    }  # fmt: skip
    return httpx2.post(f"{issuer}/oauth2/token", data=form).json()["id_token"]


def test_an_id_token_counts_for_its_own_login_alone(issuer, client_id, stub):
    token = real_id_token(issuer, client_id, "first")
    assert refused(stub, token, "second").code() is grpc.StatusCode.UNAUTHENTICATED
    assert refused(stub, token, "").code() is grpc.StatusCode.UNAUTHENTICATED
    answer = stub.LogIn(auth_pb2.LogInRequest(id_token=token, nonce="first"), timeout=10)
    assert answer.token.role == auth_pb2.ROLE_ADMIN


@pytest.mark.parametrize("change", ["key", "none", "audience", "issuer", "expired", "nonsense"])
def test_a_forged_id_token_does_not_count(issuer, client_id, stub, change):
    kid = jwt.get_unverified_header(real_id_token(issuer, client_id, "n")).get("kid")
    header = {"kid": kid} if kid else {}
    now = int(time.time())
    claims = {
        "iss": issuer, "aud": client_id, "sub": "ada", "nonce": "n", "groups": ["admins"],
        "iat": now, "exp": now + 60,
    }  # fmt: skip
    claims |= {
        "audience": {"aud": "another"}, "issuer": {"iss": "http://another"},
        "expired": {"exp": now - 3600},
    }.get(change, {})  # fmt: skip
    if change == "nonsense":
        forged = "a.b.c"
    elif change == "none":
        forged = jwt.encode(claims, None, "none", headers=header)
    else:
        forged = jwt.encode(claims, "s" * 64, "HS256", headers=header)
    assert refused(stub, forged).code() is grpc.StatusCode.UNAUTHENTICATED


def test_a_server_without_an_issuer_says_so(shared):
    server = shared.start_server("--auth", "on", data_dir=shared.folder / "none")
    done = shared.cli("login", "--oidc", server=server)
    assert done.returncode == 1
    assert "has no place to log in" in done.stderr
