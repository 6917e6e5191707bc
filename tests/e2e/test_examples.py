"""The pipelines in examples/ run, and what pipeline files promise holds with real programs."""

import json
import time
from pathlib import Path

import grpc
import pytest

from generated.hook.v1 import hook_pb2_grpc
from generated.pipeline.v1 import pipeline_pb2, pipeline_pb2_grpc
from generated.schedule.v1 import schedule_pb2, schedule_pb2_grpc
from generated.secret.v1 import secret_pb2, secret_pb2_grpc
from generated.task.v1 import task_pb2, task_pb2_grpc
from tests.e2e.kit import eventually
from tests.e2e.processes import BIN
from tests.e2e.test_hooks import post
from tests.forge_samples import SECRET, github_push, signed

EXAMPLES = Path(__file__).parents[2] / "examples"


class Shop:
    """A server with an agent, and stubs."""

    def __init__(self, kit, *flags, env=None):
        self.kit = kit
        self.server = kit.start_server(*flags, env=env)
        self.agent = kit.start_agent(self.server, "--slots", "4")
        channel = grpc.insecure_channel(self.server.grpc)
        self.pipelines = pipeline_pb2_grpc.PipelineServiceStub(channel)
        self.schedules = schedule_pb2_grpc.ScheduleServiceStub(channel)
        self.hooks = hook_pb2_grpc.HookServiceStub(channel)
        self.secrets = secret_pb2_grpc.SecretServiceStub(channel)
        self.tasks = task_pb2_grpc.TaskServiceStub(channel)

    def muster(self, *arguments, code=0):
        done = self.kit.cli(*arguments, server=self.server)
        assert done.returncode == code, done.stderr
        return done.stdout.strip()

    def apply(self, name):
        return self.muster("pipeline", "apply", "-f", str(EXAMPLES / name))

    def trigger(self, name, *options):
        return self.muster("pipeline", "trigger", name, *options)

    def run(self, run_id):
        return self.pipelines.GetRun(pipeline_pb2.GetRunRequest(run_id=run_id)).run

    def ended(self, run_id):
        eventually(lambda: self.run(run_id).status >= pipeline_pb2.PIPELINE_STATUS_SUCCESS, 60)
        return self.run(run_id)

    def log(self, run_id, job):
        (task_id,) = (j.task_id for j in self.run(run_id).jobs if j.name == job)
        request = task_pb2.GetTaskLogRequest(task_id=task_id)
        return [line.content for line in self.tasks.GetTaskLog(request).logs]


@pytest.fixture
def shop(kit):
    return Shop(kit)


def standing(run):
    """Return how each job has ended."""
    return {job.name: task_pb2.TaskStatus.Name(job.status)[12:] for job in run.jobs}


def test_demo(shop):
    shop.apply("demo.yaml")
    run = shop.ended(shop.trigger("demo"))
    assert run.status == pipeline_pb2.PIPELINE_STATUS_PARTIAL
    assert standing(run) == {
        "look around": "SUCCESS",
        "unit": "SUCCESS",
        "style": "FAILED",
        "flaky": "SUCCESS",
        "pack": "SUCCESS",
    }
    assert shop.muster("pipeline", "versions", "demo").splitlines()[1].split()[0] == "1"


def test_matrix(shop):
    shop.apply("matrix.yaml")
    run = shop.ended(shop.trigger("matrix"))
    assert len(run.jobs) == 7
    assert run.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS
    assert shop.log(run.run_id, "unit (3.12, postgres)") == ["Python 3.12 with postgres"]
    assert shop.log(run.run_id, "tell") == ["all cells: success"]


def test_outputs(shop):
    shop.apply("outputs.yaml")
    run = shop.ended(shop.trigger("outputs", "--input", "upper=100"))
    assert run.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS
    assert shop.log(run.run_id, "join") == ["the sum is 5050"]
    assert json.loads(run.inputs) == {"upper": 100}
    again = shop.ended(shop.muster("run", "retry", run.run_id, "--from", "join"))
    assert [job.attempt for job in again.jobs] == [0, 0, 0, 1]  # the others were not done again
    assert shop.log(again.run_id, "join") == ["the sum is 5050"]


