"""Every Prometheus series of the server, in one list.

Names begin with `muster_` and end in their base unit. Labels take only values from lists in
this program (method names, status names), never ids or names a caller chooses.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

REGISTRY = CollectorRegistry()

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
COMMIT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
BATCH_SIZES = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)

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
leases_current = Gauge("muster_leases", "Tasks that agents hold now.", registry=REGISTRY)
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
events = Counter("muster_events_total", "Events written.", registry=REGISTRY)

log_lines = Counter("muster_log_lines_total", "Log lines stored.", registry=REGISTRY)
log_bytes = Counter("muster_log_bytes_total", "Bytes of log text stored.", registry=REGISTRY)


def text() -> bytes:
    """Return every series in Prometheus' text format."""
    return generate_latest(REGISTRY)
