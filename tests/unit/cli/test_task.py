import re
import time

import pytest

from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2


def test_create_prints_the_new_id(muster, control_plane):
    done = muster("task", "create", "-c", "cd x", "-c", "make", "--task-label", "priority=high")
    assert (done.code, done.out) == (0, "task-1\n")
    (request,) = control_plane.of(task_pb2.CreateTaskRequest)
    assert request.commands == ["cd x", "make"]
    assert dict(request.labels) == {"priority": "high"}
    assert request.request_id


def test_create_says_how_urgent_it_is_and_how_long_it_may_wait(muster, control_plane):
    muster("task", "create", "--priority", "0", "--start-within", "60", "--", "true")
    muster("task", "create", "--", "true")
    urgent, plain = control_plane.of(task_pb2.CreateTaskRequest)
    assert urgent.HasField("priority")
    assert (urgent.priority, urgent.schedule_to_start) == (0, 60)
    assert not plain.HasField("priority")


@pytest.mark.parametrize(
    ("text", "key", "limit"),
    [("deploy", "deploy", 0), ("deploy:3", "deploy", 3), ("a:b", "a:b", 0), ("a:b:12", "a:b", 12)],
)
def test_a_group_is_named_with_its_limit(muster, control_plane, text, key, limit):
    muster("task", "create", "--concurrency", text, "--", "true")
    muster("exec", "--concurrency", text, "--cancel-running", "--", "true")
    plain, cancels = (r.concurrency for r in control_plane.of(task_pb2.CreateTaskRequest))
    assert (plain.key, plain.limit, plain.on_conflict) == (key, limit, 0)
    assert cancels.on_conflict == task_pb2.CONCURRENCY_POLICY_CANCEL_RUNNING


@pytest.mark.parametrize(
    ("text", "right"),
    [(":2", "write KEY:2"), (":", "write KEY:LIMIT"), ("deploy:", "write deploy")],
)
def test_a_group_with_half_of_its_name_missing_is_told_what_would_be_right(muster, text, right):
    done = muster("task", "create", "--concurrency", text, "--", "true")
    assert done.code == 2
    assert right in done.err


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "99999999999"])
def test_a_limit_that_is_none_is_not_taken_for_a_part_of_the_name(muster, limit):
    done = muster("task", "create", "--concurrency", f"deploy:{limit}", "--", "true")
    assert done.code == 2
    assert f"is {limit}" in done.err


def test_cancelling_in_no_group_is_wrong_usage(muster):
    assert muster("task", "create", "--cancel-running", "--", "true").code == 2


def test_get_shows_the_group(muster, control_plane):
    standing = task_pb2.ConcurrencyStanding(
        key="deploy",
        limit=2,
        on_conflict=task_pb2.CONCURRENCY_POLICY_CANCEL_RUNNING,
        holds_place=True,
    )
    task = task_pb2.TaskDetail(task_id="t", priority=8, schedule_to_start=90, concurrency=standing)
    control_plane.answers["GetTask"] = task_pb2.GetTaskResponse(task=task)
    shown = muster("task", "get", "t").out
    assert "Priority:     8\n" in shown
    assert "Start within: 1m 30s\n" in shown
    assert "Concurrency:  deploy (limit 2, cancels older tasks, holds a place)\n" in shown


def test_options_go_over_the_file(muster, control_plane, tmp_path):
    file = tmp_path / "task.yaml"
    file.write_text("name: a\ntimeout: 5\ncommands: [old]\nenv: {A: '1', B: '1'}\n")
    muster("task", "create", "-f", str(file), "--name", "b", "--env", "B=2", "--", "new")
    (request,) = control_plane.of(task_pb2.CreateTaskRequest)
    assert (request.name, request.timeout, request.commands) == ("b", 5, ["new"])
    assert dict(request.env) == {"A": "1", "B": "2"}


def test_nothing_to_run_is_wrong_usage(muster):
    assert muster("task", "create", "--name", "x").code == 2


def test_logs_print_what_there_is(muster, control_plane):
    control_plane.prints("1", "2", "3")
    done = muster("task", "logs", "task-1", "--from-line", "2")
    assert (done.code, done.out) == (0, "2\n3\n")
    (request,) = control_plane.of(stream_pb2.StreamTaskLogRequest)
    assert (request.follow, request.batched) == (False, True)


def test_followed_logs_survive_a_cut(muster, control_plane):
    control_plane.prints("1", "2", "3")
    control_plane.cuts = ["1"]
    assert muster("task", "logs", "-f", "task-1").out == "1\n2\n3\n"


@pytest.mark.parametrize("attempt", [1, 2])
def test_the_log_of_one_attempt_is_shown_alone(muster, control_plane, attempt):
    control_plane.prints("a", attempt=1)
    control_plane.prints("b", attempt=2)
    done = muster("task", "logs", "-f", "task-1", "--attempt", str(attempt))
    assert done.out == ["a\n", "b\n"][attempt - 1]


