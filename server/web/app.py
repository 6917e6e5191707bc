"""The HTTP door: health for supervisors and load balancers, metrics for Prometheus."""

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from server import metrics

Readiness = Callable[[], Awaitable[str | None]]
"""Tells why the server cannot take calls now, or None where it can."""

PAGES = """Muster

/livez    200 while the process runs
/readyz   200 while it takes calls, 503 with the reason otherwise
/metrics  figures for Prometheus
"""


def build(readiness: Readiness) -> Starlette:
    """Return the application; it asks `readiness` at every `/readyz`."""

    async def ready(_request: Request) -> Response:
        reason = await readiness()
        return PlainTextResponse(f"{reason or 'ok'}\n", status_code=503 if reason else 200)

    return Starlette(
        routes=[
            Route("/", _pages),
            Route("/livez", _alive),
            Route("/readyz", ready),
            Route("/metrics", _metrics),
        ]
    )


async def _pages(_request: Request) -> Response:
    return PlainTextResponse(PAGES)


async def _alive(_request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _metrics(_request: Request) -> Response:
    return Response(metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
