"""The HTTP door of upload grants, for producers that do not speak gRPC.

    POST /uploads                 {"name", "path", "size", "sha256"} → where the parts are put
    POST /uploads/credentials     {} → what S3 takes for a while, where the server lends that
    POST /uploads/{id}/parts      {"numbers": [1, 2]} → where more of them are put
    POST /uploads/{id}/complete   {"parts": [{"number", "etag"}]} → the artifact

Each with `authorization: Bearer KEY`, the key of a grant.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from server.domain.artifact import Artifact, Wanted
from server.domain.errors import (
    Invalid,
    LimitReached,
    MusterError,
    NotFound,
    StoreUnavailable,
    Unauthenticated,
    Violation,
    WrongState,
)
from server.domain.token import Token
from server.engine.artifacts import SIGNED_AT_ONCE, Artifacts, parts_of, size_of_part
from server.stores.interfaces import StoredPart

BODY_BYTES = 1024 * 1024
"""Of a request: 10,000 parts with their etags."""

SCHEME = "bearer "

STATUS: tuple[tuple[type[MusterError], int], ...] = (
    (Invalid, 400),
    (Unauthenticated, 401),
    (NotFound, 404),
    (WrongState, 409),
    (LimitReached, 413),
    (StoreUnavailable, 503),
)

log = structlog.get_logger(__name__)


class UploadDoor:
    """See the module."""

    def __init__(self, artifacts: Artifacts | None) -> None:
        self._artifacts = artifacts

    async def begin(self, request: Request) -> Response:
        """Begin to take a file, or go on with one."""

        async def answer(artifacts: Artifacts, grant: Token, told: dict[str, Any]) -> Response:
            wanted = Wanted(
                _text(told, "name"),
                _text(told, "path"),
                _number(told, "size"),
                _text(told, "sha256"),
            )
            begun = await artifacts.begin(grant.namespace, wanted, grant_id=grant.public_id)
            artifact = begun.artifact
            if begun.stored:
                return JSONResponse({**_about(artifact), "stored": True, "parts": []})
            there = {part.number for part in begun.parts}
            missing = [n for n in range(1, parts_of(artifact) + 1) if n not in there]
            urls = await artifacts.sign(artifact, missing[:SIGNED_AT_ONCE])
            parts = [
                {"number": number, "size": size_of_part(artifact, number), "url": url}
                for number, url in urls
            ]
            return JSONResponse(
                {**_about(artifact), "stored": False, "parts": parts, "missing": len(missing)},
                status_code=201,
            )

        return await self._answer(request, answer)

    async def credentials(self, request: Request) -> Response:
        """Lend what the store itself takes."""

        async def answer(artifacts: Artifacts, grant: Token, _told: dict[str, Any]) -> Response:
            return JSONResponse(asdict(await artifacts.lend(grant)))

        return await self._answer(request, answer)

    async def parts(self, request: Request) -> Response:
        """Say where further parts are put."""

        async def answer(artifacts: Artifacts, grant: Token, told: dict[str, Any]) -> Response:
            artifact = await self._own(artifacts, grant, request)
            numbers = told.get("numbers")
            if not isinstance(numbers, list) or not 1 <= len(numbers) <= SIGNED_AT_ONCE:
                text = f"must be a list of 1 to {SIGNED_AT_ONCE} numbers"
                raise Invalid([Violation("numbers", text)])
            if not all(isinstance(each, int) for each in numbers):
                raise Invalid([Violation("numbers", "must be whole numbers")])
            urls = await artifacts.sign(artifact, numbers)
            return JSONResponse({"parts": [{"number": n, "url": url} for n, url in urls]})

        return await self._answer(request, answer)

    async def complete(self, request: Request) -> Response:
        """Make a file of its parts."""

        async def answer(artifacts: Artifacts, grant: Token, told: dict[str, Any]) -> Response:
            artifact = await self._own(artifacts, grant, request)
            parts = told.get("parts")
            if not isinstance(parts, list) or not all(isinstance(each, dict) for each in parts):
                raise Invalid([Violation("parts", "must be a list of objects")])
            stored = [StoredPart(_number(part, "number"), _text(part, "etag"), 0) for part in parts]
            return JSONResponse(_about(await artifacts.complete(artifact, stored)))

        return await self._answer(request, answer)

    async def _own(self, artifacts: Artifacts, grant: Token, request: Request) -> Artifact:
        public_id = request.path_params["artifact"]
        artifact = await artifacts.open_upload(grant.namespace, public_id)
        if artifact.grant_id != grant.public_id:
            raise NotFound("artifact", public_id)
        return artifact

    async def _answer(
        self,
        request: Request,
        answer: Callable[[Artifacts, Token, dict[str, Any]], Awaitable[Response]],
    ) -> Response:
        """Answer whoever shows a grant that counts."""
        if self._artifacts is None:
            return JSONResponse({"error": "there is no store"}, status_code=503)
        try:
            shown = request.headers.get("authorization", "")
            text = shown[len(SCHEME) :].strip() if shown.lower().startswith(SCHEME) else ""
            grant = await self._artifacts.grant(text)
            return await answer(self._artifacts, grant, await _body(request))
        except ClientDisconnect:
            return JSONResponse({"error": "the request was cut off"}, status_code=400)
        except MusterError as error:
            status = next((s for kind, s in STATUS if isinstance(error, kind)), 500)
            if status >= 500:
                log.warning("upload cannot be taken", error=str(error))
            headers = {"retry-after": "5"} if status == 503 else {}
            return JSONResponse({"error": str(error)}, status_code=status, headers=headers)


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES:
            raise LimitReached(f"a request has at most {BODY_BYTES} bytes")
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise Invalid([Violation("body", "must be a JSON object")])
    return told


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str):
        raise Invalid([Violation(name, "must be text")])
    return value


def _number(told: dict[str, Any], name: str) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise Invalid([Violation(name, "must be a whole number")])
    return value


def _about(artifact: Artifact) -> dict[str, Any]:
    return {
        "artifact_id": artifact.public_id,
        "name": artifact.name,
        "path": artifact.path,
        "size": artifact.size,
        "sha256": artifact.sha256,
        "part_size": artifact.part_size,
        "expire_at": artifact.expire_at,
    }
