"""The HTTP door: health for supervisors and load balancers, metrics for Prometheus."""

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from server import metrics
from server.definition.schema import pipeline_schema
from server.web.artifacts import ArtifactDoor
from server.web.hooks import HookDoor
from server.web.uploads import UploadDoor

Readiness = Callable[[], Awaitable[str | None]]
"""Tells why the server cannot take calls now, or None where it can."""

Look = Callable[[], Awaitable[object]]
"""Brings series up to date that are looked at only when somebody asks."""

PAGES = """Muster

/livez    200 while the process runs
/readyz   200 while it takes calls, 503 with the reason otherwise
/metrics  figures for Prometheus
/hooks/PIPELINE       where forges call (POST)
/uploads              where producers with an upload grant hand in files (POST)
/artifacts/…          parts and files, by URLs that the API gives
/schema/pipeline.json the JSON Schema of pipeline files
"""


def build(
    readiness: Readiness,
    look: Look,
    hooks: HookDoor,
    artifacts: ArtifactDoor,
    uploads: UploadDoor,
) -> Starlette:
    """Return the application; it asks `readiness` at `/readyz`, and calls `look` at `/metrics`."""

    async def ready(_request: Request) -> Response:
        reason = await readiness()
        return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200)

    async def figures(_request: Request) -> Response:
        await look()
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(
        routes=[
            Route("/", _pages),
            Route("/livez", _alive),
            Route("/readyz", ready),
            Route("/metrics", figures),
            Route("/hooks/{pipeline}", hooks.call, methods=["POST"]),
            Route("/uploads", uploads.begin, methods=["POST"]),
            Route("/uploads/credentials", uploads.credentials, methods=["POST"]),
            Route("/uploads/{artifact}/parts", uploads.parts, methods=["POST"]),
            Route("/uploads/{artifact}/complete", uploads.complete, methods=["POST"]),
            Route("/artifacts/parts/{token}", artifacts.put, methods=["PUT"]),
            Route("/artifacts/files/{token}", artifacts.get),
            Route("/schema/pipeline.json", _schema),
        ]
    )


async def _pages(_request: Request) -> Response:
    return PlainTextResponse(PAGES)


async def _schema(_request: Request) -> Response:
    headers = {"access-control-allow-origin": "*"}  # editors in browsers may read it
    return JSONResponse(pipeline_schema(), headers=headers)


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("ok\n")
