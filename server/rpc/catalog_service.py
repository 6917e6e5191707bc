"""catalog.v1.CatalogService."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from generated.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from plugins.package.archive import LIMITS
from plugins.package.inspection import Package, inspect
from plugins.package.refusal import PackageRefused
from plugins.package.signature import PublicKey, verify
from server.auth import current_caller
from server.domain.checks import Checks
from server.domain.errors import Invalid, NotFound, StoreUnavailable, Violation, WrongState
from server.domain.plugin import Reference, rank
from server.domain.publishing import PublishPlugin, YankPlugin
from server.engine.catalog import Catalog, published_of
from server.engine.writer import Writer
from server.rpc.context import Context
from server.rpc.convert_plugin import plugin_message


class CatalogService(catalog_pb2_grpc.CatalogServiceServicer):
    """Plugins: publish, look up, take back."""

    def __init__(
        self,
        catalog: Catalog,
        writer: Writer,
        keys: tuple[PublicKey, ...] = (),
        *,
        signed_only: bool = False,
    ) -> None:
        self._catalog = catalog
        self._writer = writer
        self._keys = keys
        self._signed_only = signed_only

    async def PublishPlugin(
        self, request_iterator: AsyncIterator[catalog_pb2.PublishPluginRequest], context: Context
    ) -> catalog_pb2.PublishPluginResponse:
        """See the proto."""
        caller = current_caller()
        try:
            file = await asyncio.to_thread(self._catalog.shelf.new_file)
        except OSError as error:
            raise StoreUnavailable(f"plugins: {error.strerror or error}") from error
        try:
            signature = await _receive(request_iterator, file)
            package, signed_by = await asyncio.to_thread(self._looked_at, file, signature)
            new = published_of(
                package.manifest,
                package.sha256,
                package.size,
                namespace=caller.namespace,
                by=caller.name,
                signature=signature,
                signed_by=signed_by,
            )
            await self._catalog.home.put(package.sha256, file)
            kept, there = await self._writer.submit(PublishPlugin(caller.namespace, new))
        except PackageRefused as error:
            raise Invalid([Violation(field, why) for field, why in error.violations]) from error
        finally:
            file.unlink(missing_ok=True)
        message = plugin_message(kept, self._catalog.home.kind, whole=True)
        return catalog_pb2.PublishPluginResponse(plugin=message, already_there=there)

    def _looked_at(self, file: Path, signature: str) -> tuple[Package, str]:
        """Return what a package is, and the id of the key that signed it.

        Raises:
            PackageRefused: it is none, or the signature is not of it.
            WrongState: it has to be signed, and is not.
        """
        with file.open("rb") as opened:
            package = inspect(opened)
            name = f"{package.manifest.id}@{package.manifest.version}"
            if not signature:
                if self._signed_only:
                    why = (
                        "is not signed, and this server takes only plugins that are: "
                        "muster plugin pack FOLDER --sign KEY"
                    )
                    raise WrongState("plugin", name, why)
                return package, ""
            if not self._keys:
                return package, ""  # agents may know the key
            key, _ = verify(opened, signature, self._keys)
            return package, key.name

    async def ListPlugins(
        self, request: catalog_pb2.ListPluginsRequest, context: Context
    ) -> catalog_pb2.ListPluginsResponse:
        """See the proto."""
        wanted = [request.plugin_id] if request.plugin_id else None
        known = await self._catalog.known(current_caller().namespace, wanted)
        known.sort(key=lambda each: rank(each.version), reverse=True)
        known.sort(key=lambda each: each.plugin_id)
        if request.type:
            known = [each for each in known if each.type == request.type]
        if not request.plugin_id:
            latest = {each.plugin_id: each for each in reversed(known) if not each.yanked}
            known = sorted(latest.values(), key=lambda each: each.plugin_id)
        home = self._catalog.home.kind
        return catalog_pb2.ListPluginsResponse(plugins=[plugin_message(p, home) for p in known])

    async def GetPlugin(
        self, request: catalog_pb2.GetPluginRequest, context: Context
    ) -> catalog_pb2.GetPluginResponse:
        """See the proto."""
        wanted = Reference(request.plugin_id, request.version)
        found, known = await self._catalog.find(current_caller().namespace, wanted)
        if found is None:  # it may have been taken back
            found = next((each for each in known if each.version == request.version), None)
        if found is None:
            name = f"{request.plugin_id}@{request.version}".rstrip("@")
            raise NotFound("plugin", name)
        message = plugin_message(found, self._catalog.home.kind, whole=True)
        return catalog_pb2.GetPluginResponse(plugin=message)

    async def YankPlugin(
        self, request: catalog_pb2.YankPluginRequest, context: Context
    ) -> catalog_pb2.YankPluginResponse:
        """See the proto."""
        checks = Checks()
        if not request.undo and not request.reason.strip():
            checks.fail("reason", "should say why, for whoever uses it")
        checks.done()
        reason = "" if request.undo else request.reason
        command = YankPlugin(current_caller().namespace, request.plugin_id, request.version, reason)
        command.check()
        plugin = await self._writer.submit(command)
        message = plugin_message(plugin, self._catalog.home.kind)
        return catalog_pb2.YankPluginResponse(plugin=message)


async def _receive(requests: AsyncIterator[catalog_pb2.PublishPluginRequest], file: Path) -> str:
    """Write what a caller sends into a file and return the signature that came first.

    Raises:
        Invalid: it is too much.
        StoreUnavailable: the disk takes no more.
    """
    signature = ""
    size = 0
    first = True
    with file.open("wb") as opened:
        async for request in requests:
            if first:
                signature, first = request.signature, False
            size += len(request.data)
            if size > LIMITS.packed:
                raise Invalid([Violation("data", f"is larger than {LIMITS.packed} bytes")])
            try:
                await asyncio.to_thread(opened.write, request.data)
            except OSError as error:
                raise StoreUnavailable(f"plugins: {error.strerror or error}") from error
    if not size:
        raise Invalid([Violation("data", "should have the bytes of a package")])
    return signature
