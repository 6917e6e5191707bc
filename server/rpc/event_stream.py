"""StreamEvents: which events a caller wants, and how they are told."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing

from generated.stream.v1 import stream_pb2
from server.domain.checks import Checks
from server.domain.event import Event
from server.engine.event_feed import Batch, EventFeed
from server.rpc.convert_event import RESOURCE_TYPES, event_message, event_type, resource_type
from server.rpc.cursor import check_reached, cursor_of
from server.stores.interfaces import Reader

VALUES = 1000
"""Values one filter may have."""


class EventFilter:
    """Which events a caller wants: filters are ANDed, values inside one are ORed."""

    def __init__(self, namespace: str, request: stream_pb2.StreamEventsRequest) -> None:
        self._namespace = namespace
        asked: list[tuple[Callable[[Event], object], Iterable[object]]] = [
            (event_type, request.event_types),
            (lambda event: event.resource_id, request.resource_ids),
            (resource_type, request.resource_types),
            (lambda event: event.run_id, request.run_ids),
            (lambda event: event.pipeline_id, request.pipeline_ids),
        ]
        self._filters = [(of, frozenset(values)) for of, values in asked if values]

    def __call__(self, event: Event) -> bool:
        """Return whether an event is wanted."""
        return event.namespace == self._namespace and all(
            of(event) in values for of, values in self._filters
        )


async def stream_events(
    request: stream_pb2.StreamEventsRequest, namespace: str, feed: EventFeed, reader: Reader
) -> AsyncGenerator[stream_pb2.StreamEventsResponse, None]:
    """Yield the events a request asks for, for ever.

    Raises:
        Invalid: a field is malformed.
        CursorExpired: events after the cursor are gone.
        Draining: the server stops.
    """
    after = _check(request)
    if request.from_oldest:
        after = await reader.oldest_cursor()
    elif after is None:
        after = feed.position
    else:
        await check_reached(after, feed, reader)
    if request.batched:
        yield stream_pb2.StreamEventsResponse(cursor=str(after))
    batches = feed.batches(after, EventFilter(namespace, request))
    async with aclosing(batches):
        async for batch in batches:
            if request.batched:
                yield _in_one(batch)
                continue
            for event in batch.events:
                yield event_message(event)


def _in_one(batch: Batch) -> stream_pb2.StreamEventsResponse:
    return stream_pb2.StreamEventsResponse(
        cursor=str(batch.cursor), events=map(event_message, batch.events)
    )


def _check(request: stream_pb2.StreamEventsRequest) -> int | None:
    checks = Checks()
    after = cursor_of(checks, request.after)
    if request.after and request.from_oldest:
        checks.fail("from_oldest", "goes without after")
    for field in ("event_types", "resource_ids", "resource_types", "run_ids", "pipeline_ids"):
        if len(getattr(request, field)) > VALUES:
            checks.fail(field, f"must have at most {VALUES} values")
    for place, number in enumerate(request.event_types[:VALUES]):
        if number not in stream_pb2.EventType.values():
            checks.fail(f"event_types[{place}]", f"there is no type {number}")
    for place, name in enumerate(request.resource_types[:VALUES]):
        if name not in RESOURCE_TYPES:
            checks.fail(f"resource_types[{place}]", f"must be one of {', '.join(RESOURCE_TYPES)}")
    checks.done()
    return after
