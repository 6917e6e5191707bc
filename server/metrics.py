"""Every Prometheus series of the server, in one list.

Names begin with `muster_` and end in their base unit. Labels take only values from lists in
this program (method names, status names), never ids or names a caller chooses. The exceptions
are `class`, what tasks need of an agent, and `measurement`, what agents measure of their own: of
each there are only so many at a time.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from server.domain.hook import HookKind

disable_created_metrics()  # type: ignore[no-untyped-call]  # of each a second series, for nobody
REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
BATCH_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


class BatchHistogram(Collector):
    """A histogram that takes many values at once, for a fraction of what `observe` costs."""

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._sum = 0.0
        registry.register(self)

    def add(self, values: Iterable[float]) -> None:
        """Take values in."""
        for value in values:
            self._counts[bisect_left(self._buckets, value)] += 1
            self._sum += value

    def collect(self) -> Iterator[Metric]:
        """Return what was taken in, as a registry asks it."""
        bounds = [*map(floatToGoString, self._buckets), "+Inf"]
        counts = zip(bounds, accumulate(self._counts), strict=True)
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=list(counts), sum_value=self._sum
        )


rpc_requests = Counter(
    "muster_rpc_requests_total", "gRPC calls that ended.", ["method", "code"], registry=REGISTRY
)
rpc_seconds = Histogram(
    "muster_rpc_duration_seconds",
    "How long unary gRPC calls took, long polls included.",
    ["method"],
    buckets=CALL_SECONDS,
    registry=REGISTRY,
)
streams_open = Gauge(
    "muster_streams_open", "gRPC streams that are open now.", ["method"], registry=REGISTRY
)

writer_batch_size = Histogram(
    "muster_writer_batch_commands",
    "Changes written in one transaction.",
    buckets=BATCH_SIZES,
    registry=REGISTRY,
)
writer_commit_seconds = Histogram(
    "muster_writer_commit_seconds",
    "How long a transaction of the writer took, commit included.",
    buckets=COMMIT_SECONDS,
    registry=REGISTRY,
)
writer_queue_length = Gauge(
    "muster_writer_queue_commands", "Changes that wait to be written.", registry=REGISTRY
)

task_transitions = Counter(
    "muster_task_transitions_total", "Tasks that came into a status.", ["status"], registry=REGISTRY
)
dispatch_claims = Counter(
    "muster_dispatch_claims_total", "Tasks handed to an agent.", registry=REGISTRY
)
leases_current = Gauge(
    "muster_leases", "Tasks that agents of this server hold now.", registry=REGISTRY
)
dispatch_claim_seconds = Histogram(
    "muster_dispatch_claim_seconds",
    "How long a claim that found work took, from the offer of slots to the agents' streams.",
    buckets=COMMIT_SECONDS,
    registry=REGISTRY,
)
queue_wait_seconds = BatchHistogram(
    "muster_queue_wait_seconds",
    "How long tasks were ready before an agent was given them.",
    buckets=WAIT_SECONDS,
    registry=REGISTRY,
)
queue_tasks = Gauge(
    "muster_queue_tasks",
    "Ready tasks by what they need of an agent: the classes with the most, and the other ones.",
    ["class"],
    registry=REGISTRY,
)
queue_oldest = Gauge(
    "muster_queue_oldest_seconds",
    "How long the oldest ready task has been ready, by what it needs of an agent.",
    ["class"],
    registry=REGISTRY,
)
group_waiting_tasks = Gauge(
    "muster_group_waiting_tasks",
    "Tasks that wait for a place in a concurrency group.",
    registry=REGISTRY,
)
waiting_groups = Gauge(
    "muster_waiting_groups",
    "Concurrency groups in which a task waits for a place.",
    registry=REGISTRY,
)
agents_connected = Gauge(
    "muster_agents_connected", "Agents with a live session.", registry=REGISTRY
)
agents_by_state = Gauge(
    "muster_agents", "Agents known to this server, by how they stand.", ["state"], registry=REGISTRY
)
agents_usage = Gauge(
    "muster_agents_usage_ratio",
    "Share of a resource in use on the agents connected here, 0 to 1: their mean and the highest.",
    ["resource", "stat"],
    registry=REGISTRY,
)
agents_running = Gauge(
    "muster_agents_running_tasks",
    "Tasks that the agents connected here say they run.",
    registry=REGISTRY,
)
agents_custom = Gauge(
    "muster_agents_custom",
    "Numbers that the agents connected here measure under names of their own.",
    ["measurement", "stat"],
    registry=REGISTRY,
)
hook_deliveries = Counter(
    "muster_hook_deliveries_total", "Webhook deliveries kept.", ["kind"], registry=REGISTRY
)
for _kind in HookKind:
    hook_deliveries.labels(_kind.value)  # a series is there before its first delivery
hook_refusals = Counter(
    "muster_hook_refusals_total", "Webhook calls without a right signature.", registry=REGISTRY
)
events = Counter("muster_events_total", "Events written.", registry=REGISTRY)

log_lines = Counter("muster_log_lines_total", "Log lines stored.", registry=REGISTRY)
log_bytes = Counter("muster_log_bytes_total", "Bytes of log text stored.", registry=REGISTRY)
logs_pruned = Counter(
    "muster_logs_pruned_total",
    "Logs of ended tasks that were deleted, by reason: age or size.",
    ["reason"],
    registry=REGISTRY,
)
logs_archived = Counter(
    "muster_logs_archived_total", "Logs of ended tasks that were archived.", registry=REGISTRY
)
log_pruned_bytes = Counter(
    "muster_log_pruned_bytes_total",
    "Bytes they had as they were stored, by reason.",
    ["reason"],
    registry=REGISTRY,
)
for _reason in ("age", "size"):  # 0 from the start, so that a rate sees the first
    logs_pruned.labels(_reason)
    log_pruned_bytes.labels(_reason)


def text() -> bytes:
    """Return every series in Prometheus' text format."""
    return generate_latest(REGISTRY)
