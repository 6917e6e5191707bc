"""Looks at deliveries that were kept, and starts what they start: one after the other."""

import asyncio
import json

import structlog

from server.definition.trigger_filter import why_not
from server.domain.delivering import ClaimDeliveries, FinishDelivery, PruneDeliveries
from server.domain.errors import MusterError, NotFound
from server.domain.forges import Unread, events_of
from server.domain.hook import Delivery, Hook
from server.domain.moment import Millis
from server.domain.pipeline import Definition
from server.domain.trigger_event import TriggerEvent
from server.engine.clock import Clock
from server.engine.deliveries import Deliveries
from server.engine.surviving import survives
from server.engine.writer import Committed, Writer
from server.stores.interfaces import Reader

LOOK_AGAIN = 5.0
"""Seconds after which it looks by itself: another server may have died over a delivery."""

PRUNE_EVERY = 720
"""Looks between two in which old deliveries are forgotten."""

log = structlog.get_logger(__name__)


class DeliveryRunner:
    """See the module."""

    def __init__(
        self, writer: Writer, reader: Reader, deliveries: Deliveries, clock: Clock, kept: Millis
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._deliveries = deliveries
        self._clock = clock
        self._kept = kept
        """How long deliveries are kept."""
        self._wake = asyncio.Event()
        self._looks = 0

    def committed(self, committed: Committed) -> None:
        """Take in a commit: something may have been delivered."""
        if committed.effects.deliveries:
            self._wake.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._wake.clear()
            await survives("delivery runner", self._look)
            try:
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        while taken := await self._writer.submit(ClaimDeliveries()):
            for delivery, hook in taken:
                await self._finish(delivery, hook)
        if self._looks % PRUNE_EVERY == 0:
            await self._prune()
        self._looks += 1

    async def _finish(self, delivery: Delivery, hook: Hook) -> None:
        try:
            command = await self._read(delivery, hook)
            await self._writer.submit(command)
        except NotFound:
            return  # the hook was deleted meanwhile
        except MusterError as error:  # it is claimed for a while, and then looked at again
            log.warning("delivery is put off", delivery=delivery.public_id, error=str(error))

    async def _read(self, delivery: Delivery, hook: Hook) -> FinishDelivery:
        body = await self._deliveries.body(delivery)

        def done(outcome: str, *, refused: bool) -> FinishDelivery:
            return FinishDelivery(
                hook.namespace, delivery.public_id, hook.kind, (), outcome, refused
            )

        try:
            payload = await asyncio.to_thread(json.loads, body)
            events = events_of(hook.kind, delivery.event, payload)
        except (ValueError, RecursionError):
            return done("its body is not JSON", refused=True)
        except Unread as unread:
            return done(str(unread), refused=unread.malformed)
        pipeline = await self._reader.pipeline(hook.namespace, hook.pipeline_id)
        triggers = Definition.from_json(pipeline.definition).triggers
        starting: list[TriggerEvent] = []
        outcomes = []
        for event in events:
            reason = why_not(triggers, event)
            if reason is None:
                starting.append(event)
            else:
                outcomes.append(reason)
        return FinishDelivery(
            hook.namespace, delivery.public_id, hook.kind, starting, "; ".join(outcomes)
        )

    async def _prune(self) -> None:
        before = self._clock.now() - self._kept
        while names := await self._writer.submit(PruneDeliveries(before)):
            await self._deliveries.forget(names)