def test_nightly(shop):
    shop.apply("nightly.yaml")
    listed = shop.schedules.ListSchedules(schedule_pb2.ListSchedulesRequest()).schedules
    assert [each.name for each in listed] == ["nightly #1", "nightly #2"]
    shown = shop.muster("schedule", "get", "nightly #1")
    assert "30 2 * * * (Europe/Berlin)" in shown
    run = shop.ended(shop.muster("schedule", "run", "nightly #1"))
    assert standing(run) == {"quick": "SUCCESS", "full": "SUCCESS"}
    run = shop.ended(shop.trigger("nightly"))
    assert standing(run) == {"quick": "SUCCESS", "full": "SKIPPED"}
    assert run.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS
    shop.muster("schedule", "add", "often", "nightly", "* * * * * *", "--overlap", "allow")
    eventually(lambda: len(fired(shop, "often")) >= 3, 20)
    shop.muster("schedule", "pause", "often")
    times = [fire.at for fire in fired(shop, "often")]
    assert len(set(times)) == len(times)


def fired(shop, name):
    request = schedule_pb2.ListSchedulesRequest(name=name)
    (schedule,) = shop.schedules.ListSchedules(request).schedules
    asked = schedule_pb2.GetScheduleRequest(schedule_id=schedule.schedule_id)
    return [fire for fire in shop.schedules.GetSchedule(asked).fires if fire.run_id]


def test_webhook(shop):
    pipeline = shop.apply("webhook.yaml")
    made = shop.muster("hook", "add", "webhook", "github", "-o", "json")
    hook = json.loads(made)["hook"]
    request = secret_pb2.PutSecretRequest(name=hook["secret"], value=SECRET)
    shop.secrets.PutSecret(request)

    def call(payload):
        headers, body = signed("github", "push", payload)
        assert post(shop.server, pipeline, headers, body)[0] == 202

    def last_run(count):
        listed = pipeline_pb2.ListRunsRequest(pipeline_id=pipeline)
        eventually(lambda: len(shop.pipelines.ListRuns(listed).runs) == count, 20)
        return shop.pipelines.ListRuns(listed).runs[0].run_id

    call(github_push())
    run = shop.ended(last_run(1))
    left_out = {"ship?": "SKIPPED", "ship": "SKIPPED", "failed": "SKIPPED"}
    assert standing(run) == {"build": "SUCCESS", **left_out}
    assert run.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS
    call(github_push("refs/tags/v1.0"))
    run_id = last_run(2)
    eventually(lambda: any(job.awaits_approval for job in shop.run(run_id).jobs), 20)
    assert shop.muster("run", "approve", run_id, "--comment", "go") == "Approved."
    run = shop.ended(run_id)
    assert run.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS
    assert shop.log(run_id, "ship") == ["shipping v1.0"]
    listed = shop.muster("hook", "deliveries")
    assert listed.count("STARTED") == 2


def test_a_job_adds_the_jobs_of_a_file_that_it_has_made(kit, tmp_path):
    shop = Shop(kit)
    file = tmp_path / "load.yaml"
    file.write_text(f"""
name: load
stages:
  - name: load
    jobs:
      - name: load
        commands:
          - |
            cat > more.yaml <<END
            name: more
            stages:
              - name: added
                jobs:
                  - {{name: one, commands: echo one, outputs: n}}
                  - name: two
                    needs: one
                    if: needs.one.result == 'success'
                    commands: echo two
            END
          - {BIN}/muster run add -f more.yaml
""")
    shop.muster("pipeline", "apply", "-f", str(file))
    run = shop.ended(shop.trigger("load"))
    assert standing(run) == {"load": "SUCCESS", "one": "SUCCESS", "two": "SUCCESS"}
    assert run.status == pipeline_pb2.PIPELINE_STATUS_SUCCESS
    assert list(run.stages) == ["load", "added"]


def test_a_file_that_is_malformed_is_refused_by_the_server_too(shop):
    text = (EXAMPLES / "demo.yaml").read_text().replace("commands: echo packed", "comands: x")
    with pytest.raises(grpc.RpcError) as refused:
        shop.pipelines.CreatePipeline(pipeline_pb2.CreatePipelineRequest(file=text))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "comands: is not known here; did you mean 'commands'?" in refused.value.details()
    assert not shop.pipelines.ListPipelines(pipeline_pb2.ListPipelinesRequest()).pipelines


