"""Asks of every HTTP request who makes it and whether it may."""

from collections.abc import Mapping

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uuid_utils import uuid7

from server.access import ROUTES
from server.auth import Authenticator, Presented, check_may, check_namespace, set_caller
from server.domain.access import ANYBODY, Permission
from server.domain.errors import Forbidden, Invalid, MusterError, StoreUnavailable, Unauthenticated

STATUS: Mapping[type[MusterError], int] = {
    Invalid: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    StoreUnavailable: 503,
}

log = structlog.get_logger(__name__)


class Guard:
    """Lets through, of the requests for the application behind it, those that may pass.

    A path that is in no table goes through as well, and finds nothing there.
    """

    def __init__(
        self,
        app: ASGIApp,
        authenticator: Authenticator,
        table: Mapping[str, frozenset[Permission]] = ROUTES,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "http":
            request = Request(scope)
            try:
                await self._check(request)
            except tuple(STATUS) as error:
                refusal = _refusal(error)
                log.info("request refused", path=request.url.path[:128], reason=str(error))
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, request: Request) -> None:
        method = "GET" if request.method == "HEAD" else request.method
        door = f"{method} {request.url.path}"
        wanted = self._table.get(door)
        if wanted is None or wanted == ANYBODY:
            return
        namespace = request.headers.get("muster-namespace")
        shown = Presented(
            authorization=request.headers.get("authorization", ""),
            namespace=None if namespace is None else check_namespace(namespace),
            peer=request.client.host if request.client else "",
            request_id=str(uuid7()),
        )
        caller = await self._authenticator.caller(shown)
        check_may(caller, wanted, door)
        set_caller(caller)


def _refusal(error: MusterError) -> PlainTextResponse:
    status = next(status for kind, status in STATUS.items() if isinstance(error, kind))
    headers = {"www-authenticate": 'Bearer realm="muster"'} if status == 401 else {}
    return PlainTextResponse(f"{error}\n", status_code=status, headers=headers)
