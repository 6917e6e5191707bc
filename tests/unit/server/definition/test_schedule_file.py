"""Files of schedules, TOML and YAML."""

import pytest

from server.definition.problem import Refused
from server.definition.schedule_file import read_schedules
from server.domain.schedule import CatchUp, Overlap

TOML = b"""
[[schedules]]
name = "nightly"
pipeline = "build"
schedule = "0 3 * * *"
zone = "Europe/Berlin"
overlap = "queue"
start = 2030-01-31
inputs = { depth = "full", level = 3 }

[[schedules]]
name = "often"
pipeline = "build"
namespace = "team"
schedule = "@hourly"
jitter = "5m"
"""
YAML = b"""
schedules:
  - name: nightly
    pipeline: build
    schedule: "0 3 * * *"
    zone: Europe/Berlin
    overlap: queue
    start: "2030-01-31"
    inputs: {depth: full, level: 3}
  - {name: often, pipeline: build, namespace: team, schedule: "@hourly", jitter: 5m}
"""


def test_both_forms_say_the_same():
    found = read_schedules("s.toml", TOML)
    assert found == read_schedules("s.yaml", YAML)
    nightly, often = found
    assert (nightly.namespace, nightly.name, nightly.pipeline) == ("default", "nightly", "build")
    assert nightly.plan.overlap is Overlap.QUEUE
    assert nightly.plan.inputs == {"depth": "full", "level": 3}
    assert nightly.plan.starts_at == 1_896_044_400_000
    assert (often.namespace, often.plan.jitter) == ("team", 300)
    assert often.plan.catch_up is CatchUp.LAST


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("s.toml", b"[[schedules]]\nname = \n", "s.toml:2:8: not TOML: Invalid value"),
        ("s.toml", b"\xff", "not TOML"),
        ("s.toml", TOML.replace(b"0 3 *", b"61 3 *"), "schedules[0].schedule: Bad minute"),
        ("s.toml", TOML.replace(b"Berlin", b"Berln"), "schedules[0].zone: there is no time zone"),
        ("s.toml", TOML.replace(b"pipeline", b"pipelin", 1), "did you mean 'pipeline'?"),
        ("s.toml", TOML.replace(b"often", b"nightly").replace(b"team", b"default"), "an earlier"),
        ("s.toml", TOML.replace(b'"queue"', b'"wait"'), "s.toml:7:1: schedules[0].overlap: must"),
        ("s.yaml", YAML.replace(b"2030", b"9999"), "start: must be before the year 2200"),
        ("s.yaml", YAML.replace(b"start:", b'end: "2029-12-31"\n    start:'), "end: must be after"),
        ("s.yaml", YAML.replace(b"queue", b"wait"), "s.yaml:7:14: schedules[0].overlap: must be"),
        ("s.yaml", YAML.replace(b"nightly", b'"a #1"'), "must not contain '#'"),
        ("s.yaml", b"", "schedules"),
    ],
)
def test_what_is_malformed_is_told_by_line_or_field(name, data, problem):
    with pytest.raises(Refused) as refused:
        read_schedules(name, data)
    assert any(problem in line for line in refused.value.describe(name)), refused.value
