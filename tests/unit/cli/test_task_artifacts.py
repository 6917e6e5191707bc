"""`muster task artifacts` and `muster artifact`: what they say of moments to come."""

import time

import pytest

from cli.artifact_files import download
from cli.commands.artifact import _grant_row
from cli.commands.task_artifacts import _row
from cli.failure import CommandFailed
from generated.artifact.v1 import artifact_pb2
from generated.task.v1 import task_pb2


def test_an_artifact_says_how_long_it_will_be_kept():
    now = int(time.time())
    kept = task_pb2.Artifact(created_at=now, expire_at=now + 7 * 86_400)
    assert _row(kept)[-1] == "in 6d 23h"
    assert _row(task_pb2.Artifact(created_at=now))[-1] == ""


def test_a_grant_says_how_long_it_will_last():
    ends = int(time.time() + 900) * 1000
    assert "(in 14m" in _grant_row(artifact_pb2.UploadGrant(expires_at=ends))[5]


def test_a_store_that_gives_more_than_there_is_is_left(httpserver, tmp_path):
    httpserver.expect_request("/file").respond_with_data(b"x" * 1001)
    file = ("file", httpserver.url_for("/file"), "0" * 64, 1000)
    with pytest.raises(CommandFailed, match="more than the 1000 bytes there are"):
        download([file], tmp_path)
    assert not (tmp_path / "file").exists()
