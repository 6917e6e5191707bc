"""The HTTP door over real sockets."""

import asyncio
import signal
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx2
import pytest

from server.address import Address
from server.web import serve
from server.web.app import build
from server.web.artifacts import ArtifactDoor
from server.web.hooks import HookDoor
from server.web.uploads import UploadDoor

DOORS = HookDoor(None), ArtifactDoor(None), UploadDoor(None)


@asynccontextmanager
async def serving(app, host="127.0.0.1", grace=timedelta(seconds=5)):
    bound = serve.bind(Address(host, 0))
    web = serve.WebServer(app, bound, grace)
    async with asyncio.TaskGroup() as group:
        group.create_task(web.run())
        try:
            async with asyncio.timeout(10):
                await web.started()
            async with httpx2.AsyncClient(base_url=f"http://{serve.address_of(bound)}") as client:
                yield web, client
        finally:
            web.stop()


async def ready():
    return None


async def nothing():
    pass


async def test_a_live_server_says_so_and_lists_its_pages():
    async with serving(build(ready, nothing, *DOORS)) as (_web, client):
        assert (await client.get("/livez")).text == "ok\n"
        page = await client.get("/")
        assert page.headers["content-type"].startswith("text/plain")
        assert all(path in page.text for path in ("/livez", "/readyz", "/metrics"))
        assert (await client.get("/nothing")).status_code == 404


async def test_readiness_is_asked_each_time_and_gives_its_reason():
    reasons = ["the database does not answer", None]

    async def readiness():
        return reasons.pop(0)

    async with serving(build(readiness, nothing, *DOORS)) as (_web, client):
        waiting = await client.get("/readyz")
        assert (waiting.status_code, waiting.text) == (503, "the database does not answer\n")
        assert (await client.get("/readyz")).status_code == 200


async def test_metrics_are_in_prometheus_format():
    looks = []

    async def look():
        looks.append(1)

    async with serving(build(ready, look, *DOORS)) as (_web, client):
        answer = await client.get("/metrics")
    assert looks == [1]
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "# TYPE muster_rpc_requests_total counter" in answer.text


async def test_a_free_port_is_known_before_serving():
    bound = serve.bind(Address("127.0.0.1", 0))
    try:
        assert serve.address_of(bound).port > 0
    finally:
        bound.close()


async def test_a_taken_port_is_refused():
    bound = serve.bind(Address("127.0.0.1", 0))
    try:
        with pytest.raises(OSError, match="in use"):
            serve.bind(serve.address_of(bound)).close()
    finally:
        bound.close()


async def test_it_serves_over_ipv6_too():
    async with serving(build(ready, nothing, *DOORS), host="::1") as (_web, client):
        assert (await client.get("/livez")).status_code == 200


async def test_signals_stay_with_the_program():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serving(build(ready, nothing, *DOORS)):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_a_stop_lets_the_answer_under_way_finish():
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow(_scope, _receive, send):
        asked.set()
        await may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"late"})

    async with serving(slow) as (web, client), asyncio.TaskGroup() as group:
        answer = group.create_task(client.get("/"))
        await asyncio.wait_for(asked.wait(), 10)
        web.stop()
        await asyncio.sleep(0.2)  # long enough for uvicorn to notice the stop
        may_answer.set()
    assert answer.result().text == "late"
