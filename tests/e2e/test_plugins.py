"""Plugins: written, signed, published, run by jobs, taken back; with real processes."""

import json
import shutil
from pathlib import Path

import pytest

from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2
from tests.e2e.kit import eventually
from tests.e2e.test_examples import Shop, standing

EXAMPLES = Path(__file__).parents[2] / "examples" / "plugins"

PIPELINE = """
name: plugged
inputs: {file: {default: words.txt}}
stages:
  - name: s
    jobs:
      - name: greets
        secrets: {WHOM: whom}
        env: {KIND: plugin}
        steps:
          - commands: [printf 'a b a\\n' > words.txt]
          - uses: greet@1.0.0
            with: {name: {from_env: WHOM}}
          - uses: word-count@1
            with: {path: "${{ inputs.file }}"}
          - commands: [ls]
        outputs: [greeted, words]
      - name: reads
        needs: [greets]
        commands: ['echo "$N words"']
        env: {N: "${{ needs.greets.outputs.words }}"}
"""


class Plugged(Shop):
    """A server with plugins."""

    def pack(self, name, folder, *options):
        target = folder / f"{name}.tar.gz"
        self.muster("plugin", "pack", str(EXAMPLES / name), "--target", str(target), *options)
        return target

    def publish(self, name, folder, *options):
        return self.muster("plugin", "publish", str(self.pack(name, folder, *options)))

    def define(self, text, folder):
        file = folder / "muster.yaml"
        file.write_text(text)
        self.muster("pipeline", "apply", "-f", str(file))

    def json(self, *arguments):
        return json.loads(self.muster("-o", "json", *arguments))


@pytest.fixture
def shop(kit):
    return Plugged(kit)


def test_a_job_uses_plugins_of_both_protocols(shop, tmp_path):
    said = shop.publish("greet", tmp_path)
    assert said == "greet 1.0.0 is published. uses: greet@1.0.0"
    assert shop.publish("greet", tmp_path).startswith("greet 1.0.0 was there already")
    shop.publish("word-count", tmp_path)
    (tmp_path / "whom").write_text("somebody")
    shop.muster("secret", "set", "whom", "--from-file", str(tmp_path / "whom"))
    shop.define(PIPELINE, tmp_path)
    run = shop.ended(shop.trigger("plugged"))
    assert standing(run) == {"greets": "SUCCESS", "reads": "SUCCESS"}, shop.log(
        run.run_id, "greets"
    )
    assert shop.log(run.run_id, "greets") == [
        "Hello, ***.",
        "     2 a",
        "     1 b",
        "words.txt",
    ]
    assert shop.log(run.run_id, "reads") == ["3 words"]
    listed = {p["plugin_id"]: p for p in shop.json("plugin", "list") if not p["bundled"]}
    assert {id_: p["version"] for id_, p in listed.items()} == {
        "greet": "1.0.0",
        "word-count": "1.0.0",
    }
    labels = shop.json("agent", "get", shop.json("agent", "list")[0]["agent_id"])["labels"]
    assert labels["runs/plugin"] == "true"
    assert labels["plugin/greet"] == "1.0.0"


def test_a_plugin_that_nobody_has_fails_its_task_and_says_what_to_do(shop, tmp_path):
    text = PIPELINE.replace("secrets: {WHOM: whom}", "").replace("{from_env: WHOM}", "you")
    shop.define(text, tmp_path)
    run = shop.ended(shop.trigger("plugged"))
    assert standing(run)["greets"] == "FAILED"
    (task_id,) = (job.task_id for job in run.jobs if job.name == "greets")
    task = shop.tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id)).task
    assert task.error_message == (
        "could not start: there is no plugin greet@1.0.0; publish it: muster plugin publish FILE"
    )
    shop.publish("greet", tmp_path)
    shop.publish("word-count", tmp_path)
    again = shop.ended(shop.muster("run", "retry", run.run_id, "--failed"))
    assert again.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS
    shop.muster("plugin", "yank", "greet@1.0.0", "--reason", "it greets the wrong people")
    run = shop.ended(shop.trigger("plugged"))
    (task_id,) = (job.task_id for job in run.jobs if job.name == "greets")
    task = shop.tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id)).task
    assert "was taken back: it greets the wrong people; its digest still" in task.error_message
    digest = task.error_message.rpartition("@")[2]
    shop.define(text.replace("greet@1.0.0", f"greet@{digest}"), tmp_path)
    run = shop.ended(shop.trigger("plugged"))
    assert run.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS


def test_a_tampered_package_is_refused_and_never_run(kit, tmp_path):
    shop = Plugged(kit, "--quarantine", "1")
    shop.publish("greet", tmp_path)
    (kept,) = (Path(shop.server.data_dir) / "plugins").glob("*.tar.gz")
    kept.write_bytes(shop.pack("word-count", tmp_path).read_bytes())
    shop.define(
        "name: p\nstages: [{name: s, jobs: [{name: j, steps: [{uses: greet, with: {name: a}}]}]}]",
        tmp_path,
    )
    run_id = shop.trigger("p")
    (task_id,) = (job.task_id for job in shop.run(run_id).jobs)
    eventually(lambda: "other bytes" in shop.muster("task", "explain", task_id), 30)
    shutil.copy(shop.pack("greet", tmp_path), kept)
    assert shop.ended(run_id).status == pipeline_pb2.PIPELINE_STATUS_SUCCESS


def test_a_signed_plugin_runs_where_only_those_may(kit, tmp_path):
    shop = Plugged(kit)
    key = tmp_path / "release.key"
    shop.muster("plugin", "key", str(key))
    server = kit.start_server(
        *("--plugin-keys", f"{key}.pub", "--require-signed-plugins"), data_dir=tmp_path / "other"
    )
    kit.start_agent(server, "--plugin-keys", f"{key}.pub", "--require-signed-plugins")
    unsigned = shop.pack("greet", tmp_path)
    refused = kit.cli("plugin", "publish", str(unsigned), server=server)
    assert refused.returncode
    assert "is not signed, and this server takes only plugins that are" in refused.stderr
    signed = shop.pack("greet", tmp_path, "--sign", str(key))
    assert not kit.cli("plugin", "publish", str(signed), server=server).returncode
    found = json.loads(kit.cli("-o", "json", "plugin", "get", "greet", server=server).stdout)
    assert len(found["signed_by"]) == 16
