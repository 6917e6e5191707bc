"""`POST /hooks/{pipeline}`: calls of forges and programs that start pipelines."""

import asyncio

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from server.auth import DEFAULT_NAMESPACE, check_namespace
from server.domain.errors import Invalid, MusterError
from server.domain.hook import BODY_LIMIT
from server.engine.deliveries import Deliveries, HookUnknown, NotSigned

BODY_SECONDS = 60.0
"""How long a caller may take to send a body."""

IN_MEMORY = 128 * 1024 * 1024
"""Bytes of bodies that are read at once; callers beyond are told to come again."""

log = structlog.get_logger(__name__)


class _TooLarge(Exception):  # noqa: N818 (a refusal)
    pass


class _TooMuch(Exception):  # noqa: N818 (a refusal)
    pass


class HookDoor:
    """See the module."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries
        self._held = 0
        """Bytes of bodies that are being read."""

    async def call(self, request: Request) -> Response:
        """Answer a call: 202 once it is kept."""
        try:
            return await self._answer(request)
        except (Invalid, HookUnknown):
            return _refused(404, "there is no such hook")
        except NotSigned:
            return _refused(401, "the signature is missing or wrong")
        except _TooLarge:
            return _refused(413, f"a delivery has at most {BODY_LIMIT >> 20} MiB")
        except TimeoutError:
            return _refused(408, f"the body took longer than {BODY_SECONDS:g} seconds")
        except _TooMuch:
            return _refused(503, "too many deliveries at once", retry=True)
        except ClientDisconnect:
            return _refused(400, "the body was cut off")
        except MusterError as error:
            log.warning("delivery cannot be kept", error=str(error))
            return _refused(503, "the delivery cannot be kept now", retry=True)

    async def _answer(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            return _refused(415, "the content type must be application/json")
        namespace = check_namespace(request.query_params.get("namespace", DEFAULT_NAMESPACE))
        hooks = await self._deliveries.hooks(namespace, request.path_params["pipeline"])
        held = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                parts = []
                async for part in request.stream():
                    held += len(part)
                    self._held += len(part)
                    if held > BODY_LIMIT:
                        raise _TooLarge
                    if self._held > IN_MEMORY:
                        raise _TooMuch
                    parts.append(part)
            headers = {name.lower(): value for name, value in request.headers.items()}
            receipt = await self._deliveries.receive(hooks, headers, b"".join(parts))
        finally:
            self._held -= held
        answer = {"delivery_id": receipt.delivery_id, "duplicate": receipt.duplicate}
        return JSONResponse(answer, status_code=202)


def _refused(status: int, why: str, *, retry: bool = False) -> Response:
    headers = {"retry-after": "10"} if retry else {}
    return JSONResponse({"error": why}, status_code=status, headers=headers)
