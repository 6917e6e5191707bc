import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from cli import task_watch
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2

FAILED = task_pb2.TASK_STATUS_FAILED


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_output_comes_out_where_the_task_printed_it(muster, control_plane):
    control_plane.prints("one", "two")
    control_plane.prints("oh", stream="stderr")
    done = muster("exec", "--", "make", "all")
    assert (done.code, done.out, done.err) == (0, "one\ntwo\n", "oh\n")


def test_bytes_that_are_no_text_come_out_as_they_were(muster, control_plane):
    line = stream_pb2.LogChunk(line_number=1, content="?", raw=b"\xff", continued=True)
    control_plane.lines.append((1, line))
    control_plane.prints("end")
    done = muster("exec", "--", "x")
    assert done.out.encode(errors="surrogateescape") == b"\xffend\n"


@pytest.mark.parametrize("code", [1, 7, 137, 255])
def test_the_exit_code_of_the_task_is_passed_on(muster, control_plane, code):
    control_plane.ends(FAILED, exit_code=code)
    assert muster("exec", "--", "false").code == code


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (task_pb2.TASK_STATUS_TIMEOUT, 124, "ran out of its"),
        (task_pb2.TASK_STATUS_CANCELLED, 125, "was cancelled"),
        (task_pb2.TASK_STATUS_SKIPPED, 125, "was skipped"),
        (FAILED, 125, "could not be run: no shell"),
    ],
)
def test_an_end_that_is_not_the_commands_own_is_told(muster, control_plane, status, code, said):
    control_plane.ends(status, error_message="no shell")
    done = muster("exec", "--", "x")
    assert done.code == code
    assert said in done.err


def test_a_task_that_was_not_started_in_time_is_told_apart(muster, control_plane):
    late = {"schedule_to_start": 5, "error_message": "it did not start within 5 seconds"}
    control_plane.ends(task_pb2.TASK_STATUS_TIMEOUT, **late)
    done = muster("exec", "--start-within", "5", "--priority", "9", "--", "x")
    assert done.code == 124
    assert "was not started: it did not start within 5 seconds" in done.err
    (request,) = control_plane.of(task_pb2.CreateTaskRequest)
    assert (request.priority, request.schedule_to_start) == (9, 5)


def test_a_lost_task_exits_125(muster, control_plane):
    lost = task_pb2.Attempt(number=1, status=task_pb2.ATTEMPT_STATUS_LOST, cause="agent is gone")
    control_plane.ends(FAILED, exit_code=9, attempts=[lost])
    done = muster("exec", "--", "x")
    assert done.code == 125
    assert "lost with its agent: agent is gone" in done.err


def test_an_unreachable_server_exits_125(muster):
    done = muster("exec", "--server", "127.0.0.1:1", "--", "x")
    assert done.code == 125
    assert "cannot reach 127.0.0.1:1" in done.err
    assert "muster up" in done.err


def test_a_refused_task_exits_125(muster, control_plane, bad_request):
    code, details = bad_request("env", "reserved name")
    control_plane.refuse("CreateTask", code, "the request is malformed", details)
    done = muster("exec", "--env", "MUSTER_X=1", "--", "x")
    assert done.code == 125
    assert done.err.splitlines() == ["Error: the request is malformed", "  env: reserved name"]


def test_options_become_the_request(muster, control_plane):
    muster(
        "exec", "--label", "role=build", "--label", "zone=a=b", "--selector", "cpus>3",
        "--env", "A=1", "--timeout", "60", "--name", "n", "--retry", "2", "--", "ls", "-l", "a b",
    )  # fmt: skip
    (request,) = control_plane.of(task_pb2.CreateTaskRequest)
    assert request.commands == ["ls -l 'a b'"]
    assert dict(request.label_selector.match_labels) == {"role": "build", "zone": "a=b"}
    assert request.label_selector.match_expressions[0].operator == task_pb2.LABEL_OPERATOR_GT
    assert (dict(request.env), request.timeout, request.name) == ({"A": "1"}, 60, "n")
    assert request.retry_count == 2
    assert request.request_id


def test_one_word_is_a_line_of_shell(muster, control_plane):
    muster("exec", "--", "cd /tmp && ls")
    assert control_plane.of(task_pb2.CreateTaskRequest)[0].commands == ["cd /tmp && ls"]


def test_nothing_to_run_is_wrong_usage(muster):
    assert muster("exec").code == 2


