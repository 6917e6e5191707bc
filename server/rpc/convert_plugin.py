"""Plugins: between messages and records."""

import json
from typing import Any

from generated.agent.v1 import agent_pb2
from generated.catalog.v1 import catalog_pb2
from server.domain.plugin import PublishedPlugin
from server.stores.interfaces import HomeKind

LOCATIONS = {
    HomeKind.SERVER: agent_pb2.PLUGIN_LOCATION_SERVER,
    HomeKind.STORAGE: agent_pb2.PLUGIN_LOCATION_STORAGE,
    HomeKind.REGISTRY: agent_pb2.PLUGIN_LOCATION_REGISTRY,
}


def plugin_message(
    plugin: PublishedPlugin, home: HomeKind, *, whole: bool = False
) -> catalog_pb2.Plugin:
    """Return a version as people see it; `whole` has its parameters too."""
    about: dict[str, Any] = plugin.about
    message = catalog_pb2.Plugin(
        plugin_id=plugin.plugin_id,
        version=plugin.version,
        type=plugin.type,
        protocol=plugin.protocol,
        sha256=plugin.sha256,
        size=plugin.size,
        platforms=about["platforms"],
        permissions=about["permissions"],
        minimum_agent=about["minimum_agent"],
        description=about["description"],
        signed_by=plugin.signed_by,
        published_at=plugin.published_at,
        published_by=plugin.published_by,
        yanked=plugin.yanked,
        bundled=plugin.bundled,
    )
    if not plugin.bundled:
        message.location = LOCATIONS[home]
    if whole:
        message.parameters = json.dumps(about["parameters"])
    return message


def plugin_info(
    plugin: PublishedPlugin, home: HomeKind, url: str = "", reference: str = ""
) -> agent_pb2.PluginInfo:
    """Return a version as agents see it; one that comes with Muster has no digest."""
    return agent_pb2.PluginInfo(
        plugin_id=plugin.plugin_id,
        name=plugin.plugin_id,
        version=plugin.version,
        checksum=plugin.sha256,
        size=plugin.size,
        download_url=url,
        location=agent_pb2.PLUGIN_LOCATION_SERVER if plugin.bundled else LOCATIONS[home],
        type=plugin.type,
        signature=plugin.signature,
        reference=reference,
    )
