"""The catalog of plugins: what was published, and what comes with Muster."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from plugins.package.manifest import Manifest
from server.domain.plugin import PublishedPlugin, Reference, pick
from server.engine.plugin_shelf import PluginShelf
from server.stores.interfaces import HomeKind, PluginHome, Reader

URL_LIFETIME = timedelta(hours=1)
"""How long a URL into object storage lasts: a task may wait for its slot with it."""


class Catalog:
    """Looks plugins up."""

    def __init__(self, reader: Reader, shelf: PluginShelf, bundled: Mapping[str, Manifest]) -> None:
        self.shelf = shelf
        self._reader = reader
        self._bundled = {id_: published_of(manifest) for id_, manifest in bundled.items()}

    @property
    def home(self) -> PluginHome:
        """Where packages live."""
        return self.shelf.home

    async def known(
        self, namespace: str, plugin_ids: Iterable[str] | None = None
    ) -> list[PublishedPlugin]:
        """Return what a namespace can use: what was published there, and what comes with Muster."""
        ids = None if plugin_ids is None else sorted(set(plugin_ids))
        if ids == []:
            return []
        found = await self._reader.plugins(namespace, ids)
        return [*found, *(p for id_, p in self._bundled.items() if ids is None or id_ in ids)]

    async def find(
        self, namespace: str, wanted: Reference
    ) -> tuple[PublishedPlugin | None, Sequence[PublishedPlugin]]:
        """Return what a reference means, and all versions of that plugin."""
        known = await self.known(namespace, [wanted.plugin_id])
        return pick(wanted, known), known

    async def url(self, plugin: PublishedPlugin) -> str:
        """Return where an agent fetches a package by itself; empty where it asks the server."""
        if plugin.bundled or self.home.kind is not HomeKind.STORAGE:
            return ""
        return await self.home.url(plugin.sha256, round(URL_LIFETIME.total_seconds()))


def published_of(
    manifest: Manifest,
    sha256: str = "",
    size: int = 0,
    *,
    namespace: str = "",
    by: str = "",
    signature: str = "",
    signed_by: str = "",
) -> PublishedPlugin:
    """Return the record of a version; without a digest it is one that comes with Muster."""
    return PublishedPlugin(
        key=0,
        namespace=namespace,
        plugin_id=manifest.id,
        version=str(manifest.version),
        type=str(manifest.type),
        protocol=str(manifest.protocol),
        sha256=sha256,
        size=size,
        about={
            "platforms": sorted(manifest.entry_points),
            "permissions": sorted(manifest.permissions),
            "minimum_agent": str(manifest.minimum_agent),
            "description": manifest.description,
            "parameters": dict(manifest.parameters),
        },
        signature=signature,
        signed_by=signed_by,
        published_at=0,
        published_by=by,
        bundled=not sha256,
    )
