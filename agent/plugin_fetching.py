"""Brings packages of plugins to this host: from object storage by URL, else from the server."""

import asyncio
from pathlib import Path
from typing import BinaryIO

import grpc
import grpc.aio
import httpx2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from agent.control_plane import ControlPlane
from agent.plugin_cache import PluginRefused, PluginUnavailable
from agent.rpc import is_transient
from generated.agent.v1 import agent_pb2

ATTEMPTS = 5
SILENCE_SECONDS = 30.0
"""How long a source may say nothing before it is asked again."""

LARGEST = 256 * 1024**2
"""Bytes of a package."""

_PIECE = 1024 * 1024


class _CutError(Exception):
    """A download broke; the next try goes on from there."""


class PluginFetcher:
    """See the module."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    async def fetch(self, info: agent_pb2.PluginInfo, target: Path) -> None:
        """Brings a package's bytes into a file, however often the line breaks.

        Raises:
            PluginRefused: Nobody has it (any more).
            PluginUnavailable: It cannot be had now.
            OSError: It cannot be written.
        """
        if info.size > LARGEST:
            raise PluginRefused(f"plugin {info.reference} is larger than {LARGEST >> 20} MiB")
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_CutError),
                stop=stop_after_attempt(ATTEMPTS),
                wait=wait_exponential(0.1, max=3),
                reraise=True,
            ):
                with attempt:
                    if info.location == agent_pb2.PLUGIN_LOCATION_STORAGE and info.download_url:
                        await self._by_url(info, target)
                    else:
                        await self._by_call(info, target)
        except _CutError as error:
            raise PluginUnavailable(f"plugin {info.reference}: {error}") from error

    async def _by_call(self, info: agent_pb2.PluginInfo, target: Path) -> None:
        request = agent_pb2.FetchPluginRequest(
            plugin_id=info.plugin_id, version=f"sha256:{info.checksum}", offset=_there(target)
        )
        call = self._plane.fetch_plugin(request)
        try:
            with target.open("ab") as file:
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        piece = await call.read()
                    if not isinstance(piece, agent_pb2.FetchPluginResponse):
                        break
                    _write(file, piece.data)
        except TimeoutError:
            raise _CutError("the control plane is silent") from None
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise PluginRefused(f"plugin {info.reference}: {error.details()}") from error
            if is_transient(error.code()):
                raise _CutError(str(error.details())) from error
            raise PluginUnavailable(f"plugin {info.reference}: {error.details()}") from error
        finally:
            call.cancel()
        _check_whole(info, target)

    async def _by_url(self, info: agent_pb2.PluginInfo, target: Path) -> None:
        there = _there(target)
        headers = {"range": f"bytes={there}-"} if there else {}
        try:
            async with (
                httpx2.AsyncClient(timeout=SILENCE_SECONDS, follow_redirects=False) as client,
                client.stream("GET", info.download_url, headers=headers) as answer,
            ):
                if answer.status_code not in (200, 206):
                    raise _CutError(f"the object storage answers {answer.status_code}")
                with target.open("ab" if answer.status_code == 206 else "wb") as file:
                    async for piece in answer.aiter_bytes(_PIECE):
                        _write(file, piece)
        except httpx2.HTTPError as error:
            raise _CutError(f"the object storage: {error or type(error).__name__}") from error
        _check_whole(info, target)


def _there(target: Path) -> int:
    return target.stat().st_size if target.exists() else 0


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    if file.tell() > LARGEST:
        raise PluginRefused(f"a plugin is larger than {LARGEST >> 20} MiB")


def _check_whole(info: agent_pb2.PluginInfo, target: Path) -> None:
    size = _there(target)
    if size < info.size:
        raise _CutError(f"only {size} of {info.size} bytes came")
