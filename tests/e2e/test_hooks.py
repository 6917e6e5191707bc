"""Forges call: each delivery starts what it starts, once, and whatever is wrong starts nothing."""

import asyncio
import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest

from generated.hook.v1 import hook_pb2, hook_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.secret.v1 import secret_pb2, secret_pb2_grpc
from tests.e2e.kit import eventually
from tests.forge_samples import SAMPLES, SECRET, github_pull_request, github_push, signed
from tests.postgres import PostgresServer

FILE = """
name: build
on:
  push: {branches: ["main", "rel/**"]}
  tag:
  pull_request:
  webhook:
stages:
  - name: s
    jobs:
      - {name: j, commands: "true"}
"""
KEPT, NEW = "hook", "new"
"""Names of kept secrets."""
KINDS = ("github", "gitlab", "gitea", "bitbucket", "standard", "hmac")


def post(server, pipeline, headers, body, *, chunked=False):
    """Call; return the status and the answer."""
    host, port = server.http.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    parts = (body[at : at + 65536] for at in range(0, len(body), 65536)) if chunked else body
    try:
        connection.request("POST", f"/hooks/{pipeline}", parts, headers, encode_chunked=chunked)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


class Forge:
    """A pipeline with hooks on a server."""

    def __init__(self, server, *kinds):
        self.server = server
        channel = grpc.insecure_channel(server.grpc)
        self.hooks = hook_pb2_grpc.HookServiceStub(channel)
        self.pipelines = pipeline_pb2_grpc.PipelineServiceStub(channel)
        self.secrets = secret_pb2_grpc.SecretServiceStub(channel)
        made = self.pipelines.CreatePipeline(pipeline_pb2.CreatePipelineRequest(file=FILE))
        self.pipeline = made.pipeline_id
        self.secrets.PutSecret(secret_pb2.PutSecretRequest(name=KEPT, value=SECRET))
        for kind in kinds:
            request = hook_pb2.CreateHookRequest(
                pipeline_id=self.pipeline,
                kind=hook_pb2.HookKind.Value(f"HOOK_KIND_{kind.upper()}"),
                secret=KEPT,
                header="X-Signature" if kind == "hmac" else "",
            )
            self.hook = self.hooks.CreateHook(request).hook

    def call(self, kind, event, payload, server=None, **more):
        headers, body = signed(kind, event, payload, now=int(time.time()), **more)
        return post(server or self.server, self.pipeline, headers, body)

    def deliveries(self):
        request = hook_pb2.ListDeliveriesRequest(pipeline_id=self.pipeline, page_size=1000)
        return list(self.hooks.ListDeliveries(request).deliveries)

    def settled(self):
        """Return all deliveries, once each was looked at."""
        received = hook_pb2.DELIVERY_STATE_RECEIVED
        eventually(lambda: all(d.state != received for d in self.deliveries()), within=60)
        return self.deliveries()

    def runs(self):
        request = pipeline_pb2.ListRunsRequest(pipeline_id=self.pipeline, page_size=1000)
        return list(self.pipelines.ListRuns(request).runs)


def test_every_forges_deliveries_start_runs(kit):
    forge = Forge(kit.start_server(), *KINDS)
    for number, sample in enumerate(SAMPLES):
        status, answer = forge.call(*sample, delivery=f"d{number}")
        assert (status, answer["duplicate"]) == (202, False), sample
    found = forge.settled()
    started = hook_pb2.DELIVERY_STATE_STARTED
    assert [each.outcome for each in found if each.state != started] == []
    runs = forge.runs()
    assert len(runs) == len(SAMPLES)
    assert {run.branch for run in runs} == {"main", "wide"}
    assert "webhook:github:ada" in {run.triggered_by for run in runs}
    run = forge.pipelines.GetRun(pipeline_pb2.GetRunRequest(run_id=runs[-1].run_id)).run
    assert json.loads(run.event)["paths"] == ["a.txt", "src/gate.py", "old.txt"]


def test_what_comes_again_starts_nothing_and_a_redelivery_does(kit):
    server = kit.start_server()
    forge = Forge(server, "github")
    _, first = forge.call("github", "push", github_push(), delivery="d1")
    for delivery in ("d1", "d2", ""):  # the id is not signed: the body counts
        status, again = forge.call("github", "push", github_push(), delivery=delivery)
        assert (status, again) == (202, {**first, "duplicate": True})
    forge.settled()
    assert len(forge.runs()) == 1
    request = hook_pb2.RedeliverRequest(delivery_id=first["delivery_id"])
    forge.hooks.Redeliver(request)
    newest, _ = forge.settled()
    assert newest.redelivers == first["delivery_id"]
    assert len(forge.runs()) == 2
    shown = forge.hooks.GetDelivery(hook_pb2.GetDeliveryRequest(delivery_id=newest.delivery_id))
    assert json.loads(shown.body) == github_push()


def test_why_nothing_has_started_is_told(kit):
    forge = Forge(kit.start_server(), "github")
    for place, (event, payload) in enumerate(
        (
            ("push", github_push("refs/heads/dev")),
            ("push", github_push(head_commit={"message": "typo [skip ci]"})),
            ("ping", {"zen": "x"}),
            ("pull_request", github_pull_request("closed")),
            ("push", b"{not json"),
            ("push", {"ref": "refs/heads/main"}),
            ("push", github_push("refs/heads/main" + "x" * 300, after="c" * 40)),
        )
    ):
        assert forge.call("github", event, payload, delivery=f"d{place}")[0] == 202
    found = forge.settled()[::-1]
    ignored, refused = hook_pb2.DELIVERY_STATE_IGNORED, hook_pb2.DELIVERY_STATE_REFUSED
    assert [each.state for each in found] == [*[ignored] * 4, refused, refused, ignored]
    assert [each.outcome.split(";")[0][:40] for each in found] == [
        "branch 'dev' is none of main, rel/**",
        "the message says [skip ci]",
        "a ping: the hook works",
        "the pull request was closed, not opened ",
        "its body is not JSON",
        "its body has no text at after",
        f"branch 'main{'x' * 28}",
    ]
    assert not forge.runs()


