import re

from server import metrics

UNITS = (
    *("_total", "_seconds", "_bytes", "_ratio"),
    *("_commands", "_open", "_connected", "_tasks", "muster_leases", "muster_agents"),
)
BOUNDED = {"method", "code", "status", "state", "resource", "stat"}


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
