"""Jobs with an image, in containers of a real podman; skipped where there is none."""

import os
import uuid

import psutil
import pytest

from tests.e2e.kit import eventually
from tests.e2e.test_examples import standing
from tests.e2e.test_plugins import Plugged
from tests.podman import busybox_image, names

pytestmark = pytest.mark.xdist_group("podman")

SECRET = f"secret-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    with busybox_image(tmp_path_factory.mktemp("image")) as name:
        yield name


@pytest.fixture
def shop(kit, image):
    return Plugged(kit)


def job(image, *commands, **fields):
    lines = "".join(f"\n          - {command!r}" for command in commands)
    more = "".join(f"\n        {name}: {value}" for name, value in fields.items())
    return f"""
name: contained
stages:
  - name: s
    jobs:
      - name: job
        image: {image}{more}
        commands:{lines}
"""


def started(shop, tmp_path, text):
    shop.define(text, tmp_path)
    return shop.trigger("contained")


def ours():
    return [name for name in names() if name.startswith("muster-")]


def command_lines():
    found = psutil.process_iter(["cmdline"])
    return "\n".join(" ".join(each.info["cmdline"] or ()) for each in found)


def printed(shop, run_id, line):
    return line in shop.log(run_id, "job")


def test_a_job_runs_in_its_image_with_its_workspace_and_secrets(shop, image, tmp_path):
    (tmp_path / "value").write_text(SECRET)
    shop.muster("secret", "set", "key", "--from-file", str(tmp_path / "value"))
    text = job(
        image,
        "echo one > made; pwd > where",
        'test "$KEY" != "" && echo "key is $KEY"',
        'echo "words=$LEVEL" >> "$MUSTER_OUTPUT"',
        "sleep 1",
        "exit 5",
        env="{LEVEL: two}",
        secrets="{KEY: key}",
        artifacts="{files: made, on_failure: true}",
        outputs="words",
    )
    run_id = started(shop, tmp_path, text)
    eventually(lambda: printed(shop, run_id, "key is ***"), 60)
    assert SECRET not in command_lines()
    run = shop.ended(run_id)
    assert standing(run) == {"job": "FAILED"}
    (task_id,) = (each.task_id for each in run.jobs)
    task = shop.json("task", "get", task_id)
    assert task["exit_code"] == 5
    shop.muster("task", "artifacts", task_id, "--download", str(tmp_path / "down"))
    assert (tmp_path / "down" / "made").read_text() == "one\n"
    assert (tmp_path / "down" / "made").stat().st_uid == os.getuid()
    assert ours() == []


def test_a_cancelled_job_leaves_no_container(shop, image, tmp_path):
    run_id = started(shop, tmp_path, job(image, "echo runs", "sleep 600"))
    eventually(lambda: printed(shop, run_id, "runs"), 60)
    assert len(ours()) == 1
    shop.muster("task", "cancel", shop.run(run_id).jobs[0].task_id)
    assert standing(shop.ended(run_id)) == {"job": "CANCELLED"}
    eventually(lambda: ours() == [], 60)


def test_a_container_outlives_the_agents_session(shop, image, tmp_path):
    text = job(image, "echo runs", "while [ ! -e go ]; do sleep 1; done", "echo went on")
    run_id = started(shop, tmp_path, text)
    eventually(lambda: printed(shop, run_id, "runs"), 60)
    shop.agent.kill9()
    (workspace,) = (shop.agent.data_dir / "spool").glob("*/workspace")
    (workspace / "go").touch()
    shop.agent.start()
    assert standing(shop.ended(run_id)) == {"job": "SUCCESS"}
    assert shop.log(run_id, "job") == ["runs", "went on"]
    assert ours() == []


def test_no_container_of_a_killed_agent_stays(shop, image, tmp_path):
    stubborn = 'case "$MUSTER_ATTEMPT" in */1) trap "" TERM; echo runs; sleep 600;; esac'
    run_id = started(shop, tmp_path, job(image, stubborn, "echo again"))
    eventually(lambda: printed(shop, run_id, "runs"), 60)
    assert len(ours()) == 1
    shop.agent.kill9_supervisor()
    shop.agent.kill9()
    shop.agent.start()
    assert standing(shop.ended(run_id)) == {"job": "SUCCESS"}
    assert shop.log(run_id, "job")[-1] == "again"
    assert ours() == []


def test_an_image_that_is_not_there_is_named(shop, image, tmp_path):
    run_id = started(shop, tmp_path, job("localhost/absent:1", "true"))
    assert standing(shop.ended(run_id)) == {"job": "FAILED"}
    assert "localhost/absent:1" in " ".join(shop.log(run_id, "job"))
