"""Brings packages of plugins to this host: from object storage by URL, else from the server."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import httpx2

from agent.artifacts.transfer import CutError, ExpiredError, RefusedError, bytes_of, get, trying
from agent.control_plane import ControlPlane
from agent.plugin_cache import PluginRefused, PluginUnavailable
from agent.rpc import is_transient
from generated.agent.v1 import agent_pb2

SILENCE_SECONDS = 30.0
"""How long the control plane may say nothing before it is asked again."""

LARGEST = 256 * 1024**2
"""Bytes of a package."""


class PluginFetcher:
    """See the module."""

    def __init__(self, plane: ControlPlane, client: httpx2.AsyncClient) -> None:
        self._plane = plane
        self._client = client

    async def fetch(self, info: agent_pb2.PluginInfo, target: Path) -> None:
        """Brings a package's bytes into a file, however often the line breaks.

        Raises:
            PluginRefused: Nobody has it (any more).
            PluginUnavailable: It cannot be had now, or by another URL only.
            OSError: It cannot be written.
        """
        where = f"plugin {info.reference}"
        if info.size > LARGEST:
            raise PluginRefused(f"{where} is larger than {LARGEST >> 20} MiB")
        try:
            async for attempt in trying(lambda: bytes_of(target)):
                with attempt:
                    if info.location == agent_pb2.PLUGIN_LOCATION_STORAGE and info.download_url:
                        await get(self._client, info.download_url, target, info.size)
                    else:
                        await self._by_call(info, target)
        except RefusedError as error:
            raise PluginRefused(f"{where}: {error}") from error
        except (CutError, ExpiredError) as error:
            raise PluginUnavailable(f"{where}: {error}") from error

    async def _by_call(self, info: agent_pb2.PluginInfo, target: Path) -> None:
        """Asks the control plane for the bytes behind those that are here.

        Raises:
            CutError: It broke; what came is kept.
            RefusedError: There is no such package, or it is larger than it should be.
            ExpiredError: The control plane does not give it to this agent now.
        """
        there = bytes_of(target)
        if there == info.size and there:
            return
        request = agent_pb2.FetchPluginRequest(
            plugin_id=info.plugin_id, version=f"sha256:{info.checksum}", offset=there
        )
        call = self._plane.fetch_plugin(request)
        try:
            with target.open("ab") as file:
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        piece = await call.read()
                    if not isinstance(piece, agent_pb2.FetchPluginResponse):
                        break
                    there += len(piece.data)
                    if there > info.size:
                        raise RefusedError(f"the control plane gives more than {info.size} bytes")
                    file.write(piece.data)
        except TimeoutError:
            raise CutError("the control plane is silent") from None
        except grpc.aio.AioRpcError as error:
            told = error.details() or error.code().name
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise RefusedError(told) from error
            if is_transient(error.code()):
                raise CutError(told) from error
            raise ExpiredError(told) from error
        finally:
            call.cancel()
        if there < info.size:
            raise CutError(f"only {there} of {info.size} bytes came")
