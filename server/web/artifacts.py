"""The HTTP door of artifacts: parts in and files out, where they are kept in a folder."""

from collections.abc import AsyncIterator
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

from server.domain.errors import MusterError
from server.engine.artifacts import Artifacts
from server.stores.interfaces import OwnDoor

log = structlog.get_logger(__name__)


class ArtifactDoor:
    """See the module. A path says by its own signature what may be done, so nobody is asked."""

    def __init__(self, artifacts: Artifacts | None) -> None:
        self._artifacts = artifacts

    async def put(self, request: Request) -> Response:
        """Take a part: `PUT /artifacts/parts/{token}`."""
        store, claims = self._opened(request, "put")
        if store is None or claims is None:
            return _refused(403, "this URL does not count, or not any more; ask for another")
        try:
            etag = await store.put_part(
                claims["u"], claims["n"], claims["o"], claims["s"], _pieces(request)
            )
        except FileNotFoundError:
            return _refused(404, "this upload was given up or is whole already")
        except ValueError as error:
            return _refused(400, str(error))
        except ClientDisconnect:
            return _refused(400, "the part was cut off")
        except MusterError as error:
            log.warning("part cannot be kept", error=str(error))
            return _refused(503, "the part cannot be kept now", retry=True)
        return Response(headers={"etag": f'"{etag}"'})

    async def get(self, request: Request) -> Response:
        """Give a file, or a range of it: `GET /artifacts/files/{token}`."""
        store, claims = self._opened(request, "get")
        if store is None or claims is None:
            return _refused(403, "this URL does not count, or not any more; ask for another")
        path = store.path(claims["b"])
        if not path.is_file():
            return _refused(404, "the file is not there any more")
        headers = {
            # It may be a page with a script: it is for saving, and not for showing.
            "content-security-policy": "sandbox; default-src 'none'",
            "x-content-type-options": "nosniff",
        }
        return FileResponse(
            path,
            filename=claims["f"],
            media_type="application/octet-stream",
            headers={**headers, "etag": f'"{claims["h"]}"'},
        )

    def _opened(self, request: Request, kind: str) -> tuple[OwnDoor | None, dict[str, Any] | None]:
        artifacts = self._artifacts
        if artifacts is None or not isinstance(artifacts.store, OwnDoor):
            return None, None
        return artifacts.store, artifacts.signer.read(request.path_params["token"], kind)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


def _refused(status: int, why: str, *, retry: bool = False) -> Response:
    headers = {"retry-after": "5"} if retry else {}
    return JSONResponse({"error": why}, status_code=status, headers=headers)
