"""Webhook deliveries come in: checked as they came, made durable, and answered; read later."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import structlog
from uuid_utils import uuid7

from server import metrics
from server.domain.delivering import ReceiveDelivery
from server.domain.errors import MusterError, NotFound
from server.domain.forges import EVENT_HEADERS
from server.domain.forges.signing import Signed, check
from server.domain.hook import BODY_LIMIT, Delivery, Hook
from server.engine.clock import Clock
from server.engine.writer import Writer
from server.stores.interfaces import BlobStore, Reader

IN_ROW = 256 * 1024
"""Bytes of a compressed body up to which it is kept with its row, not in a blob."""

PREFIX = "hooks/"
QUICK = 64 * 1024
"""Bytes that are hashed and compressed here and now; more in a thread."""

Secrets = Callable[[str, Sequence[str]], Awaitable[Mapping[str, str]]]
"""Returns the values of kept secrets of a namespace, by their names."""

log = structlog.get_logger(__name__)


class HookUnknown(Exception):  # noqa: N818 (a refusal)
    """There is no such pipeline, or it has no hook: nobody is told which."""


class NotSigned(Exception):  # noqa: N818 (a refusal)
    """None of the pipeline's hooks knows the signature."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A delivery that is kept."""

    delivery_id: str
    duplicate: bool


class Deliveries:
    """See the module."""

    def __init__(
        self,
        writer: Writer,
        reader: Reader,
        clock: Clock,
        secrets: Secrets,
        blobs: BlobStore | None,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._secrets = secrets
        self._blobs = blobs

    async def hooks(self, namespace: str, reference: str) -> list[Hook]:
        """Return the hooks of a pipeline, by its id or its name in a namespace.

        Raises:
            HookUnknown: there is no such pipeline, or it has none.
        """
        try:
            pipeline = await self._reader.pipeline_called(namespace, reference)
        except NotFound:
            raise HookUnknown from None
        hooks = await self._reader.hooks(pipeline.namespace, pipeline.public_id)
        if not hooks:
            raise HookUnknown
        return hooks

    async def receive(
        self, hooks: Sequence[Hook], headers: Mapping[str, str], body: bytes
    ) -> Receipt:
        """Keep a delivery that one of a pipeline's hooks knows; it is durable when this returns.

        Raises:
            NotSigned: none knows it.
            MusterError: it cannot be kept now.
        """
        for hook in hooks:
            signed = await self._signed(hook, headers, body)
            if signed is not None:
                return await self._keep(hook, signed, headers, body)
        metrics.hook_refusals.inc()
        kinds = ", ".join(hook.kind.value for hook in hooks)
        log.info("hook call is not signed", pipeline=hooks[0].pipeline_id, hooks=kinds)
        raise NotSigned

    async def _signed(self, hook: Hook, headers: Mapping[str, str], body: bytes) -> Signed | None:
        names = [name for name in (hook.secret, hook.previous_secret) if name]
        secrets: list[str] = []
        for name in names:
            try:
                secrets += (await self._secrets(hook.namespace, [name])).values()
            except NotFound:
                log.warning("a hook's secret is not kept", hook=hook.public_id, secret=name)
        if len(body) > QUICK:
            return await asyncio.to_thread(
                check, hook.kind, hook.header, headers, body, secrets, self._clock.now()
            )
        return check(hook.kind, hook.header, headers, body, secrets, self._clock.now())

    async def _keep(
        self, hook: Hook, signed: Signed, headers: Mapping[str, str], body: bytes
    ) -> Receipt:
        if len(body) > QUICK:
            packed, digest = await asyncio.to_thread(_packed, body)
        else:
            packed, digest = _packed(body)
        delivery_id = str(uuid7())
        blob = ""
        if len(packed) > IN_ROW and self._blobs is not None:
            blob = f"{PREFIX}{hook.public_id}/{delivery_id}"
            await self._blobs.put(blob, packed)
        kept_id, duplicate = await self._writer.submit(
            ReceiveDelivery(
                hook.namespace,
                hook.public_id,
                delivery_id,
                signed.forge_id,
                "" if signed.id_is_signed and signed.forge_id else digest,
                headers.get(EVENT_HEADERS.get(hook.kind, ""), "")[:128],
                len(body),
                None if blob else packed,
                blob,
            )
        )
        metrics.hook_deliveries.labels(hook.kind.value).inc()
        if duplicate and blob and self._blobs is not None:
            await self._blobs.delete(blob)
        return Receipt(kept_id, duplicate)

    async def body(self, delivery: Delivery) -> bytes:
        """Return a delivery's body.

        Raises:
            MusterError: it cannot be read now.
        """
        packed = delivery.body
        if packed is None and self._blobs is not None:
            packed = await self._blobs.get(delivery.blob, 0, BODY_LIMIT + QUICK)
        return await asyncio.to_thread(_unpacked, packed or b"")

    async def forget(self, blobs: Sequence[str]) -> None:
        """Delete bodies whose deliveries are gone."""
        for name in blobs:
            if name and self._blobs is not None:
                try:
                    await self._blobs.delete(name)
                except MusterError as error:
                    log.warning("a delivery's body is left behind", blob=name, error=str(error))


def _packed(body: bytes) -> tuple[bytes, str]:
    return zlib.compress(body, 1), sha256(body).hexdigest()


def _unpacked(packed: bytes) -> bytes:
    """Return a body; what is damaged is returned as nothing."""
    try:
        return zlib.decompressobj().decompress(packed, BODY_LIMIT + 1)
    except zlib.error:
        return b""
