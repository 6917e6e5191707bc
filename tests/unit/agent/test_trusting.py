"""Signed tasks: what one side signs is what the other reads, and nothing else counts."""

import base64
import time
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import trusting
from agent.trusting import TrustedKeys, TrustError, read
from cli import task_signing
from cli.task_signing import make_key, sign
from generated.agent.v1 import agent_pb2
from generated.task.v1 import task_pb2
from server.domain.claiming import Assignment
from server.domain.moment import SECOND
from server.domain.policy import Policy
from server.domain.task import TaskSpec
from server.rpc.convert import new_task
from server.rpc.convert_agent import task_message


@pytest.fixture
def key(tmp_path):
    """A key's file, and the file of those who trust it."""
    line = make_key(tmp_path / "key")
    (tmp_path / "trusted").write_text(f"# ours\n{line}\n")
    return tmp_path / "key", read(tmp_path / "trusted")


def request(**changes):
    given = {
        "commands": ["echo ü", "true"],
        "env": {"B": "2", "A": "1"},
        "secrets": {"S": "hunter22"},
        "secret_refs": {"R": "name"},
        "artifacts": [task_pb2.ArtifactConfig(name="a", path="p", destination="d")],
        "workspace": "sub",
    }
    return task_pb2.CreateTaskRequest(**{**given, **changes})


def handed_over(signed):
    """Return a task as its agent gets it, through what the server does with it."""
    new = new_task(signed, lambda _: "sealed")
    timeout = (new.timeout or 3600) * SECOND
    task = Assignment(
        "t", "t.1", 1, "", "", "", 0, timeout, new.spec.to_json(), stop_with_lease=False
    )
    message = task_message(task, TaskSpec.from_json(task.spec), Policy())
    message.secrets.update({"S": "hunter22", "R": "value", "MUSTER_TOKEN": "key"})
    return message


@pytest.mark.parametrize("changes", [{}, {"timeout": 60}, {"executor": "noop"}, {"image": "i"}])
def test_what_was_signed_is_run(key, changes):
    file, trusted = key
    signed = request(**changes)
    sign(signed, file, timedelta(hours=1))
    task = handed_over(signed)
    assert trusting.signed_bytes(task) == task_signing.signed_bytes(signed)
    assert trusted.refusal(task) == ""


def changed(task, name):
    match name:
        case "commands":
            task.commands.append("rm -rf /")
        case "env":
            task.env["A"] = "other"
        case "secrets":
            task.secrets["MORE"] = "x"
        case "artifacts":
            task.artifacts[0].path = "/etc/passwd"
        case "timeout":
            task.timeout += 1
        case "not_after":
            task.signature.not_after += 1
        case _:
            setattr(task, name, "other")
    return task


@pytest.mark.parametrize(
    "name",
    ["commands", "env", "secrets", "artifacts", "timeout", "not_after", "workspace", "image",
     "executor"],
)  # fmt: skip
def test_what_was_changed_is_not_run(key, name):
    file, trusted = key
    signed = request()
    sign(signed, file, timedelta(hours=1))
    assert "not what its signer" in trusted.refusal(changed(handed_over(signed), name))


@pytest.mark.parametrize("what", ["steps", "plugins", "inputs"])
def test_what_no_signature_is_over_is_not_run(key, what):
    file, trusted = key
    signed = request()
    sign(signed, file, timedelta(hours=1))
    task = handed_over(signed)
    getattr(task, what).add()
    assert "which no signature is over" in trusted.refusal(task)


def test_who_is_not_trusted_or_did_not_sign_is_named(key, tmp_path):
    file, trusted = key
    assert "is not signed" in trusted.refusal(handed_over(request()))
    make_key(tmp_path / "other")
    signed = request()
    sign(signed, tmp_path / "other", timedelta(hours=1))
    assert "does not trust the key" in trusted.refusal(handed_over(signed))
    sign(signed, file, timedelta(hours=1))
    late = TrustedKeys(trusted.keys, now=lambda: time.time() + 3601)
    assert late.refusal(handed_over(signed)) == "its signature has ended"


def test_without_a_file_everybody_is_trusted():
    assert read(None).refusal(agent_pb2.Task(commands=["x"])) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no line"),
        ("only-an-id", "line 1 should be"),
        ("id:c2hvcnQ=", "line 1 should be"),
        ("# x\nid:not base64", "line 2 should be"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, text, why):
    (tmp_path / "trusted").write_text(text)
    with pytest.raises(TrustError, match=why):
        read(tmp_path / "trusted")


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    line = make_key(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert len(base64.b64decode(line.partition(":")[2])) == 32
    with pytest.raises(task_signing.CommandFailed, match="cannot make"):
        make_key(tmp_path / "key")
    assert task_signing.public_line(Ed25519PrivateKey.generate()) != line
