"""Packages as artifacts in an OCI registry, one manifest with one layer each.

oras does the speaking; it takes whatever the registry sends, so every manifest and layer is hashed
here before it is used.
"""

import asyncio
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import oras.provider
from requests import RequestException
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from server.domain.errors import DamagedPlugin, StoreUnavailable
from server.stores.interfaces import HomeKind

MEDIA_TYPE = "application/vnd.muster.plugin.v1.tar+gzip"
CONFIG_TYPE = "application/vnd.muster.plugin.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_BYTES = 64 * 1024
SECONDS = (3, 30)
"""How long it may take to connect, and between two bytes of an answer."""

_TRIED_AGAIN = retry(
    retry=retry_if_exception_type(RequestException),
    stop=stop_after_attempt(3),
    wait=wait_random_exponential(0.1, max=2),
    reraise=True,
)

_CONFIG = b"{}"


@dataclass(frozen=True, slots=True)
class Repository:
    """`host` has the port; the login is empty where nobody asks."""

    host: str
    name: str
    insecure: bool = False
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Repository({self.host}/{self.name})"  # never the password


class RegistryHome:
    """See interfaces.PluginHome. A package's tag is its SHA-256."""

    kind = HomeKind.REGISTRY

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def put(self, sha256: str, package: Path) -> None:
        """See PluginHome."""
        try:
            await asyncio.to_thread(self._put, sha256, package)
        except (RequestException, ValueError, OSError) as error:
            raise StoreUnavailable(f"plugins: {_words(error)}") from error

    @_TRIED_AGAIN
    def _put(self, sha256: str, package: Path) -> None:
        registry = self._registry()
        container = self._container(sha256)
        config = {
            "mediaType": CONFIG_TYPE,
            "size": len(_CONFIG),
            "digest": f"sha256:{hashlib.sha256(_CONFIG).hexdigest()}",
        }
        layer = {
            "mediaType": MEDIA_TYPE,
            "size": package.stat().st_size,
            "digest": f"sha256:{sha256}",
            "annotations": {"org.opencontainers.image.title": f"{sha256}.tar.gz"},
        }
        config_file = package.with_name(f"{package.name}.config")
        config_file.write_bytes(_CONFIG)
        try:
            for path, part in ((config_file, config), (package, layer)):
                answer = registry.upload_blob(str(path), container, part)
                _must(answer, "takes no blob")
        finally:
            config_file.unlink(missing_ok=True)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": MEDIA_TYPE,
            "config": config,
            "layers": [layer],
        }
        where = registry.get_container(container)
        _must(registry.upload_manifest(manifest, where), "takes no manifest")

    async def fetch(self, sha256: str, target: Path) -> bool:
        """See PluginHome."""
        try:
            return await asyncio.to_thread(self._fetch, sha256, target)
        except (RequestException, ValueError) as error:
            raise StoreUnavailable(f"plugins: {_words(error)}") from error

    @_TRIED_AGAIN
    def _fetch(self, sha256: str, target: Path) -> bool:
        registry = self._registry()
        container = registry.get_container(self._container(sha256))
        url = f"{registry.prefix}://{container.manifest_url()}"
        answer = registry.do_request(url, "GET", headers={"Accept": MANIFEST_TYPE})
        if answer.status_code == 404:
            return False
        _must(answer, "gives no manifest")
        layer = _layer(answer.content, answer.headers.get("Docker-Content-Digest", ""), sha256)
        with registry.get_blob(container, layer["digest"], stream=True) as blob:
            _must(blob, "gives no blob")
            found = hashlib.sha256()
            with target.open("wb") as file:
                for piece in blob.iter_content(1024 * 1024):
                    found.update(piece)
                    file.write(piece)
        if found.hexdigest() != sha256:
            target.unlink(missing_ok=True)
            raise DamagedPlugin(sha256)
        return True

    async def url(self, sha256: str, seconds: int) -> str:
        """See PluginHome: agents need no login at the registry, the server fetches for them."""
        return ""

    def _container(self, sha256: str) -> str:
        return f"{self._repository.host}/{self._repository.name}:{sha256}"

    def _registry(self) -> Any:  # noqa: ANN401 (oras has no types)
        own = self._repository
        registry = oras.provider.Registry(
            hostname=own.host, insecure=own.insecure, tls_verify=True, auth_backend="basic"
        )
        # oras tries again for minutes, and waits for ever for an answer.
        registry.do_request = partial(oras.provider.Registry.do_request.__wrapped__, registry)
        registry.session.request = partial(registry.session.request, timeout=SECONDS)
        if own.user:
            registry.auth.set_basic_auth(own.user, own.password)
        return registry


def _layer(manifest: bytes, told: str, sha256: str) -> dict[str, Any]:
    """Return the one layer of a manifest, which has to be the package.

    Raises:
        ValueError: it is another, or the manifest is not what the registry says it is.
    """
    if len(manifest) > MANIFEST_BYTES:
        raise ValueError("the registry's manifest is too large")
    if told and told != f"sha256:{hashlib.sha256(manifest).hexdigest()}":
        raise ValueError("the registry's manifest is not the one it says")
    layers = json.loads(manifest).get("layers")
    if not isinstance(layers, list) or len(layers) != 1 or not isinstance(layers[0], dict):
        raise ValueError("the registry's manifest has not one layer")
    if layers[0].get("digest") != f"sha256:{sha256}":
        raise ValueError("the registry's manifest is of another package")
    return layers[0]


def _must(answer: Any, what: str) -> None:  # noqa: ANN401 (oras has no types)
    if answer.status_code not in (200, 201, 202):
        raise ValueError(f"the registry {what}: {answer.status_code}")


def _words(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
