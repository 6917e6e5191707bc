"""What Prometheus is told of a server is what happened there."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from generated.task.v1 import task_pb2
from tests.e2e.api import Api, soon
from tests.e2e.processes import BIN, eventually

OTHER = "other"
DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
BOARD = DEPLOY / "grafana" / "muster.json"

LABELS = {
    "method": r"/?[\w./]+",
    "code": "[A-Z_]+",
    "status": "[A-Z]+",
    "state": "idle|online|busy|closed|lost",
    "resource": "cpu|memory|disk",
    "stat": "mean|max|sum",
    "measurement": ".{1,256}",
    "class": ".{1,80}",
    "reason": "age|size|quota",
    "kind": "github|gitlab|gitea|bitbucket|standard|hmac",
}
"""Every label there is, and how its values look."""


@pytest.fixture
def server(kit):
    return kit.start_server()


@pytest.fixture
def figures(kit, server):
    """Return a function that asks for one series' values, by their labels' values."""

    def figures(name):
        status, text = kit.get(server, "/metrics")
        assert status == 200
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples]
        return {tuple(s.labels.values()): s.value for s in samples if s.name == name}

    return figures


async def test_what_waits_and_how_it_was_handed_out_is_told(kit, server, figures, api: Api, gate):
    kit.start_agent(server, "--name", "a", slots=2)
    running = [await api.create(gate.wait, name=f"r{n}") for n in range(2)]
    for task_id in running:
        await api.runs(task_id)
    selector = task_pb2.LabelSelector(match_labels={"gpu": "yes"})
    line = [await api.create("true") for _ in range(3)]
    for _ in range(2):
        await api.create("true", label_selector=selector)
    group = task_pb2.ConcurrencyGroup(key="g")
    members = [await api.create("true", concurrency=group) for _ in range(3)]
    waiting = {("any agent",): 4.0, ("gpu=yes",): 2.0, (OTHER,): 0.0}

    async def told():
        return figures("muster_queue_tasks") == waiting

    await soon(told)
    assert figures("muster_queue_oldest_seconds").keys() == waiting.keys()
    assert figures("muster_queue_oldest_seconds")["any agent",] > 0
    assert figures("muster_group_waiting_tasks") == {(): 2}
    assert figures("muster_waiting_groups") == {(): 1}
    assert figures("muster_agents")["busy",] == 1
    assert figures("muster_leases") == {(): 2}
    gate.open()
    for task_id in (*line, *members):
        await api.ended(task_id)
    assert figures("muster_queue_wait_seconds_count") == {(): 8}
    assert figures("muster_dispatch_claims_total") == {(): 8}
    claims = figures("muster_dispatch_claim_seconds_count")[()]
    assert 1 <= claims <= 8
    assert figures("muster_writer_commit_seconds_count")[()] >= claims
    assert figures("muster_writer_batch_commands_sum")[()] >= 8 + claims
    del waiting["any agent",]
    await soon(told)
    assert figures("muster_group_waiting_tasks") == {(): 0}


# ---- what is told keeps the rules of Prometheus, and what we deploy names only what is told


@pytest.fixture(scope="module")
def text(shared):
    """What a server tells that has had something to do."""
    server = shared.start_server("--heartbeat-interval", "1")
    shared.start_agent(server)
    assert shared.cli("exec", "--", "echo hello", server=server).returncode == 0

    def measured():
        status, text = shared.get(server, "/metrics")
        assert status == 200
        return text if "muster_agents_custom{" in text else ""

    return eventually(measured)


@pytest.fixture(scope="module")
def families(text):
    return list(text_string_to_metric_families(text))


@pytest.fixture(scope="module")
def promtool():
    """Return a function that gives text to `promtool check …` and asserts that it has no word."""
    path = shutil.which("promtool", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if path is None:
        pytest.skip("promtool is not in .venv/bin and not on PATH; `make programs` tells why")

    def check(*arguments, text=""):
        done = subprocess.run(  # noqa: S603 - our own tool
            [path, "check", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return check


def test_promtool_finds_nothing_to_say_about_the_metrics(promtool, text):
    assert promtool("metrics", text=text) == ""


def test_promtool_finds_nothing_to_say_about_the_alerts(promtool):
    assert "SUCCESS" in promtool("rules", "--lint-fatal", str(ALERTS))


def test_every_series_is_ours_or_the_process_and_has_unit_and_help(families):
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert re.fullmatch(r"(muster|process|python)_[a-z_]+", name)
        assert family.documentation, name
        assert family.type in ("counter", "gauge", "histogram"), name
        if family.type != "counter":
            assert not name.endswith(("_total", "_count", "_sum", "_bucket")), name
        assert not re.search(r"_(milli|micro|nano|minutes?|hours?|kib|mib|percent)", name), name


def test_labels_have_few_values(families):
    for family in families:
        if not family.name.startswith("muster_"):
            continue
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert label == "le" or re.fullmatch(LABELS[label], value), sample
        assert len(family.samples) <= 2000, family.name


def expressions():
    """Return every expression of the dashboard and of the alerts, with where it stands."""
    board = json.loads(BOARD.read_text())
    panels = {p["title"]: p for p in board["panels"] if p["type"] != "row"}
    found = [(title, t["expr"]) for title, p in panels.items() for t in p["targets"]]
    groups = YAML(typ="safe").load(ALERTS)["groups"]
    return found + [(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


def test_the_dashboard_and_the_alerts_name_only_series_and_labels_there_are(families):
    told = {s.name: set(s.labels) for family in families for s in family.samples}
    for where, expression in expressions():
        names = set(re.findall(r"\b(?:muster|process|python)_\w+", expression))
        assert names, where
        assert names <= told.keys(), where
        inside = re.findall(r"\{(.*?)\}", expression)
        labels = {label for part in inside for label in re.findall(r"(\w+)\s*=", part)}
        by = re.findall(r"\b(?:by|on)\s*\((.*?)\)", expression)
        labels |= {label.strip() for part in by for label in part.split(",") if label.strip()}
        known = set.union(*(told[name] for name in names)) | {"instance"}
        assert labels <= known, where


def test_the_dashboard_shows_every_series_of_ours(families):
    shown = " ".join(expression for _, expression in expressions())
    for family in families:
        if family.name.startswith("muster_"):
            assert re.search(rf"\b{family.name}(_total|_bucket|_sum)?\b", shown), family.name


def test_every_alert_says_what_it_is_about():
    for group in YAML(typ="safe").load(ALERTS)["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
            assert rule["for"]
            assert rule["annotations"]["summary"].endswith(".")