def test_an_unknown_task_has_no_log(muster, control_plane):
    control_plane.refuse("StreamTaskLog", 5, "task x does not exist")
    assert muster("task", "logs", "-f", "x").code == 4


def test_update_names_what_it_changes(muster, control_plane):
    control_plane.answers["UpdateTask"] = task_pb2.UpdateTaskResponse(message="changed")
    done = muster("task", "update", "t", "--timeout", "9", "--clear", "env")
    assert (done.code, done.out) == (0, "changed\n")
    (request,) = control_plane.of(task_pb2.UpdateTaskRequest)
    assert sorted(request.update_mask.paths) == ["env", "timeout"]


@pytest.mark.parametrize("options", [(), ("--name", "a", "--clear", "name")])
def test_an_update_of_nothing_or_to_and_fro_is_wrong_usage(muster, options):
    assert muster("task", "update", "t", *options).code == 2


@pytest.mark.parametrize(("option", "merge"), [((), True), (("--replace",), False)])
def test_labels_are_merged_unless_they_replace(muster, control_plane, option, merge):
    control_plane.answers["UpdateLabels"] = agent_pb2.UpdateLabelsResponse(labels={"a": "b"})
    assert muster("agent", "labels", "x", "a=b", *option).out == "a=b\n"
    assert control_plane.of(agent_pb2.UpdateLabelsRequest)[0].merge is merge


def test_agents_are_listed_by_selector(muster, control_plane, an_agent):
    control_plane.answers["ListAgents"] = agent_pb2.ListAgentsResponse(agents=[an_agent])
    done = muster("agent", "list", "--selector", "!spot", "--status", "idle")
    assert done.out.splitlines()[1].split()[:2] == ["builder-1", "IDLE"]
    (request,) = control_plane.of(agent_pb2.ListAgentsRequest)
    assert request.status == agent_pb2.AGENT_STATUS_IDLE
    assert request.label_selector.match_expressions[0].key == "spot"


def test_logs_may_begin_at_their_end_or_at_a_moment(muster, control_plane):
    control_plane.prints("1", "2")
    assert muster("task", "logs", "task-1", "--tail", "5", "--since", "2026-01-01T00:00Z").code == 0
    (request,) = control_plane.of(stream_pb2.StreamTaskLogRequest)
    assert (request.tail, request.since, request.from_line) == (5, 1_767_225_600_000, 0)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("2d", 172_800)])
def test_a_moment_may_be_so_long_ago(muster, control_plane, text, seconds):
    before = time.time()
    muster("task", "logs", "task-1", "--since", text)
    (request,) = control_plane.of(stream_pb2.StreamTaskLogRequest)
    assert before - seconds - 1 <= request.since / 1000 <= time.time() - seconds + 1


@pytest.mark.parametrize(
    "flags",
    [("--since", "soon"), ("--since", "m"), ("--tail", "0"), ("--tail", "1", "--from-line", "2")],
)
def test_a_place_to_begin_that_makes_no_sense_is_wrong_usage(muster, flags):
    assert muster("task", "logs", "task-1", *flags).code == 2


def test_a_cut_before_the_first_line_asks_for_the_same_place_again(muster, control_plane):
    control_plane.prints("1", "2")
    control_plane.cuts = ["1"]
    assert muster("task", "logs", "-f", "task-1", "--tail", "2").out == "1\n2\n"
    first, second = control_plane.of(stream_pb2.StreamTaskLogRequest)
    assert (first.tail, first.from_line) == (2, 0)
    assert (second.tail, second.from_line) == (0, 2)


def test_timestamps_stand_before_each_line(muster, control_plane):
    control_plane.prints("1")
    control_plane.lines[0][1].timestamp = 1_767_225_600_042
    done = muster("task", "logs", "task-1", "--timestamps")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.042[+-]\d{4} 1\n", done.out)


@pytest.mark.parametrize(
    ("ended_at", "log_state", "said"),
    [
        (9, task_pb2.LOG_STATE_OPEN, "muster: the last lines are still on their way; -f waits"),
        (0, task_pb2.LOG_STATE_OPEN, ""),
        (9, task_pb2.LOG_STATE_COMPLETE, ""),
    ],
)
def test_a_log_whose_end_is_on_its_way_says_so(muster, control_plane, ended_at, log_state, said):
    control_plane.prints("1", attempt=2)
    control_plane.log_state = task_pb2.LOG_STATE_OPEN
    attempts = [
        task_pb2.Attempt(number=1, ended_at=5, log_state=task_pb2.LOG_STATE_OPEN),
        task_pb2.Attempt(number=2, ended_at=ended_at, log_state=log_state),
    ]
    control_plane.ends(task_pb2.TASK_STATUS_SUCCESS, attempt=2, attempts=attempts)
    done = muster("task", "logs", "task-1")
    assert (done.code, done.out) == (0, "1\n")
    assert done.err.startswith(said)
    assert bool(done.err) == bool(said)
