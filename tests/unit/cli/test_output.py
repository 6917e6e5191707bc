import json
import os
import pty
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import cli
from generated.agent.v1 import agent_pb2
from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2

ESCAPE = "\x1b["
ID = str(uuid.UUID(int=1))


@pytest.fixture
def tasks(control_plane):
    done = task_pb2.TaskDetail(
        task_id=ID, name="n" * 300, status=task_pb2.TASK_STATUS_SUCCESS, created_at=1, duration=1500
    )
    control_plane.answers["ListTasks"] = task_pb2.ListTasksResponse(success=True, tasks=[done])
    return control_plane


def on_a_terminal(control_plane, *arguments, **environment):
    """Return what the command prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    program = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "cli", "--server", control_plane.address, *arguments],
        stdout=theirs,
        cwd=Path(cli.__file__).parents[1],
        env={**clean, "TERM": "xterm", "COLUMNS": "80", **environment},
    )
    os.close(theirs)
    printed = b""
    while chunk := _read(ours):
        printed += chunk
    os.close(ours)
    assert program.wait(10) == 0
    return printed.decode()


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux tells the end of a terminal
        return b""


def test_a_piped_table_is_plain_and_uncut(muster, tasks):
    done = muster("task", "list")
    assert ESCAPE not in done.out
    assert "n" * 300 in done.out
    assert done.out.splitlines()[1].split()[0] == ID


def test_states_lose_their_prefix_and_durations_are_human(muster, tasks):
    row = muster("task", "list").out.splitlines()[1]
    assert "TASK_STATUS" not in row
    assert row.split()[2] == "SUCCESS"
    assert row.endswith("1.5s")


def test_a_terminal_gets_colours_and_full_ids(tasks):
    printed = on_a_terminal(tasks, "task", "list")
    assert ESCAPE in printed
    assert ID in printed


def test_no_color_means_plain_on_a_terminal_too(tasks):
    assert ESCAPE not in on_a_terminal(tasks, "task", "list", NO_COLOR="1")


@pytest.mark.parametrize(
    "arguments", [("-o", "json", "task", "list"), ("task", "list", "-o", "json")]
)
def test_json_is_the_apis_own_with_the_names_of_the_proto_files(muster, tasks, arguments):
    (task,) = json.loads(muster(*arguments).out)
    assert task["task_id"] == ID
    assert task["status"] == "TASK_STATUS_SUCCESS"
    assert task["exit_code"] == 0


def test_yaml_says_what_json_says(muster, tasks):
    as_yaml = YAML(typ="safe").load(muster("task", "list", "-o", "yaml").out)
    assert as_yaml == json.loads(muster("task", "list", "-o", "json").out)


def test_every_answer_parses_as_json(muster, control_plane, an_agent, a_pipeline):
    pages = {
        "ListAgents": agent_pb2.ListAgentsResponse(agents=[an_agent]),
        "GetAgent": agent_pb2.GetAgentResponse(agent=an_agent),
        "UpdateLabels": agent_pb2.UpdateLabelsResponse(labels={"a": "b"}),
        "ListPipelines": pipeline_pb2.ListPipelinesResponse(pipelines=[a_pipeline]),
        "GetPipeline": pipeline_pb2.GetPipelineResponse(pipeline=a_pipeline),
        "TriggerPipeline": pipeline_pb2.TriggerPipelineResponse(run_id="r"),
        "StopPipeline": pipeline_pb2.StopPipelineResponse(message="1 run"),
        "GetRun": pipeline_pb2.GetRunResponse(run=pipeline_pb2.RunDetail(run_id="r")),
        "ListRuns": pipeline_pb2.ListRunsResponse(),
        "RetryTask": task_pb2.RetryTaskResponse(new_task_id="t"),
        "Ping": task_pb2.PingResponse(message="pong"),
    }
    control_plane.answers.update(pages)
    for line in (
        "agent list", "agent get a", "agent labels a", "agent labels a k=v", "pipeline list",
        "pipeline get nightly", "pipeline trigger nightly", "pipeline stop nightly", "run get r",
        "run list", "task retry t", "task cancel t", "task get t", "ping", "task create -- x",
    ):  # fmt: skip
        done = muster(*line.split(), "-o", "json") if "--" not in line else None
        done = done or muster("-o", "json", *line.split())
        assert done.code == 0, line
        json.loads(done.out)
        text = muster(*line.split())
        assert (text.code, text.err) == (0, ""), line


def test_what_ended_without_an_exit_code_shows_none(muster, control_plane):
    attempt = task_pb2.Attempt
    lost, success = task_pb2.ATTEMPT_STATUS_LOST, task_pb2.ATTEMPT_STATUS_SUCCESS
    failed, released = task_pb2.ATTEMPT_STATUS_FAILED, task_pb2.ATTEMPT_STATUS_RELEASED
    task = task_pb2.TaskDetail(
        task_id=ID,
        status=task_pb2.TASK_STATUS_FAILED,
        attempt=5,
        finished_at=9,
        attempts=[
            attempt(number=1, agent_id="a", status=lost, started_at=1, ended_at=2),
            attempt(number=2, agent_id="a", status=released, ended_at=3),
            attempt(number=3, agent_id="a", status=success, started_at=4, ended_at=5),
            attempt(number=4, agent_id="a", status=failed, started_at=4, ended_at=5, exit_code=7),
            attempt(number=5, agent_id="a", status=failed, ended_at=9),
        ],
    )
    control_plane.answers["GetTask"] = task_pb2.GetTaskResponse(task=task)
    shown = muster("task", "get", ID).out
    rows = [line.split() for line in shown.splitlines() if line[:1].isdecimal() and " a " in line]
    assert [row[3] for row in rows] == ["-", "-", "0", "7", "-"]
    assert "Exit code:    -\n" in shown or "Exit code: -\n" in shown
    control_plane.answers["ListTasks"] = task_pb2.ListTasksResponse(tasks=[task])
    assert muster("task", "list").out.splitlines()[1].split()[2:] == ["-"]


def test_more_than_the_limit_is_said(muster, control_plane):
    task = task_pb2.TaskDetail(task_id=ID)
    page = task_pb2.ListTasksResponse(tasks=[task] * 2, next_page_token="next")  # noqa: S106
    control_plane.answers["ListTasks"] = [page, page]
    done = muster("task", "list", "--limit", "4")
    assert len(done.out.splitlines()) == 5
    assert "there are more than 4" in done.err
    asked = control_plane.of(task_pb2.ListTasksRequest)
    assert [(one.page_token, one.page_size) for one in asked] == [("", 4), ("next", 2)]


def test_one_task_is_shown_with_why_it_waits_and_its_attempts(muster, control_plane):
    requirement = task_pb2.LabelSelectorRequirement(
        key="cpus", operator=task_pb2.LABEL_OPERATOR_GT, values=["3"]
    )
    selector = task_pb2.LabelSelector(match_labels={"a": "b"}, match_expressions=[requirement])
    task = task_pb2.TaskDetail(
        task_id=ID,
        status=task_pb2.TASK_STATUS_QUEUED,
        waiting_reason="no agent has more than 3 cpus",
        label_selector=selector,
        attempts=[task_pb2.Attempt(number=1, status=task_pb2.ATTEMPT_STATUS_LOST)],
    )
    control_plane.answers["GetTask"] = task_pb2.GetTaskResponse(task=task)
    shown = muster("task", "get", ID).out
    for text in (ID, "QUEUED", "no agent has more than 3 cpus", "a=b, cpus>3", "LOST"):
        assert text in shown
