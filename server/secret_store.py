"""Where secrets are kept: behind one interface, here or in an outside store."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from server.domain.errors import NotFound, SecretsRefused, StoreUnavailable
from server.domain.keeping_secrets import DeleteSecret, PutSecret
from server.domain.kept_secret import KeptSecret, Sealed
from server.domain.moment import Moment
from server.engine.writer import Writer
from server.sealing import Sealer, SealingError, bound_to
from server.stores.interfaces import Reader

TRIES = 5
VAULT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """A secret, without its value; moments are 0 where a store does not say."""

    name: str
    version: int
    created_at: Moment = 0
    updated_at: Moment = 0
    updated_by: str = ""
    key_version: str = ""


class SecretStore(Protocol):
    """Keeps secrets by namespace and name. Names are checked by whoever calls."""

    outside: bool
    """Whether it is none of the server's own, so that changes are not in its transactions."""

    async def put(self, namespace: str, name: str, value: str, by: str) -> SecretInfo:
        """Keep a value in place of the one before.

        Raises:
            SecretsRefused: there is no key to encrypt it with.
            StoreUnavailable: the store does not answer; it may have kept it.
        """

    async def known(self, namespace: str) -> list[SecretInfo]:
        """Return the secrets of a namespace, by name."""

    async def delete(self, namespace: str, name: str) -> None:
        """Forget a secret.

        Raises:
            NotFound: there is none.
        """

    async def values(self, namespace: str, names: Iterable[str]) -> dict[str, str]:
        """Return the values of those that exist and can be read.

        Raises:
            StoreUnavailable: the store does not answer.
        """

    async def missing(self, namespace: str, names: Iterable[str]) -> list[str]:
        """Return those of these names that do not exist, sorted."""

    async def close(self) -> None:
        """Let go of connections."""


class OwnSecrets:
    """Secrets in the server's own database, encrypted by it."""

    outside = False

    def __init__(self, writer: Writer, reader: Reader, sealer: Sealer | None) -> None:
        self._writer = writer
        self._reader = reader
        self._sealer = sealer

    async def put(self, namespace: str, name: str, value: str, by: str) -> SecretInfo:
        """See SecretStore."""
        if self._sealer is None:
            raise SecretsRefused
        for _ in range(TRIES):
            known = await self._reader.secrets(namespace, [name])
            version = known[0].version + 1 if known else 1
            sealed = self._sealer.seal(value, "secret", namespace, str(version), name)
            kept = await self._writer.submit(PutSecret(namespace, name, version, sealed, by))
            if kept is not None:
                return _info(kept)
        raise StoreUnavailable(f"others put {name} at the same time")

    async def known(self, namespace: str) -> list[SecretInfo]:
        """See SecretStore."""
        return [_info(each) for each in await self._reader.secrets(namespace)]

    async def delete(self, namespace: str, name: str) -> None:
        """See SecretStore."""
        await self._writer.submit(DeleteSecret(namespace, name))

    async def values(self, namespace: str, names: Iterable[str]) -> dict[str, str]:
        """See SecretStore."""
        found = {}
        for each in await self._reader.secrets(namespace, list(names)):
            if self._sealer is None:
                raise SecretsRefused
            try:
                sealed = Sealed(each.kek, each.wrapped, each.data)
                found[each.name] = self._sealer.open(sealed, *bound_to(each))
            except SealingError as error:
                raise StoreUnavailable(str(error)) from None
        return found

    async def missing(self, namespace: str, names: Iterable[str]) -> list[str]:
        """See SecretStore."""
        wanted = set(names)
        known = await self._reader.secrets(namespace, sorted(wanted))
        return sorted(wanted - {each.name for each in known})

    async def close(self) -> None:
        """See SecretStore."""


class VaultSecrets:
    """Secrets in OpenBao or Vault, KV version 2: MOUNT/NAMESPACE/NAME, in the field `value`."""

    outside = True

    def __init__(self, address: str, mount: str, token_file: Path) -> None:
        import httpx2  # late: servers that keep their own secrets do not need it

        self._http = httpx2
        self._token_file = token_file
        self._mount = mount
        self._client = httpx2.AsyncClient(base_url=address, timeout=VAULT_SECONDS)

    async def put(self, namespace: str, name: str, value: str, by: str) -> SecretInfo:
        """See SecretStore."""
        body = {"data": {"value": value}}
        answer = await self._ask("POST", "data", namespace, name, body)
        return SecretInfo(name, int(answer["data"]["version"]), updated_by=by)

    async def known(self, namespace: str) -> list[SecretInfo]:
        """See SecretStore."""
        answer = await self._ask("LIST", "metadata", namespace)
        names = sorted(answer["data"]["keys"]) if answer else []
        return [await self._version_of(namespace, name) for name in names if not name.endswith("/")]

    async def delete(self, namespace: str, name: str) -> None:
        """See SecretStore."""
        if not await self._ask("GET", "metadata", namespace, name):
            raise NotFound("secret", name)
        await self._ask("DELETE", "metadata", namespace, name)

    async def values(self, namespace: str, names: Iterable[str]) -> dict[str, str]:
        """See SecretStore."""
        found = {}
        for name in names:
            answer = await self._ask("GET", "data", namespace, name)
            value = (answer.get("data") or {}).get("data") or {}
            if isinstance(value.get("value"), str):
                found[name] = value["value"]
        return found

    async def missing(self, namespace: str, names: Iterable[str]) -> list[str]:
        """See SecretStore."""
        wanted = set(names)
        return sorted(wanted - (await self.values(namespace, sorted(wanted))).keys())

    async def close(self) -> None:
        """See SecretStore."""
        await self._client.aclose()

    async def _version_of(self, namespace: str, name: str) -> SecretInfo:
        answer = await self._ask("GET", "metadata", namespace, name)
        return SecretInfo(name, int((answer.get("data") or {}).get("current_version", 0)))

    async def _ask(
        self,
        method: str,
        what: str,
        namespace: str,
        name: str = "",
        body: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return an answer, empty where there is nothing of that name.

        Raises:
            StoreUnavailable: there is none, or a refusal; no secret is in the message.
        """
        path = f"/v1/{self._mount}/{what}/{quote(namespace)}"
        if name:
            path += f"/{quote(name)}"
        try:
            token = self._token_file.read_text(encoding="utf-8").strip()
            headers = {"X-Vault-Token": token}
            answer = await self._client.request(method, path, json=body, headers=headers)
            if answer.status_code == 404:
                return {}
            answer.raise_for_status()
            read: dict[str, Any] = answer.json() if answer.content else {}
        except self._http.HTTPStatusError as error:
            status = error.response.status_code
            raise StoreUnavailable(f"the secret store answers {status} to {path}") from None
        except (OSError, self._http.HTTPError, ValueError) as error:
            raise StoreUnavailable(f"secret store: {type(error).__name__}: {error}") from None
        return read


def _info(secret: KeptSecret) -> SecretInfo:
    return SecretInfo(
        secret.name,
        secret.version,
        secret.created_at,
        secret.updated_at,
        secret.updated_by,
        secret.kek,
    )