def test_wrong_calls_are_refused_and_leave_nothing(kit):
    server = kit.start_server()
    forge = Forge(server, *KINDS)
    headers, body = signed("github", "push", github_push())
    plain = {"content-type": "application/json"}

    def status(headers, body=body, pipeline=forge.pipeline, **more):
        return post(server, pipeline, headers, body, **more)[0]

    assert status(plain) == 401
    assert status({**headers, "x-hub-signature-256": "sha256=" + "0" * 64}) == 401
    assert status(headers, body[:-1]) == 401
    assert status(headers, body + b" ") == 401
    assert status({**headers, "content-type": "text/plain"}) == 415
    assert status(headers, pipeline="nothing") == 404
    assert status(headers, pipeline="00000000-0000-7000-8000-000000000000") == 404
    assert status(headers, pipeline="build?namespace=other") == 404
    assert status(headers, pipeline="build?namespace=%00") == 404
    old, told = signed("standard", "", {}, delivery="x", now=int(time.time()) - 600)
    assert status(old, told) == 401
    before = psutil.Process(server.pid).memory_info().rss
    large = b"x" * (26 * 1024 * 1024)
    assert status(plain, large, chunked=True) == 413
    for _ in range(5):
        assert status(plain, large[: 20 * 1024 * 1024]) == 401
    assert psutil.Process(server.pid).memory_info().rss - before < 120 * 1024 * 1024
    assert not forge.deliveries()
    _, page = kit.get(server, "/metrics")
    assert "muster_hook_refusals_total 10.0" in page
    assert status(headers) == 202


def test_two_secrets_count_while_one_is_changed_for_the_other(kit):
    forge = Forge(kit.start_server(), "github")
    forge.secrets.PutSecret(secret_pb2.PutSecretRequest(name=NEW, value="another-one-for-tests"))
    rotate = hook_pb2.RotateHookRequest(hook_id=forge.hook.hook_id, secret=NEW)
    forge.hooks.RotateHook(rotate)
    push = ("github", "push")
    new = {"secret": "another-one-for-tests"}
    assert forge.call(*push, github_push(after="1" * 40))[0] == 202
    assert forge.call(*push, github_push(after="2" * 40), **new)[0] == 202
    rotate.forget_previous = True
    forge.hooks.RotateHook(rotate)
    assert forge.call(*push, github_push(after="3" * 40))[0] == 401
    assert forge.call(*push, github_push(after="4" * 40), **new)[0] == 202


def test_a_server_that_dies_over_a_delivery_starts_it_when_it_is_back(kit):
    server = kit.start_server()
    forge = Forge(server, "github")
    for number in range(20):
        payload = github_push(after=f"{number + 1:040x}")
        assert forge.call("github", "push", payload)[0] == 202
    server.kill9()
    server.start()
    forge = forge_again(forge)
    eventually(lambda: len(forge.runs()) == 20, within=90)


def forge_again(forge):
    """Return the same hooks through new connections."""
    again = object.__new__(Forge)
    again.server, again.pipeline = forge.server, forge.pipeline
    channel = grpc.insecure_channel(forge.server.grpc)
    again.hooks = hook_pb2_grpc.HookServiceStub(channel)
    again.pipelines = pipeline_pb2_grpc.PipelineServiceStub(channel)
    return again


@pytest.fixture
async def two_servers(kit):
    postgres = PostgresServer()
    url = postgres.url(await postgres.create()).render_as_string(hide_password=False)
    keys = kit.folder / "secret-keys"
    made = kit.launcher.run([*kit.server_program, "--help"])
    assert made.returncode == 0
    keys.write_text("k1:" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=" + "\n")
    keys.chmod(0o600)
    flags = ("--database-url", url, "--secret-keys", str(keys))
    yield [kit.start_server(*flags, data_dir=kit.folder / name) for name in "ab"]
    kit.launcher.end_all()
    postgres.stop()


async def test_500_deliveries_with_duplicates_to_two_servers_start_each_run_once(kit, two_servers):
    one, two = two_servers
    forge = Forge(one, "github")
    calls = [number * 7 % 500 % 300 for number in range(500)]  # 200 of 500 come again
    took = []

    def deliver(place):
        number = calls[place]
        servers = [one, two]
        payload = github_push(after=f"{number + 1:040x}")
        for attempt in range(200):  # as a forge would, until it is answered
            began = time.monotonic()
            try:
                server = servers[(place + attempt) % 2]
                status, _ = forge.call("github", "push", payload, server, delivery=f"d{number}")
            except OSError:
                time.sleep(0.05)
                continue
            if status == 202:
                took.append(time.monotonic() - began)
                return
            time.sleep(0.05)
        raise AssertionError(f"delivery {place} was never taken")

    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        sent = [loop.run_in_executor(pool, deliver, place) for place in range(len(calls))]
        await asyncio.to_thread(eventually, lambda: len(took) >= 150)
        two.kill9()
        await asyncio.to_thread(eventually, lambda: len(took) >= 250)
        two.start()
        await asyncio.gather(*sent)
    eventually(lambda: len(forge.settled()) == 300, within=120)
    runs = forge.runs()
    assert len(runs) == 300
    assert len({run.commit_sha for run in runs}) == 300
