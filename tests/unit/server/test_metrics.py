import re

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from server import metrics

UNITS = (
    *("_total", "_seconds", "_bytes", "_ratio"),
    *("_commands", "_open", "_connected", "_tasks", "_groups", "muster_leases", "muster_agents"),
    "muster_agents_custom",  # each has a unit of its own
)
BOUNDED = {
    *(
        "method",
        "code",
        "status",
        "state",
        "resource",
        "stat",
        "class",
        "measurement",
        "reason",
        "kind",
    ),
}


def families():
    return [family for family in metrics.REGISTRY.collect() if family.name.startswith("muster_")]


def test_every_series_has_our_prefix_a_unit_and_a_help_text():
    assert families()
    for family in families():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert re.fullmatch(r"muster_[a-z_]+", name)
        assert name.endswith(UNITS), name
        assert family.documentation.endswith(".")


def test_labels_are_never_ids_or_names_that_callers_choose():
    for series in vars(metrics).values():
        assert set(getattr(series, "_labelnames", ())) <= BOUNDED


def test_the_process_itself_is_measured():
    assert b"process_resident_memory_bytes" in metrics.text()
    assert b"muster_writer_queue_commands 0.0" in metrics.text()


def test_a_batch_of_values_counts_as_the_values_do_one_by_one():
    values = [0.5, 1, 1.5, 2, 7]
    one_by_one, at_once = CollectorRegistry(), CollectorRegistry()
    slow = Histogram("muster_x_seconds", "X.", buckets=(1, 2), registry=one_by_one)
    for value in values:
        slow.observe(value)
    quick = metrics.BatchHistogram("muster_x_seconds", "X.", (1, 2), at_once)
    quick.add(values[:2])
    quick.add(values[2:])
    names = {sample.name for family in at_once.collect() for sample in family.samples}
    assert names == {f"muster_x_seconds_{part}" for part in ("bucket", "count", "sum")}
    assert generate_latest(at_once) == generate_latest(one_by_one)
