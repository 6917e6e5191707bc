"""StreamPipelineStatus: where runs stand, then each change."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from generated.stream.v1 import stream_pb2
from server.domain.checks import Checks
from server.domain.errors import NotFound
from server.domain.event import Event, EventKind
from server.domain.run import Run, RunStatus, counts
from server.engine.clock import Clock
from server.engine.event_feed import EventFeed
from server.rpc.convert import enum
from server.rpc.cursor import check_reached, cursor_of
from server.stores.interfaces import Reader, RunFilter

FOLLOWED = 1000
SNAPSHOT_LIMIT = 10_000

Response = stream_pb2.StreamPipelineStatusResponse


class PipelineStream:
    """One call: it knows the names of the pipelines it has met."""

    def __init__(self, feed: EventFeed, reader: Reader, clock: Clock, namespace: str) -> None:
        self._feed = feed
        self._reader = reader
        self._clock = clock
        self._namespace = namespace
        self._names: dict[str, str] = {}

    async def responses(
        self, request: stream_pb2.StreamPipelineStatusRequest
    ) -> AsyncGenerator[Response, None]:
        """Yield where runs stand and each change, until every run that was named has ended.

        Raises:
            Invalid, NotFound: the request is wrong.
            CursorExpired: events after the cursor are gone.
            Draining: the server stops.
        """
        after = _check(request)
        if after is not None:
            await check_reached(after, self._feed, self._reader)
        wanted = RunFilter(self._namespace, tuple(request.pipeline_ids), tuple(request.run_ids))
        for pipeline_id in wanted.pipeline_ids:
            pipeline = await self._reader.pipeline(self._namespace, pipeline_id)
            self._names[pipeline_id] = pipeline.name
        runs, position = await self._reader.runs_with_position(wanted, SNAPSHOT_LIMIT)
        _check_found(wanted, runs)
        self._names |= {run.pipeline_id: name for run, name in runs}
        if after is None:
            for run, _ in runs:
                yield self._standing(run, position)
        going = {run.public_id for run, _ in runs if not run.status.ended}
        start = position if after is None else after
        wants = _RunEvents(wanted)
        if wanted.run_ids and not going:
            events = self._feed.replay(start, position, wants)
        else:
            events = self._feed.follow(start, wants)
        async with aclosing(events):
            async for event in events:
                yield await self._change(event)
                if _is_end(event):
                    going.discard(event.resource_id)
                    if wanted.run_ids and not going and event.position > position:
                        return

    def _standing(self, run: Run, position: int) -> Response:
        changed = run.finished_at or run.started_at or run.created_at
        far = counts(run, self._clock.now())
        return self._response(
            run.pipeline_id, run.public_id, int(run.status), 0, changed, far, position
        )

    async def _change(self, event: Event) -> Response:
        data = event.data
        pipeline_id = event.pipeline_id or ""
        if name := data.get("name") if event.kind is EventKind.RUN_STATUS else None:
            self._names[pipeline_id] = name
        elif pipeline_id not in self._names:
            self._names[pipeline_id] = await self._name(pipeline_id)
        far = data if event.kind is EventKind.RUN_STATUS else data["run"]
        # A task's event does not change its run's status: that has an event of its own.
        previous = far.get("previous", far["status"])
        return self._response(
            pipeline_id, event.run_id or "", far["status"], previous, event.at, far, event.position
        )

    async def _name(self, pipeline_id: str) -> str:
        try:
            return (await self._reader.pipeline(self._namespace, pipeline_id)).name
        except NotFound:
            return ""

    def _response(
        self,
        pipeline_id: str,
        run_id: str,
        status: int,
        previous: int,
        at: int,
        far: dict[str, int],
        position: int,
    ) -> Response:
        return Response(
            pipeline_id=pipeline_id,
            run_id=run_id,
            pipeline_name=self._names.get(pipeline_id, ""),
            status=enum(status),
            previous_status=enum(previous),
            timestamp=at,
            total_jobs=far.get("total", 0),
            completed_jobs=far.get("ended", 0),
            failed_jobs=far.get("failed", 0),
            running_jobs=far.get("running", 0),
            current_stage=far.get("stage", 0),
            total_stages=far.get("stages", 0),
            duration=far.get("duration", 0),
            cursor=str(position),
            run_number=far.get("number", 0),
        )


class _RunEvents:
    """Which events are about the runs wanted."""

    def __init__(self, wanted: RunFilter) -> None:
        self._namespace = wanted.namespace
        self._pipelines = frozenset(wanted.pipeline_ids)
        self._runs = frozenset(wanted.run_ids)

    def __call__(self, event: Event) -> bool:
        return (
            event.namespace == self._namespace
            and (
                event.kind is EventKind.RUN_STATUS
                or (event.kind is EventKind.TASK_STATUS and "run" in event.data)
            )
            and (not self._pipelines or event.pipeline_id in self._pipelines)
            and (not self._runs or event.run_id in self._runs)
        )


def _is_end(event: Event) -> bool:
    return event.kind is EventKind.RUN_STATUS and RunStatus(event.data["status"]).ended


def _check(request: stream_pb2.StreamPipelineStatusRequest) -> int | None:
    checks = Checks()
    after = cursor_of(checks, request.after)
    for field in ("pipeline_ids", "run_ids"):
        if len(getattr(request, field)) > FOLLOWED:
            checks.fail(field, f"must have at most {FOLLOWED} ids")
    checks.done()
    return after


def _check_found(wanted: RunFilter, runs: list[tuple[Run, str]]) -> None:
    found = {run.public_id for run, _ in runs}
    for run_id in wanted.run_ids:
        if run_id not in found:
            raise NotFound("run", run_id)
