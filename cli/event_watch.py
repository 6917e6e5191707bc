"""Events as they happen, on one line each."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from cli.connection import Api
from cli.output import as_data, painted, print_line
from cli.stream_follow import Answers, follow
from cli.times import stamp
from generated.stream.v1 import stream_pb2

COLOURS = {
    stream_pb2.EVENT_TYPE_JOB_COMPLETED: "green",
    stream_pb2.EVENT_TYPE_JOB_FAILED: "red",
    stream_pb2.EVENT_TYPE_JOB_CANCELLED: "yellow",
    stream_pb2.EVENT_TYPE_PIPELINE_COMPLETED: "green",
    stream_pb2.EVENT_TYPE_PIPELINE_FAILED: "red",
    stream_pb2.EVENT_TYPE_AGENT_OFFLINE: "red",
}


@dataclass
class Wanted:
    """Which events; `request` holds the filters."""

    request: stream_pb2.StreamEventsRequest = field(default_factory=stream_pb2.StreamEventsRequest)
    after: str = ""
    """The cursor to go on after."""
    oldest: bool = False
    """Whether to begin with the oldest event kept."""


async def events_until_now(
    api: Api, wanted: Wanted
) -> AsyncIterator[stream_pb2.StreamEventsResponse]:
    """Give the events there are, after the wanted cursor or from the oldest on."""
    now = ""
    async for opening in follow(Opener(api, Wanted())):
        now = opening.cursor
        break
    async for answer in follow(Opener(api, wanted), wanted.after):
        for event in answer.events:
            if int(event.cursor) > int(now):
                return
            yield event
        if int(answer.cursor) >= int(now):
            return


async def events_from_now(
    api: Api, wanted: Wanted
) -> AsyncIterator[stream_pb2.StreamEventsResponse]:
    """Give events as they happen, after the wanted cursor or from now on, for ever."""
    async for answer in follow(Opener(api, wanted), wanted.after):
        for event in answer.events:
            yield event


def print_event(event: stream_pb2.StreamEventsResponse) -> None:
    """Print an event on one line."""
    # A task or a run is known by its name in the title; who wants its id finds it behind.
    about = "" if event.resource_id in event.title else f"  {event.resource_id}"
    more = f"  {event.description}" if event.description else ""
    title = painted(event.title, COLOURS.get(event.event_type))
    line = f"{stamp(event.timestamp / 1000)}  {title}{painted(about, dim=True)}{more}"
    print_line(as_data(event), line)


class Opener:
    """Opens the stream of wanted events after a cursor."""

    def __init__(self, api: Api, wanted: Wanted) -> None:
        self._api = api
        self._wanted = wanted

    def __call__(self, after: str) -> Answers[stream_pb2.StreamEventsResponse]:
        """Return the stream."""
        request = stream_pb2.StreamEventsRequest()
        request.CopyFrom(self._wanted.request)
        request.batched = True
        request.after = after
        request.from_oldest = self._wanted.oldest and not after
        return self._api.streams.StreamEvents(request, metadata=self._api.metadata)