def test_a_newcomer_draws_a_run(shop):
    shop.apply("demo.yaml")
    run = shop.ended(shop.trigger("demo"))
    picture = shop.muster("run", "get", run.run_id, "--graph")
    assert picture.startswith("flowchart LR\n")
    assert picture.count("-->") == 6
    began = time.monotonic()
    assert "demo" in shop.muster("pipeline", "list")
    assert time.monotonic() - began < 10


def test_schedules_are_kept_as_a_file_says(kit, tmp_path):
    file = tmp_path / "schedules.toml"
    first = '[[schedules]]\nname = "one"\npipeline = "demo"\nschedule = "@hourly"\n'
    file.write_text(first + first.replace("one", "two"))
    shop = Shop(kit, "--schedule-file", str(file))
    shop.apply("demo.yaml")

    def crons():
        listed = shop.schedules.ListSchedules(schedule_pb2.ListSchedulesRequest()).schedules
        return {each.name: each.plan.cron for each in listed}

    shop.server.restart()  # it had no pipeline when it was taken first
    eventually(lambda: crons() == {"one": "@hourly", "two": "@hourly"}, 20)
    shop.muster("schedule", "remove", "one", code=1)
    file.write_text(first.replace("@hourly", "@daily"))
    eventually(lambda: crons() == {"one": "@daily"}, 20)
    file.write_text(first.replace("@hourly", "whenever"))
    eventually(lambda: "schedules[0].schedule: must have five" in shop.server.stderr.read_text())
    assert crons() == {"one": "@daily"}


def test_with_tokens_a_job_adds_to_its_own_run_and_those_who_are_asked_approve(kit, tmp_path):
    data_dir = kit.folder / "server"
    made = kit.launcher.run([*kit.server_program, "--data-dir", str(data_dir), "token", "root"])
    assert made.returncode == 0, made.stderr
    root = {"MUSTER_TOKEN": made.stdout.strip()}
    server = kit.start_server("--auth", "on", data_dir=data_dir)

    def muster(*arguments, token=root, code=0):
        done = kit.cli(*arguments, server=server, env=token)
        assert done.returncode == code, done.stderr
        return done.stdout.strip() if not code else done.stderr

    enrol = tmp_path / "enrol"
    enrol.write_text(json.loads(muster("token", "enrol", "hosts", "-o", "json"))["text"])
    kit.start_agent(server, "--enrolment-token-file", str(enrol))
    viewer = json.loads(muster("token", "create", "vic", "--role", "viewer", "-o", "json"))["text"]
    file = tmp_path / "p.yaml"
    file.write_text(
        f"""
name: load
stages:
  - name: load
    jobs:
      - name: load
        commands:
          - |
            cat > more.yaml <<END
            name: more
            stages: [{{name: added, jobs: [{{name: one, commands: echo one}}]}}]
            END
          - {BIN}/muster run add -f more.yaml
          - "! {BIN}/muster run add -f more.yaml --run 00000000-0000-7000-8000-000000000000"
          - "! {BIN}/muster pipeline trigger load"
      - name: go?
        approval: operator
"""
    )
    muster("pipeline", "apply", "-f", str(file))
    run_id = muster("pipeline", "trigger", "load")

    def run():
        return json.loads(muster("run", "get", run_id, "-o", "json"))

    eventually(lambda: any(job["awaits_approval"] for job in run()["jobs"]), 30)
    refused = muster("run", "approve", run_id, token={"MUSTER_TOKEN": viewer}, code=1)
    assert "it asks operator" in refused
    operator = json.loads(muster("token", "create", "olga", "--role", "operator", "-o", "json"))
    muster("run", "approve", run_id, "go?", token={"MUSTER_TOKEN": operator["text"]})
    eventually(lambda: run()["status"] == "PIPELINE_STATUS_SUCCESS", 30)
    assert [job["name"] for job in run()["jobs"]] == ["load", "go?", "one"]
    told = muster("audit", "-o", "json")
    assert '"run.approval"' in told
    assert '"run.add_jobs"' in told
