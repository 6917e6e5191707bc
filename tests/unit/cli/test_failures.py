import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo

from cli.root import root
from generated.task.v1 import task_pb2

ROOT = Path(__file__).parents[3]


def test_an_unreachable_server_exits_3_and_says_how_to_start_one(muster):
    done = muster("task", "list", "--server", "127.0.0.1:1")
    assert done.code == 3
    assert done.err == (
        "Error: cannot reach 127.0.0.1:1 — is the server running? start one with: muster up\n"
    )


def test_an_unknown_id_exits_4_and_says_where_to_look(muster, control_plane):
    control_plane.refuse("GetTask", code_pb2.NOT_FOUND, "task x does not exist")
    done = muster("task", "get", "x")
    assert done.code == 4
    assert done.err == "Error: task x does not exist — see what there is with: muster task list\n"


def test_each_bad_field_has_a_line(muster, control_plane):
    violations = [
        BadRequest.FieldViolation(field="commands[0]", description="is empty"),
        BadRequest.FieldViolation(field="env[1A]", description="is not a name"),
    ]
    details = BadRequest(field_violations=violations)
    control_plane.refuse("CreateTask", code_pb2.INVALID_ARGUMENT, "2 fields are bad", details)
    done = muster("task", "create", "-c", "")
    assert done.code == 1
    assert done.err.splitlines() == [
        "Error: 2 fields are bad",
        "  commands[0]: is empty",
        "  env[1A]: is not a name",
    ]


def test_a_message_that_only_repeats_the_fields_is_not_told_twice(
    muster, control_plane, bad_request
):
    code, details = bad_request("env[MUSTER_A]", "is reserved")
    control_plane.refuse("CreateTask", code, "env[MUSTER_A]: is reserved", details)
    done = muster("task", "create", "--env", "MUSTER_A=1", "--", "x")
    assert done.err.splitlines() == [
        "Error: the server refuses these fields:",
        "  env[MUSTER_A]: is reserved",
    ]


def test_a_full_server_says_when_to_try_again(muster, control_plane):
    wait = RetryInfo(retry_delay=Duration(seconds=2))
    control_plane.refuse("CreateTask", code_pb2.RESOURCE_EXHAUSTED, "the queue is full", wait)
    done = muster("task", "create", "--", "x")
    assert (done.code, done.err) == (1, "Error: the queue is full — try again in 2 s\n")


def test_a_draining_server_is_not_an_absent_one(muster, control_plane):
    draining = ErrorInfo(reason="ERROR_REASON_DRAINING", domain="muster")
    control_plane.refuse("ListTasks", code_pb2.UNAVAILABLE, "shutting down", draining)
    done = muster("task", "list")
    assert done.code == 3
    assert f"{control_plane.address} cannot serve now: shutting down" in done.err


@pytest.mark.parametrize("code", [value for value in code_pb2.Code.values() if value])
def test_no_refusal_ends_in_a_traceback(muster, control_plane, code):
    control_plane.refuse("CancelTask", code, "no")
    done = muster("task", "cancel", "x")
    assert done.code in (1, 3, 4)
    assert done.err.startswith("Error: ")
    assert len(done.err.splitlines()) == 1


def test_a_call_the_server_does_not_know_is_told(muster):
    done = muster("agent", "list")
    assert done.code == 1
    assert "does not offer this" in done.err


def test_a_feature_the_server_does_without_is_named(muster, control_plane):
    absent = ErrorInfo(reason="ERROR_REASON_NOT_AVAILABLE", domain="muster")
    control_plane.refuse("ListAgents", code_pb2.UNIMPLEMENTED, "not in this release: x", absent)
    done = muster("agent", "list")
    assert (done.code, done.err) == (1, "Error: not in this release: x\n")


def raise_bug(*_):
    raise LookupError("what now")


def test_a_bug_is_one_line(muster, monkeypatch):
    monkeypatch.setattr("cli.commands.version.program_version", raise_bug)
    done = muster("version")
    assert done.code == 1
    assert done.err.splitlines() == [
        "Error: muster failed unexpectedly: LookupError: what now"
        " (run it again with --debug for details)"
    ]


@pytest.mark.parametrize("arguments", [("--debug", "version"), ("version", "--debug")])
def test_a_bug_shows_its_traceback_when_asked_to(muster, monkeypatch, arguments):
    monkeypatch.setattr("cli.commands.version.program_version", raise_bug)
    assert "Traceback" in muster(*arguments).err


def test_ctrl_c_exits_130_without_a_word(muster, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(root, "main", interrupted)
    done = muster("version")
    assert (done.code, done.err) == (130, "")


def test_the_namespace_is_sent_with_every_call(muster, control_plane):
    control_plane.prints("x")
    muster("--namespace", "team-a", "exec", "--", "x")
    assert {metadata["muster-namespace"] for _, metadata in control_plane.metadata} == {"team-a"}
    assert {method for method, _ in control_plane.metadata} >= {
        "CreateTask",
        "StreamTaskLog",
        "GetTask",
    }


def test_an_option_given_to_the_program_wins_over_the_environment(muster, monkeypatch):
    monkeypatch.setenv("MUSTER_SERVER", "127.0.0.1:2")
    assert "127.0.0.1:1 " in muster("--server", "127.0.0.1:1", "ping").err


def test_a_submit_is_repeated_with_the_same_request_id(muster, control_plane):
    muster("task", "create", "--request-id", "abc", "--", "x")
    assert [request.request_id for request in control_plane.of(task_pb2.CreateTaskRequest)] == [
        "abc"
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ("task", "create", "--", "echo \udcff"),
        ("task", "create", "--name", "\udcff", "--", "x"),
        ("task", "create", "--env", "A=\udcff", "--", "x"),
        ("task", "list", "--server", "\udcff:1"),
        ("--namespace", "\udcff", "task", "list"),
    ],
)
def test_bytes_that_are_no_text_are_wrong_usage(muster, arguments):
    done = muster(*arguments)
    assert done.code == 2
    assert "is not text in UTF-8" in done.err


@pytest.mark.parametrize(
    "server", ["", "foo", "http://127.0.0.1:1", "127.0.0.1:99999", "h:0", "::1:5", "h:1/x", "[::1]"]
)
def test_an_address_that_is_none_is_wrong_usage(muster, server):
    done = muster("task", "list", "--server", server)
    assert done.code == 2
    assert "is not HOST:PORT, such as 127.0.0.1:50051" in done.err


@pytest.mark.parametrize("server", ["127.0.0.1:1", "[::1]:1", "localhost:1"])
def test_an_address_may_be_a_name_or_a_number(muster, server):
    assert muster("task", "list", "--server", server).code == 3


@pytest.mark.parametrize(
    ("redirect", "code", "said"),
    [
        (">&-", 1, ""),
        (">/dev/full", 1, "Error: cannot write: No space left on device\n"),
    ],
)
@pytest.mark.parametrize("arguments", ["task list", "task list -o yaml", "version"])
def test_output_that_nobody_takes_ends_in_one_line_at_most(
    control_plane, redirect, code, said, arguments
):
    control_plane.answers["ListTasks"] = task_pb2.ListTasksResponse()
    done = subprocess.run(  # noqa: S603 - our own program
        ["/bin/sh", "-c", f'exec "$0" -m cli {arguments} {redirect}', sys.executable],
        cwd=ROOT,
        env={**os.environ, "MUSTER_SERVER": control_plane.address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, said)