@pytest.mark.parametrize("wrong", [("--label", "x"), ("--env", "1=2"), ("--selector", "a in (")])
def test_malformed_options_are_wrong_usage(muster, wrong):
    assert muster("exec", *wrong, "--", "x").code == 2


def test_ctrl_c_cancels_the_task_waits_for_its_end_and_exits_130(muster, control_plane):
    control_plane.prints("working")
    control_plane.ends(task_pb2.TASK_STATUS_CANCELLED)
    control_plane.ends_when = threading.Event()
    control_plane.after_line["working"] = interrupt
    done = muster("exec", "--", "sleep", "100")
    assert done.code == 130
    assert done.out == "working\n"
    assert [request.task_id for request in control_plane.of(task_pb2.CancelTaskRequest)] == [
        "task-1"
    ]
    assert isinstance(control_plane.heard[-1], task_pb2.GetTaskRequest)


def test_a_second_ctrl_c_leaves_the_task_to_its_end(muster, control_plane):
    control_plane.prints("working")
    control_plane.ends_when = threading.Event()
    control_plane.after_line["working"] = interrupt
    control_plane.on_cancel = interrupt
    done = muster("exec", "--", "sleep", "100")
    assert done.code == 130
    assert "left the task to itself" in done.err


def test_a_cut_stream_goes_on_with_the_next_line(muster, control_plane):
    control_plane.prints("1", "2", "3", "4", "5")
    control_plane.cuts = ["2", "4"]
    done = muster("exec", "--", "count")
    assert (done.code, done.out) == (0, "1\n2\n3\n4\n5\n")
    asked = [request.from_line for request in control_plane.of(stream_pb2.StreamTaskLogRequest)]
    assert asked == [1, 3, 5]


def test_after_a_cut_the_log_goes_on_into_the_next_attempt(muster, control_plane):
    control_plane.prints("a1", "a2", attempt=1)
    control_plane.prints("b1", "b2", attempt=2)
    control_plane.cuts = ["a1", "b1"]
    control_plane.ends(task_pb2.TASK_STATUS_SUCCESS, attempt=2)
    done = muster("exec", "--", "flaky")
    assert done.out == "a1\na2\nb1\nb2\n"
    assert "attempt 2" in done.err


def test_a_connection_that_stays_broken_tells_how_to_go_on(muster, control_plane, monkeypatch):
    monkeypatch.setattr("cli.patience.LIMIT", timedelta(0))
    control_plane.refuse("StreamTaskLog", grpc.StatusCode.UNAVAILABLE.value[0], "gone")
    done = muster("exec", "--", "x")
    assert done.code == 125
    assert "muster task logs -f task-1" in done.err


def test_a_task_that_waits_says_why(muster, control_plane, monkeypatch):
    monkeypatch.setattr(task_watch, "NOTICE_AFTER", timedelta(milliseconds=1))
    control_plane.ends_when = threading.Event()
    remark = task_watch.remark

    def told(text):
        remark(text)
        control_plane.ends_when.set()

    monkeypatch.setattr(task_watch, "remark", told)
    done = muster("exec", "--label", "gpu=yes", "--", "x")
    assert done.code == 0
    assert "muster: waiting: no agent has label gpu=yes" in done.err


def test_a_log_that_is_not_whole_is_said_to_be(muster, control_plane):
    control_plane.log_state = task_pb2.LOG_STATE_INCOMPLETE
    assert "not whole" in muster("exec", "--", "x").err


def test_a_closed_output_cancels_the_task_quietly(control_plane):
    control_plane.prints(*(str(number) * 100 for number in range(2000)))
    program = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "cli", "--server", control_plane.address, "exec", "--", "yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(task_watch.__file__).parents[1],
    )
    program.stdout.readline()
    program.stdout.close()
    assert (program.wait(20), program.stderr.read()) == (141, b"")
    program.stderr.close()
    assert len(control_plane.of(task_pb2.CancelTaskRequest)) == 1


def test_progress_is_told_on_a_terminal_only(muster, control_plane, monkeypatch):
    statuses = task_pb2.TASK_STATUS_RUNNING, task_pb2.TASK_STATUS_SUCCESS
    changes = [
        stream_pb2.StreamTaskStatusResponse(
            status=status, agent_id="builder-1", attempt=1, duration=1500, cursor="1"
        )
        for status in statuses
    ]
    control_plane.changes = list(changes)
    assert muster("exec", "--", "x").err == ""
    told = [task_watch.progress(change) for change in changes]
    assert told == ["running on builder-1", "SUCCESS after 1.5s"]
